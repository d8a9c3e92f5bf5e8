"""Safetensors headers, believed in nothing: what a file promises is checked before a tensor is read.

The header is read here rather than by the library because only the header tells a truncated download from a
file that was never a safetensors. Format: the header's length in 8 little-endian bytes, the header in JSON,
then the tensors' bytes, one after the other without a gap.
"""

from __future__ import annotations

import json
import math
import os
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, BinaryIO

import torch

from .disk import open_regular
from .foreign import LONGEST_START, CheckpointError, kind_of, shown
from .json_file import parse_json
from .limits import MAX_DIMS, MAX_ELEMENTS, MAX_HEADER_BYTES, MAX_NAME, MAX_TENSORS

DTYPES = {"F32": torch.float32, "BF16": torch.bfloat16, "F16": torch.float16}
"""The dtypes that weights may have, by their name in the header."""

DTYPE_NAMES = {dtype: name for name, dtype in DTYPES.items()}

# Bytes of an element, by the dtype's name; only those of DTYPES are ever read.
_SIZES = {
    **dict.fromkeys(("F64", "I64", "U64", "C64"), 8),
    **dict.fromkeys(("F32", "I32", "U32"), 4),
    **dict.fromkeys(("F16", "BF16", "I16", "U16"), 2),
    **dict.fromkeys(("I8", "U8", "BOOL", "F8_E4M3", "F8_E5M2", "F8_E8M0"), 1),
}
_LENGTH_BYTES = 8
_LONGEST_DTYPE = 16
_PICKLE_SUFFIXES = {".bin", ".ckpt", ".pt", ".pth", ".pkl"}


@dataclass(frozen=True)
class StoredTensor:
    """One tensor as the header describes it; ``begin`` is its offset in the file."""

    dtype: str
    shape: tuple[int, ...]
    begin: int
    nbytes: int


@dataclass(frozen=True)
class WeightsFile:
    """A safetensors file that is as long as its header says. No tensor has been read."""

    path: Path
    tensors: Mapping[str, StoredTensor]
    metadata: Mapping[str, str]


def read_header(path: Path) -> WeightsFile:
    """Describe the file without reading its tensors.

    Raises:
        CheckpointError: the file is missing, foreign, damaged or shorter than it should be.
    """
    if path.suffix.lower() in _PICKLE_SUFFIXES:
        raise CheckpointError(
            f"expected a .safetensors file but got a pickle, which can run code when it is opened ({path}). "
            "Download the .safetensors version."
        )
    try:
        with open_regular(path) as stream:
            size = os.fstat(stream.fileno()).st_size
            header = _header_json(stream, path, size)
    except OSError as error:
        raise CheckpointError(
            f"expected a readable .safetensors file but got: {error.strerror or error} ({path}). "
            "Check the path and its permissions."
        ) from error
    start = _LENGTH_BYTES + len(header)
    tensors, metadata = _parse_header(header, path)
    promised = start + _check_tiling(tensors, path)
    _check_length(path, start, promised, size)
    placed = {name: replace(stored, begin=start + stored.begin) for name, stored in tensors.items()}
    return WeightsFile(path, placed, metadata)


def _header_json(stream: BinaryIO, path: Path, size: int) -> bytes:
    start = stream.read(LONGEST_START)
    length = int.from_bytes(start[:_LENGTH_BYTES], "little")
    if start[_LENGTH_BYTES : _LENGTH_BYTES + 1] != b"{":  # a length may have the bytes of another kind
        what = kind_of(start) or ("an empty file" if size == 0 else "something else")
        raise CheckpointError(f"expected a safetensors file but got {what} ({path}). Download it again.")
    if length > MAX_HEADER_BYTES:
        raise CheckpointError(
            f"expected a header of at most {MAX_HEADER_BYTES} bytes but got {length} ({path}). "
            "This is no MEMO checkpoint, or a damaged one; download it again."
        )
    if _LENGTH_BYTES + length > size:
        raise CheckpointError(
            f"expected a header of {length} bytes but got {size - _LENGTH_BYTES} ({path}). "
            "The download was cut off within the header; download it again."
        )
    stream.seek(_LENGTH_BYTES)
    return stream.read(length)


