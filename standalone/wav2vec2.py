"""transformers' Wav2Vec2Model as the voice front-end's encoder, from a local folder."""

from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from transformers import Wav2Vec2Config, Wav2Vec2Model

from .errors import CommandError
from .weights import load_strictly, read_config, read_weights

WHAT = "wav2vec2 model"
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
        """(1, S) -> (1, C, T)."""
        return self.model.feature_extractor(waveform.to(self.device))

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
