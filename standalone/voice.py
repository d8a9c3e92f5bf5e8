"""The command's voice: which sound the model listens to, its features, and an emotion for every frame."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from memo_avatar.checkpoint.companions import home
from memo_avatar.files.published_models import SEPARATOR
from memo_avatar.inputs import Voice
from memo_avatar.model.config import MemoConfig
from memo_avatar.voice.emotion2vec import EmotionNet
from memo_avatar.voice.emotion_files import find_emotion_files, read_emotion_net
from memo_avatar.voice.emotions import WEAK, EmotionPlan, hear_emotions
from memo_avatar.voice.features import check_width, voice_features
from memo_avatar.voice.sound import MediaError, fit_length, is_silent, to_speech
from memo_avatar.voice.sound_files import decode_audio, load_audio
from memo_avatar.voice.vocals import SEPARATION_RATE, open_net, separate

from .arguments import CommandError, VideoOptions
from .models import load_wav2vec2
from .progress import note, share_progress


@dataclass(frozen=True)
class VoiceSources:
    """Files and choices behind a voice, read and found good."""

    waveform: Tensor  # (S,) at 16 kHz: the recording, whose length and emotions count
    vocals: Tensor | None  # (S,) at 16 kHz: what the model listens to instead
    separator: Path | None  # or the net that takes the vocals out of the recording
    folder: Path  # the checkpoint's, where the other models lie
    emotion: EmotionPlan


def read_voice(options: VideoOptions, waveform: Tensor) -> VoiceSources:
    """What a user can get wrong about the voice, before any work."""
    folder = home(options.checkpoint)
    if options.vocals is not None and options.separate_vocals:
        raise CommandError(
            "expected --vocals or --separate-vocals but got both. Leave one out: --vocals brings them."
        )
    vocals = None
    if options.vocals is not None:
        vocals = fit_length(
            load_audio(options.vocals, max_seconds=options.max_seconds), len(waveform), "vocals"
        )
        if is_silent(vocals):
            note(f"Warning: {options.vocals} is silent; the mouth will hardly move.")
    separator = folder / SEPARATOR if options.separate_vocals else None
    if separator is not None:
        open_net(separator)
    if options.emotion.auto:
        find_emotion_files(folder)
    if options.emotion.auto or len(options.emotion.labels) > 1:
        note(WEAK)
    return VoiceSources(waveform, vocals, separator, folder, options.emotion)


def encode_voice(
    sources: VoiceSources, options: VideoOptions, wav2vec2: Path, device: torch.device, config: MemoConfig
) -> Voice:
    """The voice's features and emotions; no model stays loaded afterwards."""
    encoder = load_wav2vec2(wav2vec2, device)
    check_width(*encoder.shape, config.audio_proj.input_dim, str(wav2vec2))
    listened = sources.waveform if sources.vocals is None else sources.vocals
    if sources.separator is not None:
        listened = separated(options, sources.separator, len(sources.waveform))
    with share_progress("listening") as report:
        features = voice_features(listened.to(device), encoder, on_layer=report)
    num_frames = features.embeddings.shape[0]
    return Voice(features.embeddings, frame_emotions(sources, num_frames, device), features.num_frames)


def separated(options: VideoOptions, model: Path, length: int) -> Tensor:
    """The vocals of the recording, (S,) at 16 kHz."""
    import numpy as np

    limit = None if options.max_seconds is None else round(options.max_seconds * SEPARATION_RATE)
    chunks = list(decode_audio(options.audio, SEPARATION_RATE, channels=2, limit=limit))
    if not chunks:
        raise MediaError(f"expected sound but got none ({options.audio}). Use another recording.")
    mix = torch.from_numpy(np.concatenate(chunks, axis=1))
    net, frames, bins = open_net(model)
    with share_progress("separating vocals") as report:
        vocals = separate(mix, net, frames=frames, bins=bins, on_done=report)
    return fit_length(to_speech(vocals, SEPARATION_RATE), length, "vocals")


def frame_emotions(sources: VoiceSources, num_frames: int, device: torch.device) -> Tensor:
    """(N,) class numbers, as written down or as heard in the recording."""
    if not sources.emotion.auto:
        return sources.emotion.per_frame(num_frames)
    weights = read_emotion_net(sources.folder)
    net = EmotionNet(weights.config, weights.sizes, operations=nn)
    net.load_state_dict(weights.state)
    net.to(device).eval()
    with share_progress("hearing emotions") as report:
        return hear_emotions(sources.waveform, lambda x: net(x.to(device)), num_frames, on_done=report)
