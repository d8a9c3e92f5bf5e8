"""The voice front-end's encoder from a local Hugging Face folder, on plain torch."""

from pathlib import Path

import torch
from torch import nn

from memo_avatar.torch_ops import sdpa_attention
from memo_avatar.wav2vec2 import Wav2Vec2, check_base_kind, plain_weights

from .errors import CommandError
from .weights import load_strictly, read_config, read_weights

WHAT = "wav2vec2 model"


def load_wav2vec2(folder: Path, device: torch.device | str = "cpu") -> Wav2Vec2:
    """A folder of Wav2Vec2Model or Wav2Vec2ForCTC, computed in float32 as upstream does."""
    config = read_config(folder, WHAT)
    if config.get("model_type") != "wav2vec2":
        raise CommandError(
            f"expected model_type wav2vec2 but got {config.get('model_type')} ({folder / 'config.json'}). "
            "Give the folder of facebook/wav2vec2-base-960h."
        )
    check_base_kind(config, folder / "config.json")
    state, path = read_weights(folder, ["model.safetensors"], WHAT)
    model = Wav2Vec2(config, attention=sdpa_attention, operations=nn)
    load_strictly(model, plain_weights(state), path, WHAT)
    return model.to(device).eval().requires_grad_(False)
