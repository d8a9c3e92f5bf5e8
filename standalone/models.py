"""Which files a video's models come from, and the models themselves, loaded and checked."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import nn

from memo_avatar.checkpoint.companions import (
    VAE_FOLDER,
    WAV2VEC2_FOLDER,
    Settings,
    check_files,
    find_calibration,
    home,
    read_settings,
    read_wav2vec2,
)
from memo_avatar.checkpoint.load import Checkpoint
from memo_avatar.clips.conditions import VAE
from memo_avatar.model.nets import MemoModels
from memo_avatar.torch_ops import sdpa_attention
from memo_avatar.voice.wav2vec2 import Wav2Vec2

from .arguments import DEMO_CHECKPOINT, CommandError


@dataclass(frozen=True)
class ModelFiles:
    """Where everything is: the checkpoint and what lies in its folder, unless given elsewhere."""

    checkpoint: Path
    vae: Path
    wav2vec2: Path
    calibration: Path | None
    settings: Settings

    @classmethod
    def find(cls, checkpoint: Path, vae: Path | None, wav2vec2: Path | None) -> ModelFiles:
        """A folder's own parts lie in it, a single file's beside it."""
        if not checkpoint.exists():
            advice = "Give --checkpoint." if checkpoint == DEMO_CHECKPOINT else "Check the path."
            raise CommandError(f"expected a MEMO checkpoint but got nothing there ({checkpoint}). {advice}")
        given = {VAE_FOLDER: vae, WAV2VEC2_FOLDER: wav2vec2}
        check_files(checkpoint, [name for name, elsewhere in given.items() if elsewhere is None])
        folder = home(checkpoint)
        return cls(
            checkpoint=checkpoint,
            vae=_part(folder / VAE_FOLDER, vae),
            wav2vec2=_part(folder / WAV2VEC2_FOLDER, wav2vec2),
            calibration=find_calibration(checkpoint),
            settings=read_settings(checkpoint),
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
    checkpoint: Checkpoint,
    vae: Path,
    dtype: torch.dtype,
    device: torch.device,
    progress: Callable[[int, int], None],
) -> tuple[MemoModels, VAE]:
    """MEMO's nets and the VAE, all weights finite."""
    from .vae import load_vae  # diffusers takes seconds to import: bad inputs are told before

    autoencoder = load_vae(vae, dtype=dtype, device=device)
    return checkpoint.load(dtype=dtype, device=device, progress=progress), autoencoder


def load_wav2vec2(folder: Path, device: torch.device | str = "cpu") -> Wav2Vec2:
    """A folder of Wav2Vec2Model or Wav2Vec2ForCTC, computed in float32 as upstream does."""
    found = read_wav2vec2(folder)
    model = Wav2Vec2(found.config, attention=sdpa_attention, operations=nn)
    model.load_state_dict(found.state)
    return model.to(device).eval().requires_grad_(False)


def _part(own: Path, given: Path | None) -> Path:
    path = own if given is None else given
    if not path.is_dir():
        actual = "a file" if path.exists() else "nothing there"
        raise CommandError(
            f"expected a {own.name} folder but got {actual} ({path}). Give it with --{own.name}."
        )
    return path
