"""Checks inside ComfyUI: the step cache is exact where it must be, and leaves nothing behind."""

from __future__ import annotations

import gc
import weakref
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

from world import STEPS, World


def error_of(function: Any) -> str:
    """What it refuses with, or "none"."""
    try:
        function()
    except (ValueError, MemoryError) as error:
        return str(error)
    return "none"


def frames_of_the_plain_run(world: World) -> dict[str, Any]:
    again = world.frames(world.job)
    return {"shape": list(world.plain.shape), "repeats": bool(again.equal(world.plain))}


def cache_that_skips_nothing(world: World) -> dict[str, Any]:
    frames, cache = world.run(world.cached(step_mask="1" * STEPS))
    return {"equal": bool(frames.equal(world.plain)), "skipped": cache.report.totals().skipped}


def threshold_zero(world: World) -> dict[str, bool]:
    execute, model = world.nodes.TeaCacheNode.execute, world.job.model
    off = execute(model, "threshold", 2.0, 0.0).args[0]
    one = execute(model, "target speed-up", 1.0, 0.15).args[0]
    return {"threshold 0": off is model, "speed-up 1": one is model}


def cache_that_skips(world: World) -> dict[str, Any]:
    """It repeats, and leaves the model it was put on alone: taken out, the frames are the old ones."""
    job = world.cached(target_speedup=2.0)
    first, cache = world.run(job)
    second, again = world.run(job)
    return {
        "masks": list(cache.report.masks()),
        "same masks": again.report.masks() == cache.report.masks(),
        "same frames": bool(second.equal(first)),
        "plain untouched": bool(world.frames(world.job).equal(world.plain)),
        "error": float((first - world.plain).abs().max()),
    }


def thresholds_in_any_order(world: World) -> dict[str, Any]:
    """Two settings of the node on one model, each as on a model that was loaded for it alone."""
    low, high = world.threshold(0.15), world.threshold(0.6)
    runs = [world.run(job) for job in (low, high, high, low)]
    frames = [frames for frames, _ in runs]
    fresh_model = world.nodes.LoadMemo.execute("micro", "auto").args[0]
    fresh = world.frames(
        replace(
            low,
            model=world.module("nodes.host.cached_sampling").attach(
                fresh_model, world.module("nodes.host.cached_sampling").settings_of(low.model)
            ),
        )
    )
    return {
        "masks": [list(cache.report.masks()) for _, cache in runs],
        "differ": not frames[0].equal(frames[1]),
        "same": bool(frames[0].equal(frames[3]) and frames[1].equal(frames[2])),
        "fresh": bool(fresh.equal(frames[0])),
    }


def clones_side_by_side(world: World) -> dict[str, bool]:
    """Three jobs on clones of one model, made clip by clip in turns, each as if alone."""
    import torch

    jobs = [world.job, world.cached(step_mask="1101"), world.cached(step_mask="1001")]
    alone = [world.plain, world.skipping, world.frames(jobs[2])]
    turns = zip(*(world.clips(job)[0] for job in jobs), strict=True)
    together = [torch.cat([clip.frames for clip in clips]) for clips in zip(*turns, strict=True)]
    names = ("plain", "1101", "1001")
    return {name: bool(t.equal(a)) for name, t, a in zip(names, together, alone, strict=True)}


def interrupted_at_every_step(world: World) -> dict[str, Any]:
    """Queued again it gives the fresh result, and nothing of the broken run stays alive."""
    import comfy.model_management as management

    progress = world.module("nodes.host.video").Progress
    fresh = world.skipping
    before, interrupted = live_bytes(), 0
    with watched_clips(world) as runs:
        for step in range(STEPS):
            with replaced(progress, "on_step", stopping_at(progress.on_step, step)):
                try:
                    world.frames(world.cached(step_mask="1101"))
                except management.InterruptProcessingException:
                    interrupted += 1
        gc.collect()
        alive = sum(run() is not None for run in runs)
    return {
        "interrupted": interrupted,
        "runs": len(runs),
        "alive": alive,
        "bytes left": live_bytes() - before,
        "cached again": bool(world.frames(world.cached(step_mask="1101")).equal(fresh)),
        "plain again": bool(world.frames(world.job).equal(world.plain)),
    }


