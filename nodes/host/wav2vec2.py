"""The checkpoint's own wav2vec2 on the host's layers.

The host's class has the published sizes built in; the demo's audio encoder is smaller.
"""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

import torch
from comfy.ldm.modules.attention import optimized_attention
from torch import nn

from ...memo_avatar.checkpoint.companions import read_wav2vec2
from ...memo_avatar.files.weights_file import check_state
from ...memo_avatar.torch_ops import sdpa_attention
from ...memo_avatar.voice.wav2vec2 import Wav2Vec2
from .memory import auxiliary_patcher


def load_wav2vec2(folder: Path) -> Any:
    """A Hugging Face folder -> a patcher, in float32 as upstream computes it."""
    config, state, path = read_wav2vec2(folder)
    expected = Wav2Vec2(config, attention=sdpa_attention, operations=nn, device="meta")
    check_state(expected, state, path, "wav2vec2 model")
    return auxiliary_patcher(partial(Wav2Vec2, config, attention=optimized_attention), state, torch.float32)
