"""What the voice node asks of the host: its audio encoder, its memory management, its progress bar."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import comfy.model_management as management
import comfy.utils
import folder_paths
import torch
from comfy.audio_encoders.audio_encoders import load_audio_encoder_from_sd
from torch import Tensor

from ...memo_avatar.files.foreign import in_words
from ...memo_avatar.voice.emotion2vec import EmotionNet
from ...memo_avatar.voice.emotion_files import EmotionWeights
from ...memo_avatar.voice.features import VoiceEncoder
from ...memo_avatar.voice.listen import Ears
from ...memo_avatar.voice.sound import MAX_SECONDS, MIN_SECONDS, MediaError, check_finite, read_audio
from .memory import auxiliary_patcher, load
from .sockets import MemoNets

STEPS = 1000  # of the progress bar
ENCODERS = "audio_encoders"  # the host's folder of them, in which wav2vec2-base is looked for, too


class HostAudioEncoder:
    """The host's AUDIO_ENCODER in the parts that the voice front-end calls."""

    def __init__(self, net: Any) -> None:
        self.conv_layers = net.feature_extractor.conv_layers
        self.feature_projection = net.feature_projection
        self.shape = len(net.encoder.layers), net.feature_projection.projection.out_features
        self.net = net

    def encoder(self, hidden_states: Tensor) -> Iterable[Tensor]:
        return self.net.encoder(hidden_states)[1]


@contextmanager
def share_progress(_description: str) -> Iterator[Callable[[float], None]]:
    """The node's bar: takes the share that is done, 0 to 1, and stops where the user asked."""
    bar = comfy.utils.ProgressBar(STEPS)

    def report(share: float) -> None:
        management.throw_exception_if_processing_interrupted()
        bar.update_absolute(round(STEPS * share), STEPS)

    yield report


def make_ears(memo: MemoNets, audio_encoder: Any) -> Ears:
    """The connected encoder, loaded; else the checkpoint's own, else one of the host's folder."""
    given = audio_encoder
    if given is None and memo.wav2vec2 is None:
        given = _found_encoder(memo)
    patcher: Any = memo.wav2vec2 if given is None else getattr(given, "patcher", None)
    net: Any = getattr(patcher, "model", None)
    if not all(hasattr(net, name) for name in ("feature_extractor", "feature_projection", "encoder")):
        got = in_words(given).replace("an audio encoder", "an audio encoder of another kind")
        raise MediaError(f"expected a wav2vec2 but got {got} (audio_encoder). Use wav2vec2-base-960h.")
    load([patcher])
    encoder: VoiceEncoder = net if given is None else HostAudioEncoder(net)
    return Ears(encoder, patcher.load_device, _run_emotion_net, share_progress)


def _found_encoder(memo: MemoNets) -> Any:
    """wav2vec2-base from models/audio_encoders, as Load Audio Encoder would load it."""
    for name in folder_paths.get_filename_list(ENCODERS):
        words = name.lower()
        if "wav2vec2" in words and "base" in words and words.endswith(".safetensors"):
            path = folder_paths.get_full_path_or_raise(ENCODERS, name)
            return load_audio_encoder_from_sd(comfy.utils.load_torch_file(path, safe_load=True))
    raise MediaError(
        f"expected a wav2vec2 but got neither a connected one nor one of the checkpoint ({memo.path.name}). "
        "Put wav2vec2-base-960h into models/audio_encoders, or its folder beside the checkpoint as wav2vec2."
    )


def _run_emotion_net(weights: EmotionWeights) -> Callable[[Tensor], Tensor]:
    build = partial(EmotionNet, weights.config, weights.sizes)
    patcher = auxiliary_patcher(build, weights.state, torch.float32)
    load([patcher])
    return lambda segments: patcher.model(segments.to(patcher.load_device))


def cut_audio(audio: Any, start: float, duration: float, what: str) -> tuple[Tensor, int]:
    """AUDIO -> (C, S) from ``start``, ``duration`` seconds long or up to the end, and the sample rate."""
    samples, sample_rate = read_audio(audio, what)
    first = round(start * sample_rate)
    stop = first + round(duration * sample_rate) if duration else samples.shape[-1]
    part = samples[:, first:stop]
    seconds, whole = (length / sample_rate for length in (part.shape[-1], samples.shape[-1]))
    if not MIN_SECONDS <= seconds <= MAX_SECONDS:
        raise MediaError(
            f"expected {MIN_SECONDS} to {MAX_SECONDS} s of sound but got {seconds:.3g} s of {whole:.3g} s "
            f"({what}, start {start:g} s, duration {duration:g} s). Choose another part or recording."
        )
    check_finite(part, what)
    return part, sample_rate
