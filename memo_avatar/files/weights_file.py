"""Safetensors files: what the header promises, tensors read in bounded memory, the bytes of new ones.

It knows the file format and nothing of MEMO. The header is read here rather than by the library because only
the header tells a truncated download from a file that was never a safetensors. Format: the header's length in
8 little-endian bytes, the header in JSON, then the tensors' bytes.
"""

from __future__ import annotations

import json
import math
import os
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import torch
from safetensors import safe_open
from torch import Tensor, nn

DTYPES = {"F32": torch.float32, "BF16": torch.bfloat16, "F16": torch.float16}
"""The dtypes that weights may have, by their name in the header."""

DTYPE_NAMES = {dtype: name for name, dtype in DTYPES.items()}

CHUNK_BYTES = 16 * 2**20
"""Read, check and convert this much at a time, so that memory does not follow the size of the tensors."""

_LENGTH_BYTES = 8
_SHOWN = 5  # keys that an error names
_LONGEST_HEADER = 100 * 2**20  # safetensors' own limit
_PICKLE_SUFFIXES = {".bin", ".ckpt", ".pt", ".pth", ".pkl"}
_FOREIGN_STARTS = {
    b"PK\x03\x04": "a PyTorch pickle or another zip archive",
    b"\x80\x02": "a PyTorch pickle",
    b"version https://git-lfs": "a Git LFS pointer: the file itself was not downloaded",
    b"<!doctype": "a web page: the download was answered with an error or a login page",
    b"<html": "a web page: the download was answered with an error or a login page",
    b"GGUF": "a GGUF file",
    b"\x89HDF": "an HDF5 file",
}

OnBytes = Callable[[int], None]
"""Called with the number of bytes just finished."""


class CheckpointError(ValueError):
    """A file or folder that is no MEMO checkpoint, or a damaged one. The text names it and the remedy."""


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
        with path.open("rb") as stream:
            size = os.fstat(stream.fileno()).st_size
            header = _header_json(stream, path, size)
    except OSError as error:
        raise CheckpointError(
            f"expected a readable .safetensors file but got: {error.strerror or error} ({path}). "
            "Check the path and its permissions."
        ) from error
    tensors, metadata = _parse_header(header, path)
    _check_length(path, tensors, _LENGTH_BYTES + len(header), size)
    return WeightsFile(path, tensors, metadata)


def _header_json(stream: BinaryIO, path: Path, size: int) -> bytes:
    start = stream.read(64)
    lower = start.lower()
    foreign = next((what for magic, what in _FOREIGN_STARTS.items() if lower.startswith(magic.lower())), None)
    length = int.from_bytes(start[:_LENGTH_BYTES], "little")
    opens_json = start[_LENGTH_BYTES : _LENGTH_BYTES + 1] == b"{"
    if foreign or not opens_json or length > _LONGEST_HEADER:
        what = foreign or ("an empty file" if size == 0 else "something else")
        raise CheckpointError(f"expected a safetensors file but got {what} ({path}). Download it again.")
    if _LENGTH_BYTES + length > size:
        raise CheckpointError(
            f"expected a header of {length} bytes but got {size - _LENGTH_BYTES} ({path}). "
            "The download was cut off within the header; download it again."
        )
    stream.seek(_LENGTH_BYTES)
    return stream.read(length)


def _parse_header(text: bytes, path: Path) -> tuple[dict[str, StoredTensor], dict[str, str]]:
    start = _LENGTH_BYTES + len(text)
    try:
        header = json.loads(text)
        metadata = dict(header.pop("__metadata__", None) or {})
        tensors = {}
        for name, entry in header.items():
            begin, end = map(int, entry["data_offsets"])
            shape = tuple(map(int, entry["shape"]))
            tensors[name] = StoredTensor(str(entry["dtype"]), shape, start + begin, end - begin)
    except (ValueError, LookupError, TypeError, AttributeError) as error:
        raise CheckpointError(
            f"expected a safetensors header but got {error!r} in it ({path}). Download the file again."
        ) from error
    return tensors, metadata


def _check_length(path: Path, tensors: Mapping[str, StoredTensor], start: int, size: int) -> None:
    for name, stored in tensors.items():
        nbytes = stored.nbytes
        if stored.dtype in DTYPES:
            nbytes = math.prod(stored.shape) * DTYPES[stored.dtype].itemsize
        if nbytes != stored.nbytes:
            raise CheckpointError(
                f"expected {nbytes} bytes for {name} but got {stored.nbytes} ({path}). "
                "The header is damaged; download the file again."
            )
    promised = max((stored.begin + stored.nbytes for stored in tensors.values()), default=start)
    if size < promised:
        arrived = "only the header" if size == start else f"{size / promised:.0%} of it"
        raise CheckpointError(
            f"expected {promised} bytes but got {size} ({path}). "
            f"The download was cut off and {arrived} arrived; download it again."
        )
    if size > promised:
        raise CheckpointError(
            f"expected {promised} bytes but got {size} ({path}). The file is damaged; download it again."
        )


