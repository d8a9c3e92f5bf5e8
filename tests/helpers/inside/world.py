"""Runs in ComfyUI's own Python: loads the pack as ComfyUI does and checks what only the inside can see.

    PYTHON world.py COMFYUI USER_FOLDER RESULTS.json GROUP...

A group is a `checks_GROUP.py` beside this file. Every check is a function of the shared `World`; its
value, or its traceback, goes to RESULTS under its name. The tests in `tests/host/test_inside.py` judge them.
"""

from __future__ import annotations

import compileall
import importlib
import importlib.util
import json
import socket
import sys
import time
import traceback
from collections.abc import Iterable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

STEPS = 4
SIZE = 32
SECONDS = 0.6  # 18 frames: two clips, the last of two frames
PACKAGES = ("nodes", "memo_avatar", "teacache_core")


class Pack:
    """The loaded pack: its modules, and its way from a job to frames."""

    def __init__(self, pack: Any) -> None:
        self.pack = pack

    def module(self, name: str) -> Any:
        return sys.modules[f"{self.pack.__name__}.{name}"]

    @property
    def nodes(self) -> Any:
        return self.module("nodes")

    def clips(self, job: Any) -> tuple[Any, Any]:
        """An iterator of clips, and the cache of their video."""
        model, video = self.module("nodes.host.cached_sampling").start_video(job.model, job.cfg)
        clips = self.module("nodes.host.video").generate_video(replace(job, model=model), video)
        return clips, None if video is None else video.cache

    def run(self, job: Any) -> tuple[Any, Any]:
        """All frames of a job, and its cache."""
        import torch

        clips, cache = self.clips(job)
        return torch.cat([clip.frames for clip in clips]), cache

    def frames(self, job: Any) -> Any:
        return self.run(job)[0]

    def cached(self, job: Any, **settings: Any) -> Any:
        """A job with a step cache on its model."""
        sampling, core = self.module("nodes.host.cached_sampling"), self.module("teacache_core")
        cache = core.CacheSettings(core.StepCacheConfig(**settings))
        return replace(job, model=sampling.attach(job.model, cache))


