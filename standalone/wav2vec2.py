"""The voice front-end's encoder from a local Hugging Face folder, on plain torch."""

from pathlib import Path

import torch
from torch import nn

from memo_avatar.checkpoint.companions import read_wav2vec2
from memo_avatar.files.weights_file import check_state
from memo_avatar.torch_ops import sdpa_attention
from memo_avatar.voice.wav2vec2 import Wav2Vec2


def load_wav2vec2(folder: Path, device: torch.device | str = "cpu") -> Wav2Vec2:
    """A folder of Wav2Vec2Model or Wav2Vec2ForCTC, computed in float32 as upstream does."""
    config, state, path = read_wav2vec2(folder)
    model = Wav2Vec2(config, attention=sdpa_attention, operations=nn)
    check_state(model, state, path, "wav2vec2 model")
    model.load_state_dict(state)
    return model.to(device).eval().requires_grad_(False)
