"""A recording becomes what the model hears."""

from __future__ import annotations

from functools import partial
from typing import Any

from comfy_api.latest import io
from torch import Tensor

from ..memo_avatar.checkpoint.companions import home
from ..memo_avatar.clips.values import SamplingSettings
from ..memo_avatar.files.foreign import counted
from ..memo_avatar.inputs import Voice
from ..memo_avatar.timing import MAX_SECONDS, SAMPLE_RATE, clip_spans
from ..memo_avatar.voice.emotions import AUTO, EMOTIONS, describe, parse_plan
from ..memo_avatar.voice.listen import Sources, check_sources, listen
from ..memo_avatar.voice.sound import resample, to_speech, to_stereo
from ..memo_avatar.voice.vocals import SEPARATION_RATE
from .boundary.checks import checked, refusal_of
from .host.schema import ADVANCED, schema, show_text
from .host.sockets import EncodedVoice, Memo, MemoNets, MemoVoice
from .host.voice import cut_audio, make_ears


class VoiceNode(io.ComfyNode):
    """AUDIO -> MEMO_VOICE and the number of frames."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        seconds = {"default": 0.0, "min": 0.0, "max": float(MAX_SECONDS), "step": 0.1, "round": 0.01}
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
    def validate_inputs(cls, emotions: str | None = None) -> bool | str:
        """The emotions over time, before the run."""
        return refusal_of(cls, _check_emotions, emotions=emotions)

    @classmethod
    @checked
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
        waveform, sample_rate = cut_audio(audio, start, duration, "audio")
        heard = None if vocals is None else cut_audio(vocals, start, duration, "vocals")
        sources = Sources(
            to_speech(waveform, sample_rate),
            parse_plan(emotions if emotions.strip() else emotion, "emotions"),
            folder=home(memo.path),
            vocals=None if heard is None else to_speech(*heard),
            read_mix=partial(_stereo, waveform, sample_rate) if separate_vocals else None,
        )
        notes = check_sources(sources)
        ears = make_ears(memo, audio_encoder)
        voice = listen(sources, ears, memo.config.audio_proj.input_dim, "audio encoder")
        show_text(cls, "\n".join([*notes, _summary(sources, voice)]))
        return io.NodeOutput(EncodedVoice(voice, waveform[None], sample_rate), voice.num_frames)


def _check_emotions(emotions: str = "") -> None:
    parse_plan(emotions.strip() or AUTO, "emotions")


def _stereo(waveform: Tensor, sample_rate: int) -> Tensor:
    """(C, S) -> (2, S') at the separator's rate."""
    stereo = to_stereo(waveform)
    return stereo if sample_rate == SEPARATION_RATE else resample(stereo, sample_rate, SEPARATION_RATE)


def _summary(sources: Sources, voice: Voice) -> str:
    """How long the video will be, before anything is sampled; and its emotions, where there are several."""
    clips = len(clip_spans(voice.num_frames, SamplingSettings().frames_per_clip))
    seconds = len(sources.speech) / SAMPLE_RATE
    text = f"{seconds:.1f} s = {counted(voice.num_frames, 'frame')} in {counted(clips, 'clip')}"
    if sources.emotion.auto or len(sources.emotion.labels) > 1:
        text = f"{text}\n{describe(voice.emotions[: voice.num_frames])}"
    return text