class World(Pack):
    """The pack and one prepared video job of two clips on the tiny checkpoint."""

    def __init__(self, comfyui: Path, user: Path) -> None:
        start_host(comfyui, user)
        self.user = user
        self.connections = watch_network()
        folder = user / "custom_nodes" / "teacache-memo"
        for name in PACKAGES:  # ComfyUI's first start does it; what counts is every start after
            compileall.compile_dir(folder / name, quiet=2)
        before, started = set(sys.modules), time.process_time()  # a busy machine is not our slowness
        super().__init__(load_pack(folder))
        self.import_seconds = time.process_time() - started
        packages = top_level(name for name in sys.modules if not name.startswith(self.pack.__name__))
        self.new_packages = sorted(packages - top_level(before) - sys.stdlib_module_names)
        self.pack.comfy_entrypoint()
        self.job = self.make_job()
        self._results: dict[str, Any] = {}

    def make_job(self, seconds: float = SECONDS) -> Any:
        """Load, encode, and a job."""
        model, memo, vae = self.nodes.LoadMemo.execute("micro", "auto").args[:3]
        picture = read_picture(self.user / "input" / "portrait.png")
        portrait = self.nodes.PortraitNode.execute(picture, memo, SIZE, SIZE, "crop").args[0]
        voice = self.encode_voice(memo, seconds)
        video = self.module("nodes.host.video")
        return video.VideoJob(model, memo, portrait, voice, vae, 42, STEPS, 2.0, "euler", "normal")

    def encode_voice(self, memo: Any, seconds: float) -> Any:
        sound = read_voice(self.user / "input" / "voice.wav")
        return self.nodes.VoiceNode.execute(sound, memo, "happy", 0.0, seconds).args[0]

    def longer(self, clips: int, **changes: Any) -> Any:
        """The job with its voice's features repeated for this many whole clips."""
        import torch

        voice, frames = self.job.voice, 16 * clips
        index = torch.arange(frames) % voice.voice.num_frames
        inner = replace(
            voice.voice,
            audio_embeddings=voice.voice.audio_embeddings[index],
            emotions=voice.voice.emotions[index],
            num_frames=frames,
        )
        sound = voice.waveform.repeat(1, 1, clips)[..., : frames * voice.sample_rate // 30]
        return replace(self.job, voice=replace(voice, voice=inner, waveform=sound), **changes)

    def cached(self, job: Any = None, **settings: Any) -> Any:
        """A job, or the prepared one, with a step cache on its model."""
        return super().cached(job or self.job, **settings)

    def threshold(self, value: float, job: Any = None) -> Any:
        """A job through the node, in mode threshold."""
        job = job or self.job
        return replace(job, model=self.nodes.TeaCacheNode.execute(job.model, "threshold", 2.0, value).args[0])

    @property
    def plain(self) -> Any:
        """Frames of the job without a cache, from the first time they were made."""
        return self.known("plain", self.job)

    @property
    def skipping(self) -> Any:
        """Frames of the job with a cache that skips, from the first time they were made."""
        return self.known("skipping", self.cached(step_mask="1101"))

    def known(self, name: str, job: Any) -> Any:
        if name not in self._results:
            self._results[name] = self.frames(job)
        return self._results[name]


def start_host(comfyui: Path, user: Path) -> None:
    """What ComfyUI has done before it loads any pack."""
    sys.path.insert(0, str(comfyui))
    sys.argv = ["main.py", "--cpu", "--base-directory", str(user)]
    import comfy.options

    comfy.options.enable_args_parsing()
    import torch

    torch.set_num_threads(1)  # the nets are tiny; and a check forks
    import comfy.samplers
    import comfy_api.latest
    import folder_paths
    import latent_preview

    assert comfy.samplers and comfy_api.latest and latent_preview
    folder_paths.models_dir = str(user / "models")


def watch_network() -> list[str]:
    """Refuse every connection from now on, and list who was asked for."""
    asked: list[str] = []

    def refuse(_self: Any, address: Any, *_rest: Any) -> None:
        asked.append(str(address))
        raise ConnectionRefusedError(f"the tests allow no connection ({address})")

    socket.socket.connect = refuse
    socket.socket.connect_ex = refuse
    return asked


def load_pack(folder: Path) -> Any:
    """As the host's load_custom_node does it."""
    name = str(folder).replace(".", "_x_")
    spec = importlib.util.spec_from_file_location(name, folder / "__init__.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    spec.loader.exec_module(module)
    return module


def top_level(names: Iterable[str]) -> set[str]:
    return {name.split(".")[0] for name in names}


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


def run_checks(world: World, checks: Any, found: dict[str, Any], results: Path) -> None:
    for check in checks:
        started = time.process_time()
        found[check.__name__] = attempt(check, world)
        found[check.__name__]["processor seconds"] = round(time.process_time() - started, 2)
        results.write_text(json.dumps(found, indent=1), encoding="utf-8")


def attempt(check: Any, world: World) -> dict[str, Any]:
    try:
        value = check(world)
    except Exception:
        return {"error": traceback.format_exc()}
    assert isinstance(value, Mapping), f"{check.__name__} must return a dict"
    return {"value": value}


def value(found: dict[str, Any], name: str) -> Any:
    """For the tests: what a check found, or its traceback as the test's failure."""
    result = found.get(name, {"error": f"{name} did not run"})
    assert "error" not in result, result["error"]
    return result["value"]


def main(comfyui: str, user: str, results: str, *groups: str) -> None:
    import torch

    here = Path(__file__).resolve().parent
    sys.path += [str(here), str(here.parent)]  # the other checks, and helpers that need neither side
    sys.modules["world"] = sys.modules[__name__]
    found: dict[str, Any] = {}
    with torch.inference_mode():
        world = World(Path(comfyui), Path(user))
        for group in groups:
            checks = importlib.import_module(f"checks_{group}").CHECKS
            run_checks(world, checks, found, Path(results))


if __name__ == "__main__":
    main(*sys.argv[1:])
