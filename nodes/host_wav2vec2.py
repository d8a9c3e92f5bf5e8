"""The checkpoint's own wav2vec2 on the host's layers.

The host's class has the published sizes built in; the demo's audio encoder is smaller.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

import torch
from comfy.ldm.modules.attention import optimized_attention
from torch import nn

from ..memo_avatar.torch_ops import sdpa_attention
from ..memo_avatar.wav2vec2 import Wav2Vec2, check_base_kind, plain_weights
from ..memo_avatar.weights_file import check_state, read_all
from .host_memory import auxiliary_patcher


def load_wav2vec2(folder: Path) -> Any:
    """A Hugging Face folder -> a patcher, in float32 as upstream computes it."""
    config: Mapping[str, Any] = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    check_base_kind(config, folder)
    path = folder / "model.safetensors"
    state = plain_weights(read_all(path))
    check_state(
        Wav2Vec2(config, attention=sdpa_attention, operations=nn, device="meta"), state, path, "wav2vec2"
    )
    return auxiliary_patcher(partial(Wav2Vec2, config, attention=optimized_attention), state, torch.float32)
