"""A recording becomes what the model hears."""

from __future__ import annotations

import logging
from itertools import groupby
from typing import Any

import torch
from comfy_api.latest import io
from torch import Tensor

from ..memo_avatar.checkpoint.companions import home
from ..memo_avatar.clips.values import SamplingSettings
from ..memo_avatar.inputs import Voice
from ..memo_avatar.timing import FPS
from ..memo_avatar.voice.emotion_files import find_emotion_files
from ..memo_avatar.voice.emotions import AUTO, EMOTIONS, WEAK, parse_plan
from ..memo_avatar.voice.features import check_width, voice_features
from ..memo_avatar.voice.sound import MIN_SECONDS, MediaError, fit_length, is_silent, to_speech
from .host.schema import ADVANCED, schema, show_text
from .host.sockets import EncodedVoice, Memo, MemoNets, MemoVoice
from .host.voice import ShareProgress, heard_emotions, load_encoder, separated_vocals

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
                    options=[*EMOTIONS, AUTO],
                    default="neutral",
                    tooltip="The expression of the whole video; auto: as heard in the voice, second by "
                    "second. A hint only: the published preview model follows emotions weakly.",
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
                io.String.Input(
                    "emotions",
                    default="",
                    optional=True,
                    tooltip="Emotions over time, from second to second: 0 happy, 3.5 sad. Replaces emotion; "
                    "empty: emotion holds for the whole video.",
                    extra_dict=ADVANCED,
                ),
                io.Boolean.Input(
                    "separate_vocals",
                    default=False,
                    optional=True,
                    tooltip="Listen to the vocals only, for speech over music. Needs Kim_Vocal_2.onnx and "
                    "the package onnxruntime; the video keeps the whole sound.",
                    extra_dict=ADVANCED,
                ),
                io.Audio.Input(
                    "vocals",
                    optional=True,
                    tooltip="Vocals of the same recording that another node separated: the model listens to "
                    "them, the video keeps audio.",
                ),
            ],
            outputs=[
                MemoVoice.Output(display_name="voice"),
                io.Int.Output(display_name="frames", tooltip="Frames of the video, at 30 per second."),
            ],
            hidden=[io.Hidden.unique_id],
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
        emotions: str = "",
        separate_vocals: bool = False,
        vocals: dict[str, Any] | None = None,
    ) -> io.NodeOutput:
        plan = parse_plan(emotions if emotions.strip() else emotion)
        if plan.auto:
            find_emotion_files(home(memo.path))
        sample_rate = int(audio["sample_rate"])
        waveform = cut(audio["waveform"][:1], sample_rate, start, duration)
        speech = to_speech(waveform[0], sample_rate)
        listened = speech
        if vocals is not None:
            rate = int(vocals["sample_rate"])
            part = cut(vocals["waveform"][:1], rate, start, duration, "vocals")
            listened = fit_length(to_speech(part[0], rate), speech.shape[0], "vocals")
        elif separate_vocals:
            taken = separated_vocals(memo, waveform[0], sample_rate)
            listened = fit_length(taken, speech.shape[0], "vocals")
        if is_silent(listened):
            logger.warning("The voice is silent; the mouth will hardly move.")
        encoder, device = load_encoder(memo, audio_encoder)
        clip = SamplingSettings().frames_per_clip
        features = voice_features(
            listened.to(device), encoder, fps=FPS, frames_per_clip=clip, on_layer=ShareProgress()
        )
        layers, width = features.embeddings.shape[-2:]
        check_width(layers, width, memo.config.audio_proj.input_dim, "audio encoder")
        count = features.embeddings.shape[0]
        labels = heard_emotions(memo, speech, count) if plan.auto else plan.per_frame(count)
        if plan.auto or len(plan.labels) > 1:
            show_text(cls, f"{WEAK}\n{describe(labels[: features.num_frames])}")
        voice = Voice(features.embeddings, labels, features.num_frames)
        return io.NodeOutput(EncodedVoice(voice, waveform, sample_rate), voice.num_frames)


def cut(waveform: Tensor, sample_rate: int, start: float, duration: float, what: str = "audio") -> Tensor:
    """(B, C, T) -> the part from ``start``, ``duration`` seconds long or up to the end."""
    first = round(start * sample_rate)
    stop = first + round(duration * sample_rate) if duration else waveform.shape[-1]
    part = waveform[..., first:stop]
    if part.shape[-1] < MIN_SECONDS * sample_rate:
        length = waveform.shape[-1] / sample_rate
        raise MediaError(
            f"expected at least {MIN_SECONDS} s of sound but got {part.shape[-1] / sample_rate:.3g} s of "
            f"{length:.3g} s ({what}, start {start:g} s, duration {duration:g} s). Start earlier or use a "
            "longer recording."
        )
    if not torch.isfinite(part).all():
        raise MediaError(
            f"expected finite samples but got NaN or infinity ({what}). Export the recording again."
        )
    return part


def describe(labels: Tensor) -> str:
    """Class numbers of the frames -> `0 happy, 3.5 sad`, the seconds at which the emotion changes."""
    parts, frame = [], 0
    for number, run in groupby(labels.tolist()):
        parts.append(f"{frame / FPS:.3g} {EMOTIONS[number]}")
        frame += len(list(run))
    return ", ".join(parts)