def read_tensors(
    file: WeightsFile,
    names: Mapping[str, str],
    dtype: torch.dtype,
    device: torch.device | str = "cpu",
    on_bytes: OnBytes | None = None,
) -> dict[str, Tensor]:
    """Tensors of a file by their new names: ``names`` maps stored name -> new name.

    Where the dtype and device are the file's own, the tensors share its memory mapping and nothing is copied;
    otherwise they are converted chunk by chunk. Every value is checked to be finite.
    """
    ordered = sorted(names, key=lambda name: file.tensors[name].begin)
    direct = [
        n for n in ordered if DTYPES[file.tensors[n].dtype] is dtype and torch.device(device).type == "cpu"
    ]
    tensors: dict[str, Tensor] = {}
    if direct:
        with safe_open(str(file.path), framework="pt") as mapped:
            for name in direct:
                tensors[names[name]] = tensor = mapped.get_tensor(name)
                for values in tensor.reshape(-1).split(CHUNK_BYTES // dtype.itemsize):
                    _check_values(values, dtype, file.path, name)
                    _report(on_bytes, values)
    with file.path.open("rb") as stream:
        for name in (name for name in ordered if names[name] not in tensors):
            tensors[names[name]] = out = torch.empty(file.tensors[name].shape, dtype=dtype, device=device)
            flat, position = out.view(-1), 0
            for values in read_chunks(stream, file, name, dtype):
                flat[position : position + len(values)].copy_(values)
                position += len(values)
                _report(on_bytes, values)
    return tensors


def read_all(path: Path) -> dict[str, Tensor]:
    """All tensors of a .safetensors file in float32, each checked to be finite; integers are left out."""
    file = read_header(path)
    names = {name: name for name, stored in file.tensors.items() if stored.dtype in DTYPES}
    return read_tensors(file, names, torch.float32)


def check_state(expected: nn.Module, state: Mapping[str, Tensor], path: Path, what: str) -> None:
    """Raise unless ``state`` has the keys and shapes of ``expected``, a net on any device, also meta."""
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
            f"({path}). Use whole files that belong together, or download them again."
        )


def read_chunks(stream: BinaryIO, file: WeightsFile, name: str, dtype: torch.dtype) -> Iterator[Tensor]:
    """One tensor as flat, checked pieces in ``dtype``. A piece is valid until the next one is asked for."""
    stored = file.tensors[name]
    stored_dtype, left = DTYPES[stored.dtype], stored.nbytes
    buffer = bytearray(min(left, CHUNK_BYTES))
    stream.seek(stored.begin)
    while left:
        size = min(left, CHUNK_BYTES)
        if stream.readinto(memoryview(buffer)[:size]) != size:  # pyright: ignore[reportAttributeAccessIssue]
            raise CheckpointError(
                f"expected {size} more bytes of {name} but the file ended ({file.path}). "
                "It changed while it was read; try again when nothing writes to it."
            )
        values = torch.frombuffer(buffer, dtype=stored_dtype, count=size // stored_dtype.itemsize)
        _check_values(values, dtype, file.path, name)
        yield values.to(dtype)
        left -= size


def _report(on_bytes: OnBytes | None, values: Tensor) -> None:
    if on_bytes is not None:
        on_bytes(values.nbytes)


def _check_values(values: Tensor, dtype: torch.dtype, path: Path, name: str) -> None:
    """NaN weights give black video after minutes of work; find them now."""
    low, high = (float(extreme) for extreme in torch.aminmax(values))  # both NaN where any value is
    if not (math.isfinite(low) and math.isfinite(high)):
        raise CheckpointError(
            f"expected finite weights but got NaN or infinity ({path}, {name}). "
            "Download the file again, or convert it again from a good one."
        )
    largest = max(-low, high)
    if largest > torch.finfo(dtype).max:
        raise CheckpointError(
            f"expected weights up to {torch.finfo(dtype).max:.0f} but got {largest:.6g} ({path}, {name}). "
            "Use bfloat16 or float32."
        )


def write_tensors(
    path: Path, tensors: Mapping[str, Tensor], dtype: torch.dtype, metadata: Mapping[str, str]
) -> None:
    """A file with these tensors, from any device, in ``dtype``; one at a time goes through memory."""
    shapes = {name: tuple(tensor.shape) for name, tensor in tensors.items()}
    with path.open("wb") as stream:
        stream.write(header_bytes(shapes, dtype, metadata))
        for tensor in tensors.values():
            stream.write(tensor_bytes(tensor.to("cpu", dtype)))


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


def tensor_bytes(values: Tensor) -> bytearray:
    """The bytes of a tensor as the file wants them, without numpy (which has no bfloat16)."""
    data = bytearray(values.nbytes)
    if data:
        torch.frombuffer(data, dtype=values.dtype).copy_(values.reshape(-1))
    return data
