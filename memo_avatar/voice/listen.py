"""The one way from a sound to a `Voice`: what is listened to, its features, an emotion for every frame.

The command and the node come with the same `Sources` and each with its own `Ears`: an audio encoder where
it runs, a way to run the emotion net there, a progress bar.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from ..files.foreign import shown
from ..files.published_models import SEPARATOR
from ..inputs import Voice
from ..timing import FPS, SAMPLE_RATE, frame_count
from .emotion_files import EmotionWeights, find_emotion_files, read_emotion_net
from .emotions import WEAK, EmotionPlan, hear_emotions
from .features import VoiceEncoder, check_width, voice_features
from .sound import MediaError, fit_length, is_silent, to_speech
from .vocals import SEPARATION_RATE, open_net, separate


@dataclass(frozen=True)
class Sources:
    """Sounds and choices behind a voice.

    The recording is ``speech`` (S,) at 16 kHz: its length and its emotions count. What the model listens to
    is ``vocals`` (S,) at 16 kHz where given, or the vocals of the mix (2, S') at 44.1 kHz that
    ``read_mix`` reads, else the recording. ``folder`` is the checkpoint's, where the other nets lie.
    """

    speech: Tensor
    emotion: EmotionPlan
    folder: Path
    vocals: Tensor | None = None
    read_mix: Callable[[], Tensor] | None = None


@dataclass(frozen=True)
class Ears:
    """What a front door listens with.

    ``run_emotion_net`` brings the net to a device and gives its classes of (B, S) segments;
    ``progress("listening")`` is a bar that takes the share done, 0 to 1, and may raise to stop the work.
    """

    encoder: VoiceEncoder
    device: torch.device
    run_emotion_net: Callable[[EmotionWeights], Callable[[Tensor], Tensor]]
    progress: Callable[[str], AbstractContextManager[Callable[[float], None]]]


def check_sources(sources: Sources) -> list[str]:
    """Find what is missing before any work; what the user should know."""
    if sources.vocals is not None and sources.read_mix is not None:
        raise MediaError(
            "expected vocals or their separation but got both (vocals). Leave one out: given vocals need no "
            "separation."
        )
    if sources.vocals is not None:
        fit_length(sources.vocals, len(sources.speech), "vocals")
    if sources.read_mix is not None:
        open_net(sources.folder / SEPARATOR)
    if sources.emotion.auto:
        find_emotion_files(sources.folder)
    silent = [
        f"Check the {what}: all of it is silence, and the mouth will hardly move."
        for what, sound in (("recording", sources.speech), ("vocals", sources.vocals))
        if sound is not None and is_silent(sound)
    ]
    weak = [WEAK] if sources.emotion.auto or len(sources.emotion.labels) > 1 else []
    return [*silent, *_late_emotions(sources), *weak]


def _late_emotions(sources: Sources) -> list[str]:
    """Told where an emotion is to begin after the last frame; the first one holds from the beginning."""
    frames = frame_count(len(sources.speech))
    late = [seconds for seconds, _ in sources.emotion.labels[1:] if round(seconds * FPS) >= frames]
    if not late:
        return []
    times, end = ", ".join(f"{seconds:g}" for seconds in late), round(len(sources.speech) / SAMPLE_RATE, 2)
    return [
        f"Write an earlier second than {shown(times)}: the sound ends at {end:g} s, and what begins there "
        "never shows."
    ]


def listen(sources: Sources, ears: Ears, input_dim: int, where: str) -> Voice:
    """What the model hears; ``input_dim`` is what it takes of a frame, ``where`` the encoder comes from."""
    check_width(*ears.encoder.shape, input_dim, where)
    heard = _heard(sources, ears)
    with ears.progress("listening") as report:
        features = voice_features(heard.to(ears.device), ears.encoder, on_layer=report)
    emotions = _emotions(sources, ears, features.embeddings.shape[0])
    return Voice(features.embeddings, emotions, features.num_frames)


def _heard(sources: Sources, ears: Ears) -> Tensor:
    """(S,) at 16 kHz, as long as the recording."""
    length = len(sources.speech)
    if sources.read_mix is None:
        return sources.speech if sources.vocals is None else fit_length(sources.vocals, length, "vocals")
    net = open_net(sources.folder / SEPARATOR)
    with ears.progress("separating vocals") as report:
        vocals = separate(sources.read_mix(), net, on_done=report)
    return fit_length(to_speech(vocals, SEPARATION_RATE), length, "vocals")


def _emotions(sources: Sources, ears: Ears, num_frames: int) -> Tensor:
    """(N,) class numbers, as written down or as heard in the recording."""
    if not sources.emotion.auto:
        return sources.emotion.per_frame(num_frames)
    classify = ears.run_emotion_net(read_emotion_net(sources.folder))
    with ears.progress("hearing emotions") as report:
        return hear_emotions(sources.speech, classify, num_frames, on_done=report)