def _parse_header(data: bytes, path: Path) -> tuple[dict[str, StoredTensor], dict[str, str]]:
    """Tensors with their offsets behind the header, and the metadata."""
    try:
        text = data.decode("utf-8")
    except UnicodeDecodeError as error:
        raise _damaged(f"bytes that are no text at {error.start}", path) from error
    header = parse_json(text, str(path), what="a safetensors header")
    metadata = header.pop("__metadata__", None) or {}
    if not isinstance(metadata, dict) or not all(isinstance(value, str) for value in metadata.values()):
        raise _damaged("metadata that is no text", path)
    if len(header) > MAX_TENSORS:
        raise CheckpointError(
            f"expected at most {MAX_TENSORS} tensors but got {len(header)} ({path}). "
            "This is no MEMO checkpoint; check which file it is."
        )
    return {name: _parse_entry(name, entry, path) for name, entry in header.items()}, metadata


def _parse_entry(name: str, entry: Any, path: Path) -> StoredTensor:
    if not name.isprintable() or len(name) > MAX_NAME:
        raise _damaged(f"a tensor called {shown(name)}", path)
    if not isinstance(entry, dict) or set(entry) != {"dtype", "shape", "data_offsets"}:
        raise _damaged(f"{shown(entry)} for {name}", path)
    dtype, shape, offsets = entry["dtype"], entry["shape"], entry["data_offsets"]
    if not isinstance(dtype, str) or not dtype.isidentifier() or len(dtype) > _LONGEST_DTYPE:
        raise _damaged(f"the dtype {shown(dtype)} for {name}", path)
    if not _are_counts(shape) or len(shape) > MAX_DIMS:
        raise _damaged(f"a shape of {shown(shape)} for {name}", path)
    if math.prod(max(1, side) for side in shape) > MAX_ELEMENTS:
        raise _damaged(f"a shape of more than {MAX_ELEMENTS} elements for {name}", path)
    if not _are_counts(offsets) or len(offsets) != 2 or offsets[0] > offsets[1]:
        raise _damaged(f"offsets of {shown(offsets)} for {name}", path)
    stored = StoredTensor(dtype, tuple(shape), offsets[0], offsets[1] - offsets[0])
    nbytes = math.prod(shape) * _SIZES[dtype] if dtype in _SIZES else stored.nbytes
    if nbytes != stored.nbytes:
        raise CheckpointError(
            f"expected {nbytes} bytes for {name} but got {stored.nbytes} ({path}). "
            "The header is damaged; download the file again."
        )
    return stored


def _are_counts(values: Any) -> bool:
    """Whether it is a list of whole numbers of 0 or more."""
    return isinstance(values, list) and all(type(value) is int and value >= 0 for value in values)


def _check_tiling(tensors: Mapping[str, StoredTensor], path: Path) -> int:
    """Raise unless the tensors lie one after the other, without gap or overlap; where the last one ends."""
    position = 0
    for name, stored in sorted(tensors.items(), key=lambda item: (item[1].begin, item[1].nbytes)):
        if stored.begin != position:
            raise _damaged(f"{name} at byte {stored.begin} instead of {position}", path)
        position += stored.nbytes
    return position


def _check_length(path: Path, start: int, promised: int, size: int) -> None:
    if size < promised:
        share = f"{100 * size // promised}%" if 100 * size >= promised else "less than 1%"
        arrived = "only the header" if size == start else f"{share} of it"
        raise CheckpointError(
            f"expected {promised} bytes but got {size} ({path}). "
            f"The download was cut off and {arrived} arrived; download it again."
        )
    if size > promised:
        raise CheckpointError(
            f"expected {promised} bytes but got {size} ({path}). The file is damaged; download it again."
        )


def _damaged(what: str, path: Path) -> CheckpointError:
    return CheckpointError(
        f"expected a safetensors header but got {what} in it ({path}). Download the file again."
    )


def header_bytes(
    shapes: Mapping[str, tuple[int, ...]], dtype: torch.dtype, metadata: Mapping[str, str]
) -> bytes:
    """The header of a file that holds these tensors in this order, one after the other, in one dtype."""
    header: dict[str, Any] = {"__metadata__": dict(metadata)}
    position = 0
    for name, shape in shapes.items():
        end = position + math.prod(shape) * dtype.itemsize
        header[name] = {"dtype": DTYPE_NAMES[dtype], "shape": list(shape), "data_offsets": [position, end]}
        position = end
    encoded = json.dumps(header, separators=(",", ":")).encode()
    encoded += b" " * (-len(encoded) % 8)  # so that the tensors begin on a multiple of eight
    return len(encoded).to_bytes(_LENGTH_BYTES, "little") + encoded
