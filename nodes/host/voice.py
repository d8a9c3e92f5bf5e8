"""What the voice node asks of the host: its audio encoder, its memory management, its progress bar."""

from __future__ import annotations

from collections.abc import Iterable
from functools import partial
from typing import Any

import comfy.model_management as management
import comfy.utils
import torch
from torch import Tensor

from ...memo_avatar.checkpoint.companions import home
from ...memo_avatar.files.published_models import SEPARATOR
from ...memo_avatar.voice.emotion2vec import EmotionNet
from ...memo_avatar.voice.emotion_files import read_emotion_net
from ...memo_avatar.voice.emotions import hear_emotions
from ...memo_avatar.voice.features import VoiceEncoder
from ...memo_avatar.voice.sound import MediaError, resample, to_speech, to_stereo
from ...memo_avatar.voice.vocals import SEPARATION_RATE, separate_vocals
from .memory import auxiliary_patcher, load
from .sockets import MemoNets

STEPS = 1000  # of the progress bar


class HostAudioEncoder:
    """The host's AUDIO_ENCODER in the parts that the voice front-end calls."""

    def __init__(self, net: Any) -> None:
        self.conv_layers = net.feature_extractor.conv_layers
        self.feature_projection = net.feature_projection
        self.num_layers = len(net.encoder.layers)
        self.net = net

    def encoder(self, hidden_states: Tensor) -> Iterable[Tensor]:
        return self.net.encoder(hidden_states)[1]


class ShareProgress:
    """Called with the share that is done, 0 to 1; moves the node's bar and stops where the user asked."""

    def __init__(self) -> None:
        self.bar = comfy.utils.ProgressBar(STEPS)

    def __call__(self, share: float) -> None:
        management.throw_exception_if_processing_interrupted()
        self.bar.update_absolute(round(STEPS * share), STEPS)


def load_encoder(memo: MemoNets, audio_encoder: Any) -> tuple[VoiceEncoder, torch.device]:
    """The encoder to use, loaded, and its device."""
    patcher = memo.wav2vec2 if audio_encoder is None else audio_encoder.patcher
    if patcher is None:
        raise MediaError(
            f"expected a wav2vec2 but got neither a connected one nor one of the checkpoint ({memo.path}). "
            "Connect Load Audio Encoder with wav2vec2-base-960h, or put its folder beside the checkpoint "
            "as wav2vec2."
        )
    load([patcher])
    net = patcher.model
    if not all(hasattr(net, name) for name in ("feature_extractor", "feature_projection", "encoder")):
        raise MediaError(
            f"expected a wav2vec2 but got {type(net).__name__} (audio_encoder). Use wav2vec2-base-960h."
        )
    return (net if audio_encoder is None else HostAudioEncoder(net)), patcher.load_device


def heard_emotions(memo: MemoNets, speech: Tensor, num_frames: int) -> Tensor:
    """(N,) class numbers, by emotion2vec and MEMO's classifier on the host's device."""
    weights = read_emotion_net(home(memo.path))
    build = partial(EmotionNet, weights.config, weights.sizes)
    patcher = auxiliary_patcher(build, weights.state, torch.float32)
    load([patcher])
    return hear_emotions(
        speech, lambda x: patcher.model(x.to(patcher.load_device)), num_frames, on_done=ShareProgress()
    )


def separated_vocals(memo: MemoNets, waveform: Tensor, sample_rate: int) -> Tensor:
    """(C, T) -> the vocals, (S,) at 16 kHz."""
    stereo = to_stereo(waveform.cpu().float())
    if sample_rate != SEPARATION_RATE:
        stereo = resample(stereo, sample_rate, SEPARATION_RATE)
    vocals = separate_vocals(stereo, home(memo.path) / SEPARATOR, on_done=ShareProgress())
    return to_speech(vocals, SEPARATION_RATE)
