"""transformers' Wav2Vec2Model as the voice front-end's encoder, from a local folder."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional
from transformers import Wav2Vec2Config, Wav2Vec2Model

from .errors import CommandError
from .weights import load_strictly, read_config, read_weights

WHAT = "wav2vec2 model"
CHUNK_SAMPLES = 16_000 * 30
# Heads for training and transcription, which MEMO never runs, and the mask that only training needs.
UNUSED = ("lm_head.", "project_hid.", "project_q.", "quantizer.", "masked_spec_embed")
# torch renamed the two halves of a weight-normed layer; the published file has the old names.
RENAMED = {
    ".conv.weight_g": ".conv.parametrizations.weight.original0",
    ".conv.weight_v": ".conv.parametrizations.weight.original1",
}


class TransformersVoiceEncoder:
    """The three callables that `memo_avatar.audio_features.voice_features` asks for."""

    def __init__(self, model: Any, device: torch.device | str = "cpu") -> None:
        self.model = model.to(device).eval()
        self.device = torch.device(device)

    def feature_extractor(self, waveform: Tensor) -> Tensor:
        """(1, S) -> (1, C, T). In chunks where it is long: the first layer takes 7 MB a second."""
        layers = self.model.feature_extractor.conv_layers
        if waveform.shape[1] <= CHUNK_SAMPLES:
            return self.model.feature_extractor(waveform.to(self.device))
        return extract_in_chunks(layers, waveform[:, None].to(self.device))

    def feature_projection(self, features: Tensor) -> Tensor:
        """(1, N, C) -> (1, N, D)."""
        hidden_states, _ = self.model.feature_projection(features)
        return hidden_states

    def encoder(self, hidden_states: Tensor) -> list[Tensor]:
        """(1, N, D) -> L + 1 states of (1, N, D).

        Taken from the layers themselves: transformers 4 returns them on request, 5 does not. The last one is
        what the encoder returns, because the large variant normalises it after its last layer.
        """
        states: list[Tensor] = []

        def keep(_module: nn.Module, args: tuple[Tensor, ...], _kwargs: dict[str, object]) -> None:
            states.append(args[0])

        layers = self.model.encoder.layers
        handles = [layer.register_forward_pre_hook(keep, with_kwargs=True) for layer in layers]
        try:
            states.append(self.model.encoder(hidden_states).last_hidden_state)
        finally:
            for handle in handles:
                handle.remove()
        return states

    @property
    def shape(self) -> tuple[int, int]:
        """(L, D): layers and hidden size of the states."""
        return self.model.config.num_hidden_layers, self.model.config.hidden_size


def extract_in_chunks(layers: Sequence[Any], samples: Tensor, chunk_samples: int = CHUNK_SAMPLES) -> Tensor:
    """(1, 1, S) -> (1, C, T), as the layers in one piece give it.

    The convolutions have no padding, so chunks that overlap by their reach are exact. The base variant
    normalises its first layer over the whole recording: that layer's mean and variance are taken beforehand.
    """
    first, *rest = layers
    statistics = None
    if isinstance(getattr(first, "layer_norm", None), nn.GroupNorm):
        statistics = _channel_statistics(first.conv, samples, chunk_samples)
    features = []
    for chunk in _overlapping_chunks([layer.conv for layer in layers], samples, chunk_samples):
        if statistics is None:
            hidden_states = first(chunk)
        else:
            norm = first.layer_norm
            hidden_states = first.conv(chunk)
            hidden_states = functional.batch_norm(
                hidden_states, *statistics, norm.weight, norm.bias, eps=norm.eps
            )
            hidden_states = first.activation(hidden_states)
        for layer in rest:
            hidden_states = layer(hidden_states)
        features.append(hidden_states)
    return torch.cat(features, dim=2)


def _channel_statistics(conv: nn.Conv1d, samples: Tensor, chunk_samples: int) -> tuple[Tensor, Tensor]:
    """Mean and variance (C,) of a convolution's output over the whole recording."""
    count, total, squares = 0, torch.zeros(1), torch.zeros(1)
    for chunk in _overlapping_chunks([conv], samples, chunk_samples):
        output = conv(chunk)[0]  # (C, T)
        moments = torch.var_mean(output, dim=1, correction=0)
        variance, mean = (moment.to("cpu", torch.float64) for moment in moments)  # MPS has no float64
        count += output.shape[1]
        total = total + output.shape[1] * mean
        squares = squares + output.shape[1] * (variance + mean.square())
    mean = total / count
    return mean.to(samples), (squares / count - mean.square()).to(samples)


def _overlapping_chunks(convs: Sequence[nn.Conv1d], samples: Tensor, chunk_samples: int) -> Iterator[Tensor]:
    """Pieces of (1, 1, S) whose outputs of `convs`, put one after another, are those of the whole."""
    stride, receptive_field = 1, 1
    for conv in convs:
        receptive_field += (conv.kernel_size[0] - 1) * stride
        stride *= conv.stride[0]
    num_outputs = (samples.shape[2] - receptive_field) // stride + 1
    outputs_per_chunk = max(1, chunk_samples // stride)
    for start in range(0, num_outputs, outputs_per_chunk):
        stop = min(start + outputs_per_chunk, num_outputs)
        yield samples[:, :, start * stride : (stop - 1) * stride + receptive_field]


def load_wav2vec2(folder: Path, device: torch.device | str = "cpu") -> TransformersVoiceEncoder:
    """A Hugging Face folder of Wav2Vec2Model or Wav2Vec2ForCTC, computed in float32 as upstream does."""
    config = read_config(folder, WHAT)
    if config.get("model_type") != "wav2vec2":
        raise CommandError(
            f"expected model_type wav2vec2 but got {config.get('model_type')} ({folder / 'config.json'}). "
            "Give the folder of facebook/wav2vec2-base-960h."
        )
    state, path = read_weights(folder, ["model.safetensors"], WHAT)
    model = Wav2Vec2Model(Wav2Vec2Config.from_dict(config))
    load_strictly(model, _rename(state, model), path, WHAT)
    return TransformersVoiceEncoder(model, device)


def _rename(state: dict[str, Tensor], model: nn.Module) -> dict[str, Tensor]:
    """Keys of a published file -> the model's own, without the heads."""
    renamed = {}
    for key, tensor in state.items():
        key = key.removeprefix("wav2vec2.")
        for old, new in RENAMED.items():
            key = key.replace(old, new)
        if not key.startswith(UNUSED):
            renamed[key] = tensor.float()
    mask = model.state_dict().get("masked_spec_embed")
    return renamed if mask is None else renamed | {"masked_spec_embed": mask}
