"""The sockets that ComfyUI does not have, and the values they carry."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from comfy_api.latest import io
from torch import Tensor

from ...memo_avatar.clips.drift_report import Drift, drift_sentence
from ...memo_avatar.files.foreign import counted
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
    checkpoint's settings, and where the temporal memory lives (``placement.MEMORY_PLACES``).
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
    memory: str = "auto"

    def patchers(self) -> list[Any]:
        """The nets that every clip needs."""
        return [self.reference_net, self.image_proj, self.audio_proj]

    def get_models(self) -> list[Any]:
        """All patchers, under the name by which the host asks for them."""
        return self.patchers() + ([] if self.wav2vec2 is None else [self.wav2vec2])


@dataclass(frozen=True)
class EncodedVoice:
    """What is said: features for the model, and the sound itself for the video: [B, C, T] in -1..1."""

    voice: Voice
    waveform: Tensor
    sample_rate: int


@dataclass(frozen=True)
class VideoReport:
    """What a sampling run did in its ``seconds``. ``calibration`` is what a calibrating run learned, and
    ``unlearned`` why it learned nothing.

    ``kept`` of the video's ``frames`` were made by an earlier run that was stopped; ``drift`` is of the clips
    made since.
    """

    cache: CacheReport
    seconds: float
    frames: int
    calibration: Calibration | None = None
    unlearned: str = ""
    kept: int = 0
    drift: tuple[Drift, ...] = ()

    @property
    def first_line(self) -> str:
        """How many frames, and what they took."""
        made = self.frames - self.kept
        pace = f"{self.seconds:.1f} s ({self.seconds / max(1, made):.3f} s per frame)"
        if not self.kept:
            return f"{counted(made, 'frame')} in {pace}."
        return f"{counted(self.frames, 'frame')}: {self.kept} from an earlier run, {made} made in {pace}."

    @property
    def notes(self) -> list[str]:
        """What is to be known besides."""
        return [f"Nothing was learned: {self.unlearned}"] if self.unlearned else []

    def sentences(self) -> str:
        """What is to be read on a node: what was saved, in a few short lines."""
        totals = self.cache.totals()
        faster = (self.seconds + totals.seconds_saved) / max(self.seconds, 1e-9)
        saved, drift = self.cache.headline(), drift_sentence(self.drift)
        if totals.skipped:
            saved += f": about {faster:.2f} times faster with all that is done beside the steps."
        return "\n".join(filter(None, [self.first_line, saved, drift, *self.cache.notes, *self.notes]))

    def text(self, details: bool = False) -> str:
        """For people; with ``details``, a line for every evaluation."""
        whole = self.cache.whole(self.seconds)
        said = (self.first_line, drift_sentence(self.drift), whole)
        lines = [*filter(None, said), self.cache.to_text(details), *self.notes]
        if self.kept and self.frames > self.kept:
            lines.insert(1, f"What follows is about the {self.frames - self.kept} that were made now.")
        return "\n".join(lines)
