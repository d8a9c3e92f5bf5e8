"""Files beside a MEMO checkpoint (its VAE, its audio encoder): read and checked before the host sees them.

Under dynamic VRAM the host itself takes a missing or misshapen weight without a word.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor, nn

from ..memo_avatar.weights_file import DTYPES, CheckpointError, read_header, read_tensors

_SHOWN = 5


def read_state(path: Path) -> dict[str, Tensor]:
    """All tensors of a .safetensors file in float32."""
    file = read_header(path)
    names = {name: name for name, stored in file.tensors.items() if stored.dtype in DTYPES}
    return read_tensors(file, names, torch.float32)


def check_state(expected: nn.Module, state: Mapping[str, Tensor], path: Path, what: str) -> None:
    """Raise unless ``state`` has the keys and shapes of ``expected``, a net on the meta device."""
    shapes = {key: tuple(tensor.shape) for key, tensor in expected.state_dict().items()}
    found = {key: tuple(tensor.shape) for key, tensor in state.items()}
    problems = {
        "missing": [key for key in shapes if key not in found],
        "unexpected": [key for key in found if key not in shapes],
        "of another shape": [key for key in shapes if key in found and shapes[key] != found[key]],
    }
    listed = [f"{len(keys)} {kind}: {', '.join(keys[:_SHOWN])}" for kind, keys in problems.items() if keys]
    if listed:
        raise CheckpointError(
            f"expected the {len(shapes)} tensors of this {what} but got {len(found)}, {'; '.join(listed)} "
            f"({path}). "
            "Copy the folder's config.json and weights from one place."
        )
