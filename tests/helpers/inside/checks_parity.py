"""Checks inside ComfyUI on a stored case of the published code, which float32 computes well."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager, nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any

from checks_cache import free_memory, replaced
from world import World

CASE = Path(__file__).resolve().parents[2] / "goldens" / "oblong"


class Stored:
    """The case as a job of the nodes, its checkpoint through our loaders, and what the host makes of it."""

    def __init__(self, world: World) -> None:
        from safetensors.torch import load_file

        self.world = world
        self.golden = load_file(CASE / "golden.safetensors")
        self.run = run = json.loads((CASE / "run.json").read_text())
        loop = world.module("memo_avatar.clips.loop")
        self.settings = loop.SamplingSettings(
            run["num_inference_steps"], run["guidance_scale"], run["frames_per_clip"], run["past_frames"]
        )
        self.job = stored_job(world, self.golden, run)
        self.recorded = {"sigmas": self.job.sigmas()}
        self.frames = self.make(self.job, recorded=self.recorded)[0]

    def make(self, job: Any, *, split: bool = False, recorded: dict[str, Any] | None = None) -> Any:
        """Frames from the stored noise, and the cache; what the net answers goes to `recorded`."""
        import torch

        world, video = self.world, self.world.module("nodes.host.video")
        noises = iter([self.golden[f"clip{clip}.noise"] for clip in range(self.run["clips"])])
        inner, kept = video.sample_clip, {} if recorded is None else recorded

        def sample(job: Any, context: Any, _noise: Any, sigmas: Any, clip: int, callback: Any) -> Any:
            with recorded_velocities(job.model, kept, clip) as model:
                latents = inner(replace(job, model=model), context, next(noises), sigmas, clip, callback)
            kept[f"clip{clip}.latents"] = latents * world.module("memo_avatar.clips.loop").VAE_SCALE
            return latents

        with ExitStack() as stack:
            stack.enter_context(replaced(video.VideoJob, "settings", self.settings))
            stack.enter_context(replaced(video, "sample_clip", sample))
            stack.enter_context(split_branches(world, job) if split else nullcontext())
            clips, cache = world.clips(job)
            made = list(clips)
        kept |= {f"clip{clip.index}.video": clip.frames.transpose(0, 1)[None] for clip in made}
        return torch.cat([clip.frames for clip in made]), cache


def published_numbers(world: World) -> dict[str, float]:
    """The host's MODEL against what the published code computes: errors of every stored tensor."""
    world.stored = Stored(world)
    golden = world.stored.golden
    return {name: error(name, tensor, golden[name]) for name, tensor in world.stored.recorded.items()}


def distance_to_the_standalone_loop(world: World) -> dict[str, float]:
    """Our own clip loop, with the same VAE and noise, on plain torch."""
    stored, job = world.stored, world.stored.job
    frames = own_loop(
        world, job, stored.settings, draw_noise=lambda clip, _shape: stored.golden[f"clip{clip}.noise"]
    )
    difference = (frames - stored.frames).abs()
    return {"largest": float(difference.max()), "mean": float(difference.mean())}


def frames_of_the_standalone_loop_in_every_mode(world: World) -> dict[str, Any]:
    """The cache in the host against the same cache in our own clip loop: decisions, and the largest error."""
    core, attach = world.module("teacache_core"), world.module("nodes.host.cached_sampling").attach
    job = replace(world.stored.job, voice=two_clips(world.stored.job.voice), steps=6)
    guarded = replace(job, guard_drift=True)
    recorder = core.CacheSettings(core.StepCacheConfig(calibrate=True))
    learned = standalone_frames(world, job, recorder)[1].make_calibration()
    modes = {
        "same": ({"target_speedup": 2.0}, learned),
        "converged": ({"target_speedup": 2.0, "target": "converged"}, learned),
        "line": ({"target_speedup": 2.0, "on_skip": "line"}, learned),
        "learning": ({"target_speedup": 2.0}, None),
        "threshold": ({"rel_l1_thresh": 0.15}, learned),
        "threshold, converged": ({"rel_l1_thresh": 0.15, "target": "converged"}, learned),
        "mask": ({"step_mask": "110100"}, None),
        "guarded": ({"target_speedup": 2.0}, learned),
    }
    found: dict[str, Any] = {}
    for name, (config, calibration) in modes.items():
        settings = core.CacheSettings(core.StepCacheConfig(**config), calibration)
        one = guarded if name == "guarded" else job
        mine, cache = standalone_frames(world, one, settings)
        theirs, host_cache = world.run(replace(one, model=attach(job.model, settings)))
        found[name] = {
            "masks": [list(run.report.masks()) for run in (cache, host_cache)],
            "notes": [run.report.notes for run in (cache, host_cache)],
            "error": float((mine - theirs).abs().max()),
        }
    return found


