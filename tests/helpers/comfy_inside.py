"""Runs in ComfyUI's own Python: loads the pack as ComfyUI does and checks what only the inside can see.

    PYTHON comfy_inside.py COMFYUI USER_FOLDER RESULTS.json

Every check is a function of the shared `World`; its value, or its traceback, goes to RESULTS under its name.
The tests in `tests/host/test_inside.py` judge the values.
"""

from __future__ import annotations

import gc
import importlib.util
import json
import sys
import time
import traceback
import weakref
from dataclasses import replace
from pathlib import Path
from typing import Any

STEPS = 4


class World:
    """The pack's modules and one prepared video job on the tiny checkpoint."""

    def __init__(self, comfyui: Path, user: Path) -> None:
        sys.path.insert(0, str(comfyui))
        sys.argv = ["main.py", "--cpu", "--base-directory", str(user)]
        import comfy.options

        comfy.options.enable_args_parsing()
        import comfy.samplers
        import comfy_api.latest
        import folder_paths
        import latent_preview

        assert (
            comfy.samplers and comfy_api.latest and latent_preview
        )  # what the host has loaded before any pack
        folder_paths.models_dir = str(user / "models")
        self.pack = load_pack(user / "custom_nodes" / "teacache-memo")
        self.pack.comfy_entrypoint()
        self.user = user
        self.job = self.make_job()

    def module(self, name: str) -> Any:
        return sys.modules[f"{self.pack.__name__}.{name}"]

    def make_job(self) -> Any:
        """Load, encode, and a job of three clips."""
        nodes = self.module("nodes")
        model, memo, vae = nodes.LoadMemo.execute("micro", "auto").args
        portrait = nodes.PortraitNode.execute(
            read_picture(self.user / "input" / "portrait.png"), memo, 0, 0, "crop"
        )
        voice = nodes.VoiceNode.execute(
            read_voice(self.user / "input" / "voice.wav"), memo, "happy", 0.0, 0.0
        )
        self.image = portrait.args[1]
        return self.module("nodes.host_video").VideoJob(
            model, memo, portrait.args[0], voice.args[0], vae, 42, STEPS, 2.0, "euler", "normal"
        )

    def cached(self, **settings: Any) -> Any:
        """The job with a step cache on its model."""
        sampling, core = self.module("nodes.host_sampling"), self.module("teacache_core")
        config = core.StepCacheConfig(**settings)
        return replace(self.job, model=sampling.attach(self.job.model, sampling.CacheSettings(config)))

    def run(self, job: Any) -> tuple[Any, Any]:
        """All frames of a job, and its cache."""
        import torch

        model, video = self.module("nodes.host_sampling").start_video(job.model, job.cfg)
        clips = self.module("nodes.host_video").generate_video(replace(job, model=model), video)
        frames = torch.cat([clip.frames for clip in clips])
        return frames, None if video is None else video.cache


