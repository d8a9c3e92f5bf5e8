"""Checks inside ComfyUI: the host's samplers on MEMO's flow schedule, and what the cache counts of them."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from typing import Any

from checks_cache import replaced
from world import World

ANSWER = 1.5
SAMPLER_STEPS = 8


def every_sampler(world: World) -> dict[str, Any]:
    """One clip with each of the host's samplers: a net that knows the answer, a cache that skips nothing.

    By name: calls of the net, evaluations that the cache has counted, how far the latents were from the
    answer's at their noise levels (in noise levels), how far at the end, and what the node says against it.
    """
    import comfy.samplers

    clip, found, video = one_clip(world), {}, world.module("nodes.host.video")
    for name in comfy.samplers.KSampler.SAMPLERS:
        model, seen = knowing_net(world.cached(step_mask="1" * 99).model)
        job = replace(world.job, model=model, sampler_name=name, steps=SAMPLER_STEPS)
        try:
            latents, cached = sample(world, job, clip)
            evaluations = cached.cache.report.totals().evaluations
            end = float((latents * 0.18215 - ANSWER).abs().max())
            found[name] = [len(seen), evaluations, max(off for sigma, off in seen if sigma > 0.05), end]
            video.check_sampler(name)
        except ValueError as error:
            found[name].append(str(error))
    return found


def skipping_between_steps(world: World) -> dict[str, Any]:
    """A sampler that evaluates twice per step, under a threshold: evaluations are skipped, not steps.

    Of the second clip of two: the first one is computed in full. `carried`: what it taught survives a file.
    """
    clip, found = one_clip(world), {}
    for name in ("heun", "dpm_2"):
        with counted_calls(world.cached(rel_l1_thresh=0.25).model) as (model, calls):
            job = replace(world.job, model=model, sampler_name=name, steps=6)
            video = sample(world, job, clip, clips=2)[1]
            totals = video.cache.report.totals(video.cache.report.clips()[1])
            found[name] = {
                "evaluations": totals.evaluations,
                "computed": totals.computed,
                "calls": len(calls) - totals.evaluations,
                "carried": carried(video.cache),
            }
    return found


def numbers_read_while_sampling(world: World) -> dict[str, dict[str, int]]:
    """How often the cache asks for a tensor's number while a sampler runs: what waits for a device."""
    clip, found = one_clip(world), {}
    for name in ("euler", "dpmpp_2m", "deis", "heun"):
        change = {"sampler_name": name, "steps": SAMPLER_STEPS}
        plain = reads(world, replace(world.job, **change), clip)
        recording = replace(world.cached(calibrate=True), **change)
        calibration = sample(world, recording, clip)[1].cache.make_calibration()
        jobs = {
            "schedule": with_calibration(world, calibration, target_speedup=2.0),
            "threshold": with_calibration(world, calibration, rel_l1_thresh=0.15),
        }
        found[name] = {kind: reads(world, replace(job, **change), clip) - plain for kind, job in jobs.items()}
    return found


def levels_of_samplers_that_are_counted(world: World) -> dict[str, bool]:
    """Whether each of them evaluates every level of the schedule once, in order, in this host."""
    import comfy.samplers

    clip, found = one_clip(world), {}
    for name in world.module("nodes.host.cached_sampling").ONCE_A_STEP:
        if name in comfy.samplers.KSampler.SAMPLERS:
            model, seen = knowing_net(world.job.model)
            job = replace(world.job, model=model, sampler_name=name, steps=SAMPLER_STEPS)
            sample(world, job, clip)
            wanted = job.sigmas()[:-1].tolist()
            pairs = zip([sigma for sigma, _ in seen], wanted, strict=False)
            found[name] = len(seen) == len(wanted) and all(abs(x - y) < 1e-5 for x, y in pairs)
    return found


# Means