def branches_split_or_batched(world: World) -> dict[str, Any]:
    """A model that seems too big for both branches at once makes the host evaluate them one by one."""
    stored = world.stored
    job = replace(stored.job, model=world.threshold(0.5, job=stored.job).model)
    calls: dict[str, Any] = {}
    plain = stored.make(stored.job, split=True, recorded=calls)[0]
    batched, cache = stored.make(job)
    split, split_cache = stored.make(job, split=True)
    return {
        "batches": sorted({len(tensor) for name, tensor in calls.items() if name.endswith("velocity")}),
        "masks": [list(run.report.masks()) for run in (cache, split_cache)],
        "plain": float((plain - stored.frames).abs().max()),
        "cached": float((split - batched).abs().max()),
    }


# Means


def two_clips(voice: Any) -> Any:
    """A voice whose features go on for two whole clips."""
    import torch

    heard = voice.voice
    index = torch.arange(32) % heard.num_frames
    features, emotions = heard.audio_embeddings[index], heard.emotions[index]
    return replace(voice, voice=type(heard)(features, emotions, len(index)))


def standalone_frames(world: World, job: Any, settings: Any) -> tuple[Any, Any]:
    """A job's frames by our own clip loop under a cache, and the cache."""
    cache = settings.start(job.model.model.fingerprint, job.cfg)
    return own_loop(world, job, job.settings, seed=job.seed, wrap_denoiser=cache.wrap), cache


def own_loop(world: World, job: Any, settings: Any, **options: Any) -> Any:
    """A job's frames by our own clip loop in float32, with the host's VAE."""
    import torch

    loop, checkpoint = world.module("memo_avatar.clips.loop"), world.module("memo_avatar.checkpoint.load")
    clips = loop.generate_clips(
        checkpoint.load_memo(job.memo.path, dtype=torch.float32),
        world.module("nodes.host.video").HostVAE(job.vae),
        job.portrait,
        job.voice.voice,
        settings,
        **options,
    )
    return torch.cat([clip.frames for clip in clips])


@contextmanager
def split_branches(world: World, job: Any) -> Iterator[None]:
    """The host believes that one branch fills the device."""
    with replaced(job.model.model, "memory_usage_factor", 1e12), free_memory(world, 1e40):
        yield


@contextmanager
def recorded_velocities(model: Any, recorded: dict[str, Any], clip: int) -> Iterator[Any]:
    """A clone whose net's outputs are kept, uncond first."""
    from comfy.patcher_extension import WrappersMP

    def record(executor: Any, *args: Any, **kwargs: Any) -> Any:
        velocity = executor(*args, **kwargs)
        step = sum(name.startswith(f"clip{clip}.step") for name in recorded)
        recorded[f"clip{clip}.step{step}.velocity"] = velocity.clone()
        return velocity

    model = model.clone()
    model.add_wrapper_with_key(WrappersMP.DIFFUSION_MODEL, "tests", record)
    yield model


def stored_job(world: World, golden: Mapping[str, Any], run: Mapping[str, Any]) -> Any:
    """A stored case as a job of the nodes, its checkpoint through our loaders."""
    import torch

    load, loop = world.module("nodes.load"), world.module("memo_avatar.clips.loop")
    sockets, vae = world.module("nodes.host.sockets"), world.module("nodes.host.vae")
    path = CASE / "checkpoint"
    frames = golden["audio_emb"].shape[0]
    voice = loop.Voice(golden["audio_emb"], golden["audio_emotion"], frames)
    return world.module("nodes.host.video").VideoJob(
        model=load.load_model(str(path), "fp32"),
        memo=load.load_nets(load.open_checkpoint(path), torch.float32),
        portrait=loop.Portrait(golden["pixel_values"], golden["face_emb"]),
        voice=sockets.EncodedVoice(voice, torch.zeros(1, 1, frames * 533), 16_000),
        vae=vae.load_vae(path / "vae"),
        seed=0,
        steps=run["num_inference_steps"],
        cfg=run["guidance_scale"],
        sampler_name="euler",
        scheduler="normal",
    )


def error(name: str, ours: Any, stored: Any) -> float:
    """As `tests/parity/check.py` has it: pixels absolute, all else relative in the L2 norm."""
    difference = ours.double() - stored.double()
    if name.endswith("video"):
        return float(difference.abs().max())
    return float(difference.norm() / stored.double().norm())


CHECKS = (
    published_numbers,
    distance_to_the_standalone_loop,
    frames_of_the_standalone_loop_in_every_mode,
    branches_split_or_batched,
)