def load_pack(folder: Path) -> Any:
    """As the host's load_custom_node does it."""
    name = str(folder).replace(".", "_x_")
    spec = importlib.util.spec_from_file_location(name, folder / "__init__.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    spec.loader.exec_module(module)
    return module


def read_picture(path: Path) -> Any:
    import numpy as np
    import torch
    from PIL import Image

    return torch.from_numpy(np.asarray(Image.open(path).convert("RGB"), dtype=np.float32) / 255)[None]


def read_voice(path: Path) -> dict[str, Any]:
    import wave

    import numpy as np
    import torch

    with wave.open(str(path)) as sound:
        samples = np.frombuffer(sound.readframes(sound.getnframes()), dtype=np.int16)
        waveform = torch.from_numpy(samples.astype(np.float32) / 32768).reshape(-1, sound.getnchannels())
        return {"waveform": waveform.T[None], "sample_rate": sound.getframerate()}


# Checks: each returns plain JSON values


def frames_of_the_plain_run(world: World) -> dict[str, Any]:
    world.plain = world.run(world.job)[0]
    again = world.run(world.job)[0]
    return {"shape": list(world.plain.shape), "repeats": bool(again.equal(world.plain))}


def distance_to_the_standalone_loop(world: World) -> dict[str, float]:
    """Our own clip loop, with the same VAE, on plain torch."""
    import torch

    loop, checkpoint = world.module("memo_avatar.clip_loop"), world.module("memo_avatar.checkpoint")
    job = world.job
    models = checkpoint.load_memo(job.memo.path, dtype=torch.float32)
    vae = world.module("nodes.host_video").HostVAE(job.vae)
    clips = loop.generate_clips(
        models, vae, job.portrait.portrait, job.voice.voice, job.settings, seed=job.seed
    )
    frames = torch.cat([clip.frames for clip in clips])
    difference = (frames - world.plain).abs()
    return {"largest": float(difference.max()), "mean": float(difference.mean())}


def cache_that_skips_nothing(world: World) -> dict[str, Any]:
    frames, cache = world.run(world.cached(step_mask="1" * STEPS))
    return {"equal": bool(frames.equal(world.plain)), "skipped": cache.report.totals().skipped}


def threshold_zero(world: World) -> dict[str, bool]:
    nodes, model = world.module("nodes"), world.job.model
    off = nodes.TeaCacheNode.execute(model, "threshold", 2.0, 0.0).args[0]
    one = nodes.TeaCacheNode.execute(model, "target speed-up", 1.0, 0.15).args[0]
    return {"threshold 0": off is model, "speed-up 1": one is model}


def cache_that_skips(world: World) -> dict[str, Any]:
    """Reports, repeats, and leaves the model it was cloned from alone."""
    job = world.cached(target_speedup=2.0)
    first, cache = world.run(job)
    other = world.run(world.cached(step_mask="1001"))[0]
    second, again = world.run(job)
    plain = world.run(world.job)[0]
    world.masks = cache.report.masks()
    return {
        "masks": list(world.masks),
        "same masks": again.report.masks() == world.masks,
        "same frames": bool(second.equal(first)),
        "others differ": not other.equal(first),
        "plain untouched": bool(plain.equal(world.plain)),
        "error": float((first - world.plain).abs().max()),
    }


def branches_split_or_batched(world: World) -> dict[str, Any]:
    """A model that seems too big for both branches at once makes the host evaluate them one by one."""
    model = world.job.model.model
    batched, cache = world.run(world.cached(step_mask="1101"))
    factor = model.memory_usage_factor
    model.memory_usage_factor = 1e12
    try:
        split, split_cache = world.run(world.cached(step_mask="1101"))
        plain = world.run(world.job)[0]
    finally:
        model.memory_usage_factor = factor
    return {
        "same masks": cache.report.masks() == split_cache.report.masks(),
        "cached": float((split - batched).abs().max()),
        "plain": float((plain - world.plain).abs().max()),
    }


def interrupted_at_every_step(world: World) -> dict[str, Any]:
    """Queued again it gives the fresh result, and nothing of the broken run stays alive."""
    import comfy.model_management as management

    video_module = world.module("nodes.host_video")
    states = watch_runs(world)
    fresh = world.run(world.cached(step_mask="1101"))[0]
    original = video_module.Progress.on_step
    interrupted = 0
    for last_step in range(STEPS):
        video_module.Progress.on_step = stopping_at(original, last_step)
        try:
            world.run(world.cached(step_mask="1101"))
        except management.InterruptProcessingException:
            interrupted += 1
        finally:
            video_module.Progress.on_step = original
    gc.collect()
    alive = sum(state() is not None for state in states)
    return {
        "interrupted": interrupted,
        "alive": alive,
        "cached again": bool(world.run(world.cached(step_mask="1101"))[0].equal(fresh)),
        "plain again": bool(world.run(world.job)[0].equal(world.plain)),
    }


def stopping_at(on_step: Any, last_step: int, clip: int = 1) -> Any:
    """`Progress.on_step` as if the user pressed cancel after this step of this clip."""
    import comfy.model_management as management

    def stopping(self: Any, clip_index: int) -> Any:
        inner = on_step(self, clip_index)

        def callback(step: int, *rest: Any) -> None:
            inner(step, *rest)
            if clip_index == clip and step == last_step:
                raise management.InterruptProcessingException()

        return callback

    return stopping


def watch_runs(world: World) -> list[Any]:
    """Weak references to every CacheRun made from now on."""
    engine = world.module("teacache_core.engine")
    kind, states = engine.CacheRun, []

    def make(*args: Any, **kwargs: Any) -> Any:
        run = kind(*args, **kwargs)
        states.append(weakref.ref(run))
        return run

    engine.CacheRun = make
    return states


def broken_vae(world: World) -> dict[str, Any]:
    """An exception inside leaves the host and the model usable."""

    class BrokenVAE:
        def encode(self, pixels: Any) -> Any:
            return world.job.vae.encode(pixels)

        def decode(self, latents: Any) -> Any:
            raise RuntimeError("no")

    try:
        world.run(replace(world.cached(step_mask="1101"), vae=BrokenVAE()))
        failed = False
    except RuntimeError:
        failed = True
    return {"failed": failed, "plain again": bool(world.run(world.job)[0].equal(world.plain))}


CHECKS = (
    frames_of_the_plain_run,
    distance_to_the_standalone_loop,
    cache_that_skips_nothing,
    threshold_zero,
    cache_that_skips,
    branches_split_or_batched,
    interrupted_at_every_step,
    broken_vae,
)


def main(comfyui: Path, user: Path, results: Path) -> None:
    import torch

    found: dict[str, Any] = {}
    with torch.inference_mode():
        world = World(comfyui, user)
        for check in CHECKS:
            started = time.perf_counter()
            try:
                found[check.__name__] = {"value": check(world)}
            except Exception:
                found[check.__name__] = {"error": traceback.format_exc()}
            found[check.__name__]["seconds"] = round(time.perf_counter() - started, 2)
            results.write_text(json.dumps(found, indent=1), encoding="utf-8")


if __name__ == "__main__":
    main(*map(Path, sys.argv[1:4]))