def with_calibration(world: World, calibration: Any, **settings: Any) -> Any:
    """The job under a cache that has learned before."""
    core = world.module("teacache_core")
    settings = core.CacheSettings(core.StepCacheConfig(**settings), calibration)
    model = world.module("nodes.host.cached_sampling").attach(world.job.model, settings)
    return replace(world.job, model=model)


def reads(world: World, job: Any, clip: tuple[Any, ...]) -> int:
    """Numbers read while the sampler of one clip runs."""
    import comfy.samplers
    import torch

    asked: list[str] = []
    run = comfy.samplers.KSAMPLER.sample

    def counting(name: str) -> Any:
        inner = getattr(torch.Tensor, name)
        return lambda self: asked.append(name) or inner(self)

    def counted(*args: Any, **kwargs: Any) -> Any:
        with ExitStack() as stack:  # PyTorch's dispatch modes see no such call in inference mode
            for name in ("item", "tolist", "__float__", "__int__", "__bool__"):
                stack.enter_context(replaced(torch.Tensor, name, counting(name)))
            return run(*args, **kwargs)

    with replaced(comfy.samplers.KSAMPLER, "sample", counted):
        sample(world, job, clip)
    return len(asked)


def one_clip(world: World) -> tuple[Any, ...]:
    """What `sample_clip` is given in the first clip: context and noise."""
    video, given = world.module("nodes.host.video"), []
    inner = video.sample_clip

    def watch(job: Any, context: Any, noise: Any, *rest: Any) -> Any:
        given.append((context, noise))
        return inner(job, context, noise, *rest)

    with replaced(video, "sample_clip", watch):
        next(video.generate_video(replace(world.job, steps=1)))
    return given[0]


def sample(world: World, job: Any, clip: tuple[Any, ...], clips: int = 1) -> tuple[Any, Any]:
    """The latents of the last of some equal clips, and the cache of their video."""
    model, video = world.module("nodes.host.cached_sampling").start_video(job.model, job.cfg)
    job, latents = replace(job, model=model), None
    for index in range(clips):
        if video is not None:
            video.clip_index = index
        latents = world.module("nodes.host.video").sample_clip(
            job, *clip, job.sigmas(), index, lambda *_: None
        )
    return latents, video


def carried(cache: Any) -> bool:
    """Whether what one process leaves to the next is what it has."""
    left = json.loads(json.dumps(cache.carry()))
    cache.take_up(left)
    return cache.carry() == left


def knowing_net(model: Any) -> tuple[Any, list[tuple[float, float]]]:
    """A clone whose net always points at ANSWER.

    Of each call: the noise level, and how far mean and spread of the latents are from those of
    (1 - sigma) * ANSWER + sigma * noise, in sigmas.
    """
    from comfy.patcher_extension import WrappersMP

    seen: list[tuple[float, float]] = []

    def answer(_executor: Any, x: Any, timestep: Any, *_args: Any, **_kwargs: Any) -> Any:
        sigma = float(timestep[0]) / 1000
        noise = (x[:1] - (1 - sigma) * ANSWER) / sigma
        seen.append((sigma, max(abs(float(noise.mean())), abs(float(noise.std()) - 1))))
        return (x - ANSWER) / sigma

    model = model.clone()
    model.add_wrapper_with_key(WrappersMP.DIFFUSION_MODEL, "tests", answer)
    return model, seen


@contextmanager
def counted_calls(model: Any) -> Iterator[tuple[Any, list[int]]]:
    """A clone whose net notes each call."""
    from comfy.patcher_extension import WrappersMP

    calls: list[int] = []

    def count(executor: Any, *args: Any, **kwargs: Any) -> Any:
        calls.append(1)
        return executor(*args, **kwargs)

    model = model.clone()
    model.add_wrapper_with_key(WrappersMP.DIFFUSION_MODEL, "tests", count)
    yield model, calls


CHECKS = (
    every_sampler,
    skipping_between_steps,
    numbers_read_while_sampling,
    levels_of_samplers_that_are_counted,
)
