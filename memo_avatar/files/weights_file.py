"""Safetensors files: tensors read in bounded memory, each value checked, and the bytes of new ones.

It knows the file format and nothing of MEMO.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import BinaryIO

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor, nn

from .foreign import CheckpointError, listed, shown
from .header import DTYPES, WeightsFile, header_bytes, read_header

CHUNK_BYTES = 16 * 2**20
"""Read, check and convert this much at a time, so that memory does not follow the size of the tensors."""

_SHOWN = 5  # keys that an error names

OnBytes = Callable[[int], None]
"""Called with the number of bytes just finished."""


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
        tensors = _mapped_tensors(file, direct)
        for name, tensor in tensors.items():
            for values in tensor.reshape(-1).split(CHUNK_BYTES // dtype.itemsize):
                _check_values(values, dtype, file.path, name)
                _report(on_bytes, values)
        tensors = {names[name]: tensor for name, tensor in tensors.items()}
    with file.path.open("rb") as stream:
        for name in (name for name in ordered if names[name] not in tensors):
            tensors[names[name]] = out = torch.empty(file.tensors[name].shape, dtype=dtype, device=device)
            flat, position = out.view(-1), 0
            for values in read_chunks(stream, file, name, dtype):
                flat[position : position + len(values)].copy_(values)
                position += len(values)
                _report(on_bytes, values)
    return tensors


def _mapped_tensors(file: WeightsFile, names: Sequence[str]) -> dict[str, Tensor]:
    try:
        with safe_open(str(file.path), framework="pt") as mapped:
            return {name: mapped.get_tensor(name) for name in names}
    except (SafetensorError, OSError) as error:
        raise CheckpointError(
            f"expected a safetensors file but got: {shown(str(error))} ({file.path}). Download it again."
        ) from error


def read_all(path: Path) -> dict[str, Tensor]:
    """All tensors of a .safetensors file in float32, each checked to be finite; integers are left out."""
    file = read_header(path)
    names = {name: name for name, stored in file.tensors.items() if stored.dtype in DTYPES}
    return read_tensors(file, names, torch.float32)


def promised_tensors(file: WeightsFile) -> dict[str, Tensor]:
    """The tensors of weights that a header tells, without values: to be checked before any is read."""
    return {
        name: torch.empty(stored.shape, device="meta")
        for name, stored in file.tensors.items()
        if stored.dtype in DTYPES
    }


def check_state(expected: nn.Module, state: Mapping[str, Tensor], path: Path, what: str) -> None:
    """Raise unless ``state`` has the keys and shapes of ``expected``, a net on any device, also meta."""
    check_shapes(expected, {key: tuple(tensor.shape) for key, tensor in state.items()}, path, what)


def check_shapes(expected: nn.Module, found: Mapping[str, tuple[int, ...]], path: Path, what: str) -> None:
    """The same for the shapes that a header tells, before any tensor is read."""
    shapes = {key: tuple(tensor.shape) for key, tensor in expected.state_dict().items()}
    problems = {
        "missing": [key for key in shapes if key not in found],
        "unexpected": [key for key in found if key not in shapes],
        "of another shape": [key for key in shapes if key in found and shapes[key] != found[key]],
    }
    wrong = [f"{len(keys)} {kind}: {listed(keys, _SHOWN)}" for kind, keys in problems.items() if keys]
    if wrong:
        raise CheckpointError(
            f"expected the {len(shapes)} tensors of this {what} but got {len(found)}, {'; '.join(wrong)} "
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
    if not values.numel():
        return
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


def tensor_bytes(values: Tensor) -> bytearray:
    """The bytes of a tensor as the file wants them, without numpy (which has no bfloat16)."""
    data = bytearray(values.nbytes)
    if data:
        torch.frombuffer(data, dtype=values.dtype).copy_(values.reshape(-1))
    return data
