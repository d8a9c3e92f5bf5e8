"""Emotions over time: written down by a user, or heard in the voice, one class number for every frame.

Hearing follows memoavatar/memo `memo/utils/audio_utils.py` (extract_audio_emotion_labels): a class for every
second from the three seconds around it, two at both ends, spread over the frames by nearest neighbour. The
clip loop then takes each clip's most frequent class.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable
from dataclasses import dataclass
from itertools import groupby, pairwise

import torch
import torch.nn.functional as F
from torch import Tensor

from ..files.foreign import shown
from ..files.limits import MAX_PLAN_TEXT
from ..timing import FPS, MAX_SECONDS, SAMPLE_RATE

# In the order of emotion2vec_plus_large, whose labels MEMO was trained with.
EMOTIONS = ("angry", "disgusted", "fearful", "happy", "neutral", "other", "sad", "surprised", "unknown")
AUTO = "auto"
_EXAMPLE = "0 happy, 3.5 sad"
_BETWEEN = re.compile(r"[,;\n\u3001]")  # the last one is the Chinese and Japanese comma of lists
_LABEL = re.compile(
    r"\+?(?:(?:(?P<hours>\d+):(?=\d\d:))?(?P<minutes>\d+):(?=[0-5]\d\D))?"
    r"(?P<seconds>\d+(?:\.\d*)?|\.\d+)(?:\s*s(?:ec(?:onds?)?)?)?(?:\s*[:=]\s*|\s+)(?P<emotion>\S+)"
)
_TIME = re.compile(r"\d{1,6}(?::[0-5]\d){0,2}")  # alone: no class has two digits
BATCH = 8  # segments of equal length go through the net together
WEAK = "The published preview model follows emotions weakly; the voice and the portrait decide more."


class EmotionError(ValueError):
    """A name or number that is no emotion class. The text is the whole message."""


def parse_emotion(text: str, where: str = "emotion") -> int:
    """A class's name or number -> its number; ``where`` is what an error calls the input."""
    name = text.strip().lower()
    for number, emotion in enumerate(EMOTIONS):
        if name in (emotion, str(number)):
            return number
    choices = ", ".join(f"{number} {emotion}" for number, emotion in enumerate(EMOTIONS))
    raise EmotionError(
        f"expected an emotion but got {shown(text)} ({where}). Use a name or number of: {choices}."
    )


@dataclass(frozen=True)
class EmotionPlan:
    """``labels`` (second, class) from the first to the last; ``auto`` where the voice is to be heard."""

    labels: tuple[tuple[float, int], ...] = ()
    auto: bool = False

    def per_frame(self, num_frames: int, fps: int = FPS) -> Tensor:
        """(N,) class numbers: each holds from its second on, the first from the beginning."""
        frames = torch.arange(num_frames)
        classes = torch.full((num_frames,), self.labels[0][1])
        for seconds, number in self.labels:
            classes[frames >= round(seconds * fps)] = number
        return classes


def parse_plan(text: str, where: str = "emotion") -> EmotionPlan:
    """`happy`, `3`, `auto`, or a class per second: `0 happy, 3.5 sad`, also `0 s happy; 1:30 = sad`.

    Full-width letters are taken as meant. ``where`` is what an error calls the input.
    """
    if len(text) > MAX_PLAN_TEXT:
        raise EmotionError(
            f"expected at most {MAX_PLAN_TEXT} letters of emotions but got {len(text)} ({where}). Write "
            "fewer changes."
        )
    plain = unicodedata.normalize("NFKC", text).strip()
    if plain.lower() == AUTO:
        return EmotionPlan(auto=True)
    parts = [part.strip() for part in _BETWEEN.split(plain) if part.strip()]
    if not parts:
        raise EmotionError(
            f"expected an emotion but got {shown(text)!r} ({where}). Write something like {_EXAMPLE}, "
            "or leave it out."
        )
    if len(parts) == 1 and not _LABEL.fullmatch(parts[0]) and len(parts[0].split()) == 1:
        return EmotionPlan(((0.0, parse_emotion(parts[0], where)),))
    labels = tuple(_parse_label(part, plain, where) for part in parts)
    times = [seconds for seconds, _ in labels]
    if any(later <= earlier for earlier, later in pairwise(times)):
        given = shown(", ".join(f"{time:g}" for time in times))
        raise EmotionError(
            f"expected times that rise but got {given} ({where}). Write the earlier second first, each once."
        )
    return EmotionPlan(labels)


