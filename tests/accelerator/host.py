"""ComfyUI on simulated cards, with this pack loaded, in this process."""

from __future__ import annotations

import gc
import logging
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
sys.path += [str(ROOT), str(ROOT / "tests" / "helpers" / "inside")]  # last: ComfyUI has a `nodes`, too

from world import Pack, load_pack  # noqa: E402

from tests.accelerator import simulated  # noqa: E402

MIB, GIB = 2**20, 2**30


class Host(Pack):
    """ComfyUI on cards of these limits in bytes; `flags` are its command line's. `add_models` may put some
    into models/memo before the pack looks there."""

    def __init__(
        self,
        comfyui: Path,
        limits: Sequence[int],
        flags: Sequence[str] = (),
        add_models: Callable[[Path], object] = lambda _folder: None,
    ) -> None:
        self.cards = simulated.install("npu", limits)
        self.user = Path(tempfile.mkdtemp(prefix="memo-simulated-"))
        for name in ("models/memo", "input", "output", "temp", "user"):
            (self.user / name).mkdir(parents=True)
        add_models(self.user / "models" / "memo")
        sys.path.insert(0, str(comfyui))
        sys.argv = ["main.py", "--base-directory", str(self.user), *flags]
        import comfy.options

        comfy.options.enable_args_parsing()
        import comfy.model_management as management
        import torch

        torch.set_num_threads(1)
        management.MIN_WEIGHT_MEMORY_RATIO = 0.0  # what ComfyUI has on NVIDIA
        import comfy.samplers
        import comfy_api.latest
        import folder_paths
        import latent_preview

        assert comfy.samplers and comfy_api.latest and latent_preview
        folder_paths.models_dir = str(self.user / "models")
        self.torch, self.management = torch, management
        super().__init__(load_pack(ROOT))
        self.pack.comfy_entrypoint()
        logging.getLogger().setLevel(logging.WARNING)

    def close(self) -> None:
        shutil.rmtree(self.user, ignore_errors=True)

    def video_job(self, loaded: Sequence[Any], portrait: Any, voice: Any, **settings: Any) -> Any:
        """What MEMO Sampler makes of its inputs."""
        model, memo, vae = loaded[:3]
        values = {"seed": 7, "steps": 2, "cfg": 3.5, "sampler_name": "euler", "scheduler": "normal"}
        kind = self.module("nodes.host.job").VideoJob
        return kind(model, memo, portrait, voice, vae, **{**values, **settings})

    def speak(self, memo: Any, seconds: float, size: int) -> tuple[Any, Any]:
        """The demo's portrait and voice, for any checkpoint."""
        image, sound = self.nodes.DemoNode.execute("portrait.png", "speech.wav").args[:2]
        portrait = self.nodes.PortraitNode.execute(image, memo, size, size, "crop").args[0]
        return portrait, self.nodes.VoiceNode.execute(sound, memo, "happy", 0.5, seconds).args[0]

    def unload(self) -> int:
        """What ComfyUI's "Unload Models" and "Free cache" do; the bytes left on all cards."""
        self.management.unload_all_models()
        reset = getattr(self.management, "reset_cast_buffers", None)
        if reset is not None:
            reset()
        gc.collect()
        self.management.soft_empty_cache()
        return self.cards.live()

    @contextmanager
    def on_cpu(self) -> Iterator[None]:
        """As started with --cpu."""
        before = self.management.cpu_state
        self.management.cpu_state = self.management.CPUState.CPU
        try:
            yield
        finally:
            self.management.cpu_state = before

    @contextmanager
    def moved(self) -> Iterator[dict[str, int]]:
        """Bytes that cross, as "up" and "down" of "weights", "memory" and the rest, "data"."""
        found: dict[str, int] = {}
        with self.cards.crossings(_kind) as seen:
            yield found
        for place, bytes in seen.items():
            direction, _, kind = place.partition(" at ")
            found[f"{kind} {direction}"] = found.get(f"{kind} {direction}", 0) + bytes


def _kind() -> str:
    """What crosses: by the innermost file that knows."""
    for path, _, _ in simulated.frames():
        name = "/".join(path.parts[-2:])
        if name in ("comfy/ops.py", "comfy/model_patcher.py", "comfy/lora.py"):
            return "weights"
        if name == "model/offload.py":
            return "memory"
    return "data"
