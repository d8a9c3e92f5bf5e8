"""The plain-torch backend: what a caller without a host passes as ``operations`` and ``attention``."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

Attention = Callable[..., Tensor]
"""``attention(q, k, v, heads, **options)``: q (B, L, N*D), k and v (B, S, N*D) -> (B, L, N*D).

The signature of ComfyUI's ``optimized_attention``; ``options`` come from
:class:`ClipContext.attention_options`.
"""

Operations = Any
"""A namespace with Linear, Conv2d, GroupNorm, LayerNorm, Embedding: ``torch.nn`` or a ``comfy.ops`` one."""

operations: Operations = nn


def sdpa_attention(q: Tensor, k: Tensor, v: Tensor, heads: int, **_options: Any) -> Tensor:
    """Scaled-dot-product attention over ``heads`` heads: (B, L, N*D), (B, S, N*D) x 2 -> (B, L, N*D)."""
    q, k, v = (x.unflatten(-1, (heads, -1)).transpose(1, 2) for x in (q, k, v))  # (B, N, L, D)
    return F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2)


def parse_dtype(name: str) -> torch.dtype:
    """The torch dtype of a public name: float32, bfloat16 or float16 (also fp32, bf16, fp16)."""
    short = {"fp32": "float32", "bf16": "bfloat16", "fp16": "float16"}
    full = short.get(name, name)
    if full not in short.values():
        raise ValueError(
            f"dtype must be float32, bfloat16 or float16 but got {name!r}. Choose one of the three."
        )
    return getattr(torch, full)