def _parse_label(part: str, plan: str, where: str) -> tuple[float, int]:
    """One second and its class, of the whole ``plan``."""
    is_time = _TIME.fullmatch(part) is not None
    found = None if is_time else _LABEL.fullmatch(part)
    seconds = -1.0
    if found is not None:
        numbers = (float(found[name] or 0) for name in ("hours", "minutes", "seconds"))
        seconds = sum(60**power * number for power, number in zip((2, 1, 0), numbers, strict=True))
    if found is None or not 0 <= seconds <= MAX_SECONDS:
        decimals = re.search(rf"(?<!\d){part},(\d+)s?[\s:=]", plan) if is_time else None
        advice = f"Write it like {_EXAMPLE}."
        if decimals is not None:
            advice = f"Write {part}.{decimals[1]} with a point: a comma begins the next emotion."
        raise EmotionError(
            f"expected a second up to {MAX_SECONDS} and an emotion but got {shown(part)!r} ({where}). "
            + advice
        )
    return seconds, parse_emotion(found["emotion"], where)


def describe(labels: Tensor, fps: int = FPS) -> str:
    """(N,) class numbers of frames -> `0 happy, 3.5 sad`, the seconds at which the emotion changes."""
    parts, frame = [], 0
    for number, run in groupby(labels.tolist()):
        parts.append(f"{frame / fps:.3g} {EMOTIONS[number]}")
        frame += len(list(run))
    return ", ".join(parts)


def hear_emotions(
    waveform: Tensor,
    classify: Callable[[Tensor], Tensor],
    num_frames: int,
    on_done: Callable[[float], None] | None = None,
) -> Tensor:
    """(S,) at 16 kHz -> (N,) class numbers of ``num_frames`` frames, padding included as upstream counts it.

    ``classify`` takes (B, S') segments, each normalised on its own, and returns their (B,) classes.
    """
    segments = segment_spans(waveform.shape[0])
    classes = torch.empty(len(segments), dtype=torch.long)
    done = 0
    for batch in _batches(segments):
        pieces = torch.stack([waveform[start:stop] for start, stop in (segments[i] for i in batch)])
        normalised = F.layer_norm(pieces, pieces.shape[-1:])
        classes[list(batch)] = classify(normalised).cpu()
        done += len(batch)
        if on_done is not None:
            on_done(done / len(segments))
    return classes[segment_of_frames(waveform.shape[0], num_frames)]


def segment_spans(num_samples: int) -> list[tuple[int, int]]:
    """(start, stop) samples of what is heard for each second; the last is the end's."""
    second = SAMPLE_RATE
    middle = range(second, num_samples - second, second)
    inner = [(i - second, min(i + 2 * second, num_samples)) for i in middle]
    return [(0, min(2 * second, num_samples)), *inner, (max(0, num_samples - 2 * second), num_samples)]


def segment_of_frames(num_samples: int, num_frames: int) -> Tensor:
    """(N,) index into :func:`segment_spans`: the start has its first second and the end its last one.

    A frame's sample is found in the float32 arithmetic of ``F.interpolate`` with mode "nearest".
    """
    scale = torch.tensor(num_samples, dtype=torch.float32) / num_frames
    sample = (torch.arange(num_frames, dtype=torch.float32) * scale).floor().long()
    last = len(segment_spans(num_samples)) - 1
    return torch.where(sample >= num_samples - SAMPLE_RATE, last, sample // SAMPLE_RATE)


def _batches(segments: list[tuple[int, int]]) -> list[range]:
    """Indices of neighbours with equal lengths, up to BATCH together."""
    batches: list[range] = []
    for index, (start, stop) in enumerate(segments):
        if batches:
            first = batches[-1]
            other = segments[first.start]
            if len(first) < BATCH and other[1] - other[0] == stop - start:
                batches[-1] = range(first.start, index + 1)
                continue
        batches.append(range(index, index + 1))
    return batches
