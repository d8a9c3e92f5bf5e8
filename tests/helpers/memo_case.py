"""A golden case as inputs for our clip loop: nets, VAE, portrait, and a voice of any length."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor

from memo_avatar.checkpoint.load import load_memo
from memo_avatar.inputs import Portrait, Voice
from memo_avatar.model.nets import MemoModels


class CaseVAE:
    """diffusers' AutoencoderKL behind the clip loop's two calls."""

    def __init__(self, folder: Path) -> None:
        from diffusers import AutoencoderKL

        self.net: Any = AutoencoderKL.from_config(json.loads((folder / "config.json").read_text()))
        weights = load_file(folder / "diffusion_pytorch_model.safetensors")
        self.net.load_state_dict({key: value.float() for key, value in weights.items()})
        self.net.eval().requires_grad_(False)

    def encode(self, pixels: Tensor) -> Tensor:
        return self.net.encode(pixels).latent_dist.mean

    def decode(self, latents: Tensor) -> Tensor:
        return self.net.decode(latents).sample


@dataclass(frozen=True)
class MemoCase:
    """Everything `generate_clips` takes, and the case's run.json."""

    models: MemoModels
    vae: CaseVAE
    portrait: Portrait
    voice: Voice
    info: dict[str, Any]


def load_case(folder: Path, clips: int) -> MemoCase:
    """The case with a voice of `clips` clips, the stored features repeated."""
    info = json.loads((folder / "run.json").read_text())
    golden = load_file(folder / "golden.safetensors")
    frames = clips * info["frames_per_clip"]
    span = torch.arange(frames) % golden["audio_emb"].shape[0]
    return MemoCase(
        models=load_memo(folder / "checkpoint", dtype=torch.float32),
        vae=CaseVAE(folder / "checkpoint" / "vae"),
        portrait=Portrait(golden["pixel_values"], golden["face_emb"]),
        voice=Voice(golden["audio_emb"][span], golden["audio_emotion"][span], frames),
        info=info,
    )
