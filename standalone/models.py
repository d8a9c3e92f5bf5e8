"""Which files a video's models come from, and the models themselves, loaded and checked."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch

from memo_avatar.checkpoint.load import load_memo
from memo_avatar.clips.conditions import VAE
from memo_avatar.model.nets import MemoModels

from .arguments import DEMO_CHECKPOINT, CommandError

SETTINGS_NAME = "demo.json"
CALIBRATION_NAME = "calibration.json"


@dataclass(frozen=True)
class Settings:
    """What a checkpoint recommends; the defaults are upstream's."""

    guidance_scale: float = 3.5
    size: int = 512


@dataclass(frozen=True)
class ModelFiles:
    """Where everything is: the checkpoint and what lies in its folder, unless given elsewhere."""

    checkpoint: Path
    vae: Path
    wav2vec2: Path
    calibration: Path
    settings: Settings

    @classmethod
    def find(cls, checkpoint: Path, vae: Path | None, wav2vec2: Path | None) -> ModelFiles:
        """A folder's own parts lie in it, a single file's beside it."""
        if not checkpoint.exists():
            advice = "Give --checkpoint." if checkpoint == DEMO_CHECKPOINT else "Check the path."
            raise CommandError(f"expected a MEMO checkpoint but got nothing there ({checkpoint}). {advice}")
        folder = checkpoint if checkpoint.is_dir() else checkpoint.parent
        return cls(
            checkpoint=checkpoint,
            vae=_part(folder, "vae", vae),
            wav2vec2=_part(folder, "wav2vec2", wav2vec2),
            calibration=folder / CALIBRATION_NAME,
            settings=_read_settings(folder / SETTINGS_NAME),
        )


def select_device(name: str | None) -> torch.device:
    """`--device`, or a GPU if there is one."""
    if name is None:
        if torch.cuda.is_available():
            return torch.device("cuda")
        return torch.device("mps" if torch.backends.mps.is_available() else "cpu")
    try:
        device = torch.device(name)
        torch.zeros(1, device=device)
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        reason = str(error).splitlines()[0]
        raise CommandError(
            f"expected a device of this machine but got {name}: {reason} (--device). Use cpu, cuda or mps."
        ) from error
    return device


def select_dtype(name: str | None, device: torch.device) -> torch.dtype:
    """`--dtype`, or what suits the device."""
    return getattr(torch, name) if name else torch.float32 if device.type == "cpu" else torch.bfloat16


def load_models(
    files: ModelFiles, dtype: torch.dtype, device: torch.device, progress: Callable[[int, int], None]
) -> tuple[MemoModels, VAE]:
    """MEMO's nets and the VAE, all weights finite."""
    from .vae import load_vae  # diffusers takes seconds to import: bad inputs are told before

    vae = load_vae(files.vae, dtype=dtype, device=device)
    models = load_memo(files.checkpoint, dtype=dtype, device=device, progress=progress)
    return models, vae


def _part(folder: Path, name: str, given: Path | None) -> Path:
    path = folder / name if given is None else given
    if not path.is_dir():
        actual = "a file" if path.exists() else "nothing there"
        raise CommandError(f"expected a {name} folder but got {actual} ({path}). Give it with --{name}.")
    return path


def _read_settings(path: Path) -> Settings:
    if not path.is_file():
        return Settings()
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
        return Settings(
            guidance_scale=float(values.get("guidance_scale", Settings.guidance_scale)),
            size=int(values.get("size", Settings.size)),
        )
    except (ValueError, TypeError, AttributeError) as error:
        raise CommandError(
            f"expected a JSON object with guidance_scale and size but got {error} ({path}). Repair the file."
        ) from error
