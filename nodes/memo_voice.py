"""A recording becomes what the model hears."""

from __future__ import annotations

import logging
from collections.abc import Iterable
from typing import Any

import torch
from comfy_api.latest import io
from torch import Tensor

from ..memo_avatar.audio_features import WINDOW, VoiceEncoder, voice_features
from ..memo_avatar.clip_loop import SamplingSettings, Voice
from ..memo_avatar.clip_plan import FPS, SAMPLE_RATE
from ..memo_avatar.emotions import EMOTIONS
from ..memo_avatar.media import MIN_SECONDS, MediaError, is_silent
from .host_memory import load
from .host_nodes import schema
from .sockets import EncodedVoice, Memo, MemoNets, MemoVoice

logger = logging.getLogger(__name__)


class VoiceNode(io.ComfyNode):
    """AUDIO -> MEMO_VOICE and the number of frames."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        seconds = {"default": 0.0, "min": 0.0, "max": 36_000.0, "step": 0.1}
        return schema(
            "MEMO_Voice",
            "MEMO Voice",
            "Listens to a recording of any format. The video will be exactly as long as it: 30 frames for "
            "each second.",
            inputs=[
                io.Audio.Input(
                    "audio", tooltip="Speech, best without music. Any sample rate, mono or stereo."
                ),
                Memo.Input("memo", tooltip="From Load MEMO."),
                io.Combo.Input(
                    "emotion",
                    options=list(EMOTIONS),
                    default="neutral",
                    tooltip="The expression of the whole video. MEMO takes it as a hint.",
                ),
                io.Float.Input(
                    "start", tooltip="Seconds of the recording to leave out at the beginning.", **seconds
                ),
                io.Float.Input("duration", tooltip="Seconds to use from there; 0: up to the end.", **seconds),
                io.AudioEncoder.Input(
                    "audio_encoder",
                    optional=True,
                    tooltip="Replaces the checkpoint's own: wav2vec2-base-960h from Load Audio Encoder.",
                ),
            ],
            outputs=[
                MemoVoice.Output(display_name="voice"),
                io.Int.Output(display_name="frames", tooltip="Frames of the video, at 30 per second."),
            ],
            search_aliases=["memo", "speech", "audio", "emotion", "lip sync"],
        )

    @classmethod
    def execute(
        cls,
        audio: dict[str, Any],
        memo: MemoNets,
        emotion: str,
        start: float,
        duration: float,
        audio_encoder: Any = None,
    ) -> io.NodeOutput:
        sample_rate = int(audio["sample_rate"])
        waveform = cut(audio["waveform"][:1], sample_rate, start, duration)
        speech = to_speech(waveform[0], sample_rate)
        encoder, device = _encoder(memo, audio_encoder)
        if is_silent(speech):
            logger.warning("The voice is silent; the mouth will hardly move.")
        clip = SamplingSettings().frames_per_clip
        features = voice_features(speech.to(device), encoder, fps=FPS, frames_per_clip=clip)
        _check_width(features.embeddings, memo)
        emotions = torch.full((features.embeddings.shape[0],), EMOTIONS.index(emotion))
        voice = Voice(features.embeddings, emotions, features.num_frames)
        return io.NodeOutput(EncodedVoice(voice, waveform, sample_rate), voice.num_frames)


def cut(waveform: Tensor, sample_rate: int, start: float, duration: float) -> Tensor:
    """(B, C, T) -> the part from ``start``, ``duration`` seconds long or up to the end."""
    first = round(start * sample_rate)
    stop = first + round(duration * sample_rate) if duration else waveform.shape[-1]
    part = waveform[..., first:stop]
    if part.shape[-1] < MIN_SECONDS * sample_rate:
        length = waveform.shape[-1] / sample_rate
        raise MediaError(
            f"expected at least {MIN_SECONDS} s of sound but got {part.shape[-1] / sample_rate:.3g} s of "
            f"{length:.3g} s "
            f"(start {start:g} s, duration {duration:g} s). Start earlier or use a longer recording."
        )
    if not torch.isfinite(part).all():
        raise MediaError(
            "expected finite samples but got NaN or infinity (audio). Export the recording again."
        )
    return part


def to_speech(waveform: Tensor, sample_rate: int) -> Tensor:
    """(C, T) -> (S,) at 16 kHz: each channel resampled, then their mean, as upstream does it."""
    samples = waveform.to("cpu", torch.float32)
    if sample_rate != SAMPLE_RATE:
        samples = torch.stack([_resample(channel, sample_rate) for channel in samples])
    return samples.mean(dim=0)


def _resample(channel: Tensor, sample_rate: int) -> Tensor:
    """(T,) -> (round(T * 16000 / rate),), through FFmpeg's resampler as the standalone command does."""
    import av
    import numpy as np

    frame = av.AudioFrame.from_ndarray(channel[None].contiguous().numpy(), format="fltp", layout="mono")
    frame.sample_rate = sample_rate
    resampler = av.AudioResampler(format="fltp", layout="mono", rate=SAMPLE_RATE)
    frames = [*resampler.resample(frame), *resampler.resample(None)]
    samples = torch.from_numpy(np.concatenate([frame.to_ndarray()[0] for frame in frames]))
    wanted = round(channel.shape[0] * SAMPLE_RATE / sample_rate)
    return torch.nn.functional.pad(samples[:wanted], (0, max(0, wanted - samples.shape[0])))


class HostAudioEncoder:
    """The host's AUDIO_ENCODER in the parts that the voice front-end calls."""

    def __init__(self, net: Any) -> None:
        self.conv_layers = net.feature_extractor.conv_layers
        self.feature_projection = net.feature_projection
        self.num_layers = len(net.encoder.layers)
        self.net = net

    def encoder(self, hidden_states: Tensor) -> Iterable[Tensor]:
        return self.net.encoder(hidden_states)[1]


def _encoder(memo: MemoNets, audio_encoder: Any) -> tuple[VoiceEncoder, torch.device]:
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


def _check_width(embeddings: Tensor, memo: MemoNets) -> None:
    layers, width = embeddings.shape[-2:]
    expected = memo.config.audio_proj.input_dim
    if WINDOW * layers * width != expected:
        raise MediaError(
            f"expected an audio encoder whose layers x width x {WINDOW} is {expected} but got {layers} x "
            f"{width} x "
            f"{WINDOW} (audio encoder). Use the one that this checkpoint was trained with."
        )
