"""The seams between the nets and what they run on, and the attention of plain torch."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch.nn.functional as F
from torch import Tensor

Attention = Callable[..., Tensor]
"""``attention(q, k, v, heads, **options)``: q (B, L, N*D), k and v (B, S, N*D) -> (B, L, N*D).

The signature of ComfyUI's ``optimized_attention``; ``options`` come from
:class:`ClipContext.attention_options`.
"""

Operations = Any
"""A namespace with Linear, Conv2d, GroupNorm, LayerNorm, Embedding: ``torch.nn`` or a ``comfy.ops`` one."""


def sdpa_attention(q: Tensor, k: Tensor, v: Tensor, heads: int, **_options: Any) -> Tensor:
    """Scaled-dot-product attention over ``heads`` heads: (B, L, N*D), (B, S, N*D) x 2 -> (B, L, N*D)."""
    q, k, v = (x.unflatten(-1, (heads, -1)).transpose(1, 2) for x in (q, k, v))  # (B, N, L, D)
    return F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2)
