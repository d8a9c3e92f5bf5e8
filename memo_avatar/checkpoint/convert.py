"""A checkpoint in any layout -> one file, in the dtype asked for, tensor by tensor."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import BinaryIO

import torch
from safetensors import safe_open

from ..files.disk import replacing, try_place
from ..files.foreign import CheckpointError
from ..files.header import DTYPES, header_bytes
from ..files.weights_file import read_chunks, tensor_bytes
from .kinds import PARTS
from .load import Checkpoint, Progress, byte_counter, open_checkpoint
from .parts import metadata_of

HEADER_ROOM = 2**20
"""Bytes beside the weights: the header of MEMO's 1750 tensors takes 200 kB."""


def convert(src: str | Path, dst: str | Path, dtype: torch.dtype, progress: Progress | None = None) -> None:
    """Write the checkpoint ``src`` as the single file ``dst``, in ``dtype``.

    Tensors go through memory piece by piece. ``dst`` appears when it is complete, or not at all.

    Raises:
        CheckpointError: ``src`` is not loadable, or a weight does not fit ``dtype``.
        DiskError: ``dst`` can't be written, or not be replaced.
    """
    src, dst = Path(src), Path(dst)
    if dtype not in DTYPES.values():
        raise CheckpointError(
            f"expected float32, bfloat16 or float16 but got {dtype} (dtype). Choose one of them."
        )
    checkpoint = open_checkpoint(src)
    _check_destination(src, dst, checkpoint.nbytes(dtype))
    with replacing(dst) as part:
        write_checkpoint(checkpoint, part, dtype, progress)


def write_checkpoint(
    checkpoint: Checkpoint, part: Path, dtype: torch.dtype, progress: Progress | None = None
) -> None:
    """All four nets into the file ``part``, which is read back at the end."""
    shapes = {
        f"{name}.{key}": shape for name in PARTS for key, shape in checkpoint.parts[name].shapes.items()
    }
    metadata = metadata_of({name: part.config for name, part in checkpoint.parts.items()})
    with part.open("wb") as out:
        out.write(header_bytes(shapes, dtype, metadata))
        _write_tensors(out, checkpoint, dtype, byte_counter(progress, checkpoint.nbytes(dtype)))
    _check_written(part, shapes)


def _write_tensors(
    out: BinaryIO, checkpoint: Checkpoint, dtype: torch.dtype, on_bytes: Callable[[int], None]
) -> None:
    for name in PARTS:
        part = checkpoint.parts[name]
        with part.file.path.open("rb") as stream:
            for key in part.tensors:
                for values in read_chunks(stream, part.file, part.prefix + key, dtype):
                    out.write(tensor_bytes(values))
                    on_bytes(values.nbytes)


def _check_destination(src: Path, dst: Path, nbytes: int) -> None:
    if dst.suffix != ".safetensors":
        raise CheckpointError(
            f"expected a name that ends in .safetensors but got {dst.name} ({dst}). Rename it."
        )
    if src.resolve() in dst.resolve().parents:
        raise CheckpointError(
            f"expected a file outside the source but got one inside it ({dst}). Write elsewhere."
        )
    try_place(dst, nbytes=nbytes + HEADER_ROOM, apart_from=[src])


def _check_written(path: Path, shapes: Mapping[str, tuple[int, ...]]) -> None:
    with safe_open(str(path), framework="pt") as written:
        assert set(written.keys()) == set(shapes), "the file that was written must read back"
