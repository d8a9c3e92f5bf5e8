"""A name for all that a video depends on: equal jobs get the same one, in this process or the next.

It is made of whole values, so a field that a job gets later is in it from the start.
"""

from __future__ import annotations

import dataclasses
import hashlib
import zlib
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Protocol, runtime_checkable

import torch
from torch import Tensor

_PLAIN = (str, bytes, int, float, bool, type(None), torch.dtype, torch.device)
_SMALL, _PIECE = 2**20, 2**24  # bytes; of a tensor that is not small, checksums stand for its pieces


@runtime_checkable
class Keyed(Protocol):
    """A value of another kind that says what stands for it."""

    @property
    def content(self) -> Any:
        """Everything that a video made with it depends on."""
        ...


def key_of(value: Any, see: Callable[[Any], Any] = lambda value: value) -> str:
    """16 hexadecimal digits of a value by its content: dataclasses, mappings, sequences, tensors, plain ones,
    and whatever is :class:`Keyed`.

    Args:
        see: what stands for a value, asked for each on the way. It makes known what is not.

    Raises:
        TypeError: something else is in it, which would be left out in silence.
    """
    digest = hashlib.sha256()
    _feed(digest, value, see)
    return digest.hexdigest()[:16]


def _feed(digest: Any, value: Any, see: Callable[[Any], Any]) -> None:
    value = see(value)
    if isinstance(value, Tensor):
        digest.update(f"tensor {tuple(value.shape)} {value.dtype}:".encode())
        for piece in _pieces(value):
            digest.update(piece)
    elif isinstance(value, _PLAIN):
        text = repr(value).encode()
        digest.update(f"{type(value).__name__} {len(text)}:".encode() + text)
    elif isinstance(value, list | tuple):
        digest.update(f"list {len(value)}:".encode())
        for item in value:
            _feed(digest, item, see)
    elif isinstance(value, Mapping):
        digest.update(f"mapping {len(value)}:".encode())
        for name in sorted(value, key=str):
            _feed(digest, (str(name), value[name]), see)
    elif dataclasses.is_dataclass(value) and not isinstance(value, type):
        fields = [(field.name, getattr(value, field.name)) for field in dataclasses.fields(value)]
        _feed(digest, fields, see)
    elif isinstance(value, Keyed):
        _feed(digest, value.content, see)
    else:
        raise TypeError(f"expected a value that a video can be known by but got a {type(value).__name__}")


def _pieces(tensor: Tensor) -> Iterator[bytes]:
    """What stands for a tensor's bytes, a part of it in memory at a time."""
    rows = tensor.detach().reshape(1) if tensor.ndim == 0 else tensor.detach()
    row_bytes = rows[:1].numel() * rows.element_size()
    is_small = row_bytes * len(rows) <= _SMALL
    for part in rows.split(max(1, _PIECE // max(1, row_bytes))):
        data = part.cpu().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes()
        yield data if is_small else zlib.crc32(data).to_bytes(4, "little")
