"""The sockets that ComfyUI does not have, and the values they carry."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from comfy_api.latest import io
from torch import Tensor

from ...memo_avatar.inputs import Voice
from ...memo_avatar.model.config import MemoConfig
from ...teacache_core import CacheReport, Calibration

Memo = io.Custom("MEMO")
MemoPortrait = io.Custom("MEMO_PORTRAIT")
MemoVoice = io.Custom("MEMO_VOICE")
MemoReport = io.Custom("MEMO_REPORT")

CATEGORY = "MEMO"


@dataclass(frozen=True)
class MemoNets:
    """MEMO without its diffusion net, which is the MODEL: three patchers, sizes, and where they came from.

    ``wav2vec2`` is the checkpoint's own audio encoder (a patcher) or None; what follows it are the
    checkpoint's settings.
    """

    path: Path
    config: MemoConfig
    dtype: torch.dtype
    reference_net: Any
    image_proj: Any
    audio_proj: Any
    wav2vec2: Any
    size: int
    guidance_scale: float
    face_embeddings: bool
    photographs: bool

    def patchers(self) -> list[Any]:
        """The nets that every clip needs."""
        return [self.reference_net, self.image_proj, self.audio_proj]

    def get_models(self) -> list[Any]:
        """All patchers, under the name by which the host asks for them."""
        return self.patchers() + ([] if self.wav2vec2 is None else [self.wav2vec2])


@dataclass(frozen=True)
class EncodedVoice:
    """What is said: features for the model, and the sound itself ([B, C, T] at ``sample_rate``) for the
    video."""

    voice: Voice
    waveform: Tensor
    sample_rate: int


@dataclass(frozen=True)
class VideoReport:
    """What a sampling run did. ``calibration`` is what a calibrating run learned."""

    cache: CacheReport
    seconds: float
    frames: int
    calibration: Calibration | None = None
    notes: tuple[str, ...] = field(default_factory=tuple)

    def text(self, details: bool = False) -> str:
        """For people; with ``details``, a line for every evaluation."""
        pace = self.seconds / max(1, self.frames)
        first = f"{self.frames} frames in {self.seconds:.1f} s ({pace:.3f} s per frame)."
        return "\n".join([first, self.cache.to_text(details), *self.notes])
