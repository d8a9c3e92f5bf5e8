"""The command's voice: its files as sources, and plain torch to listen with."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import numpy as np
import torch
from torch import Tensor, nn

from memo_avatar.checkpoint.companions import home
from memo_avatar.inputs import Voice
from memo_avatar.timing import SAMPLE_RATE
from memo_avatar.voice.emotion2vec import EmotionNet
from memo_avatar.voice.emotion_files import EmotionWeights
from memo_avatar.voice.listen import Ears, Sources, check_sources, listen
from memo_avatar.voice.sound import MediaError, check_seconds
from memo_avatar.voice.sound_files import decode_audio, load_audio
from memo_avatar.voice.vocals import SEPARATION_RATE
from memo_avatar.voice.wav2vec2 import Wav2Vec2

from .arguments import VideoOptions
from .progress import note, share_progress


def read_speech(options: VideoOptions) -> list[Tensor]:
    """What each speaker says, (S,) at 16 kHz, on one clock: silent before its start and after its end."""
    most = options.max_seconds
    lead = [round(start * SAMPLE_RATE) for _, start in options.recordings]
    said = [load_audio(path, max_seconds=most) for path, _ in options.recordings]
    length = max(silence + len(speech) for silence, speech in zip(lead, said, strict=True))
    check_seconds(length / SAMPLE_RATE, "all speakers")
    if most is not None:
        length = min(length, round(most * SAMPLE_RATE))
    return [_on_clock(speech, silence, length) for silence, speech in zip(lead, said, strict=True)]


def _on_clock(speech: Tensor, silence: int, length: int) -> Tensor:
    """(S,) -> (length,): so many samples of silence, as much of the speech as there is time for, silence."""
    heard = speech.new_zeros(length)
    heard[silence : silence + len(speech)] = speech[: max(0, length - silence)]
    return heard


def read_voice(options: VideoOptions, speech: Tensor) -> Sources:
    """What a user can get wrong about a voice, before any work; ``speech`` is (S,) at 16 kHz."""
    vocals = options.vocals
    sources = Sources(
        speech,
        options.emotion,
        folder=home(options.checkpoint),
        vocals=None if vocals is None else load_audio(vocals, max_seconds=options.max_seconds),
        read_mix=partial(_read_mix, options) if options.separate_vocals else None,
    )
    for text in check_sources(sources):
        note(f"Warning: {text}")
    return sources


def encode_voice(
    sources: Sources, encoder: Wav2Vec2, device: torch.device, input_dim: int, name: str
) -> Voice:
    """The voice's features and emotions. ``encoder`` lies on the device; errors call it ``name``."""
    ears = Ears(encoder, device, partial(_emotion_net, device), share_progress)
    return listen(sources, ears, input_dim, name)


def _read_mix(options: VideoOptions) -> Tensor:
    """The recording in stereo, (2, S) at the separator's rate."""
    limit = None if options.max_seconds is None else round(options.max_seconds * SEPARATION_RATE)
    (audio, _start), *_ = options.recordings
    chunks = list(decode_audio(audio, SEPARATION_RATE, channels=2, limit=limit))
    if not chunks:
        raise MediaError(f"expected sound but got none ({audio}). Use another recording.")
    return torch.from_numpy(np.concatenate(chunks, axis=1))


def _emotion_net(device: torch.device, weights: EmotionWeights) -> Callable[[Tensor], Tensor]:
    net = EmotionNet(weights.config, weights.sizes, operations=nn)
    net.load_state_dict(weights.state)
    net.to(device).eval()
    return lambda segments: net(segments.to(device))