def exceptions_leave_the_host_usable(world: World) -> dict[str, Any]:
    """In the VAE, in the sampler, in the callback of the progress bar."""
    import comfy.samplers

    progress = world.module("nodes.host.video").Progress
    job, fresh = world.cached(step_mask="1101"), world.skipping
    before = live_bytes()
    failed = {"vae": fails(world, replace(job, vae=BrokenVAE(world.job.vae)))}
    broken = comfy.samplers.KSAMPLER(broken_sampler)
    with replaced(comfy.samplers, "sampler_object", lambda _name: broken):
        failed["sampler"] = fails(world, job)
    with replaced(progress, "on_step", stopping_at(progress.on_step, 1, error=BrokenError)):
        failed["callback"] = fails(world, job)
    return {
        "failed": failed,
        "bytes left": live_bytes() - before,
        "cached again": bool(world.frames(job).equal(fresh)),
        "plain again": bool(world.frames(world.job).equal(world.plain)),
    }


def nothing_stays_after_unload(world: World) -> dict[str, Any]:
    """A model that was loaded, sampled with a cache and unloaded leaves no tensor."""
    import comfy.model_management as management

    management.unload_all_models()
    before, weights = live_bytes(), weight_bytes(world.job.model)
    model, memo, _ = world.nodes.LoadMemo.execute("micro", "auto", world.job.vae).args[:3]
    world.frames(world.cached(replace(world.job, model=model, memo=memo), step_mask="1101"))
    during = live_bytes() - before
    del model, memo
    management.unload_all_models()
    return {
        "loaded": len(management.current_loaded_models),
        "held the weights": during >= weights,
        "bytes left": live_bytes() - before,
        "plain again": bool(world.frames(world.job).equal(world.plain)),
    }


# Means


class BrokenError(Exception):
    """What the tests break things with."""


class BrokenVAE:
    """Encodes; does not decode."""

    def __init__(self, vae: Any) -> None:
        self.encode, self.first_stage_model = vae.encode, vae.first_stage_model

    def decode(self, _latents: Any) -> Any:
        raise BrokenError


def broken_sampler(model: Any, x: Any, sigmas: Any, extra_args: Any = None, **_options: Any) -> Any:
    """One evaluation, then an error."""
    model(x, sigmas[0] * x.new_ones([x.shape[0]]), **extra_args)
    raise BrokenError


def fails(world: World, job: Any) -> bool:
    try:
        world.frames(job)
    except BrokenError:
        return True
    return False


def stopping_at(on_step: Any, last_step: int, clip: int = 1, error: Any = None) -> Any:
    """`Progress.on_step` as if the user pressed cancel after this step of this clip."""
    import comfy.model_management as management

    error = error or management.InterruptProcessingException

    def stopping(self: Any, clip_index: int) -> Any:
        inner = on_step(self, clip_index)

        def callback(step: int, *rest: Any) -> None:
            inner(step, *rest)
            if clip_index == clip and step == last_step:
                raise error()

        return callback

    return stopping


@contextmanager
def replaced(owner: Any, name: str, value: Any) -> Iterator[None]:
    """An attribute set for a while."""
    original = getattr(owner, name)
    setattr(owner, name, value)
    try:
        yield
    finally:
        setattr(owner, name, original)


@contextmanager
def free_memory(world: World, number: float) -> Iterator[None]:
    """The pack's own estimate sees this much; the host sees what there is."""
    estimate = world.module("nodes.host.estimate")
    with replaced(estimate, "available_bytes", lambda _device: number):
        yield


@contextmanager
def watched_clips(world: World) -> Iterator[list[Any]]:
    """Weak references to every ClipCache made inside."""
    engine = world.module("teacache_core.step_cache")
    kind, clips = engine.ClipCache, []

    def make(*args: Any, **kwargs: Any) -> Any:
        clip = kind(*args, **kwargs)
        clips.append(weakref.ref(clip))
        return clip

    with replaced(engine, "ClipCache", make):
        yield clips


def live_bytes() -> int:
    """Bytes of all tensors that Python holds."""
    import torch

    gc.collect()
    storages = {}
    for thing in gc.get_objects():
        if issubclass(type(thing), torch.Tensor) and thing.device.type != "meta":
            storage = thing.untyped_storage()
            storages[storage.data_ptr()] = storage.nbytes()
    return sum(storages.values())


def weight_bytes(model: Any) -> int:
    return sum(weight.numel() * weight.element_size() for weight in model.model.parameters())


CHECKS = (
    frames_of_the_plain_run,
    cache_that_skips_nothing,
    threshold_zero,
    cache_that_skips,
    thresholds_in_any_order,
    clones_side_by_side,
    interrupted_at_every_step,
    exceptions_leave_the_host_usable,
    nothing_stays_after_unload,
)
