"""A checkpoint in any layout -> one file, in the dtype asked for, tensor by tensor."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import BinaryIO

import torch
from safetensors import safe_open

from ..files.weights_file import DTYPES, CheckpointError, header_bytes, read_chunks, replacing, tensor_bytes
from .kinds import PARTS
from .load import Checkpoint, Progress, _byte_counter, open_checkpoint
from .parts import metadata_of


def convert(src: str | Path, dst: str | Path, dtype: torch.dtype, progress: Progress | None = None) -> None:
    """Write the checkpoint ``src`` as the single file ``dst``, in ``dtype``.

    Tensors go through memory piece by piece. ``dst`` appears when it is complete, or not at all.

    Raises:
        CheckpointError: ``src`` is not loadable, ``dst`` is not writable, or a weight does not fit ``dtype``.
    """
    src, dst = Path(src), Path(dst)
    if dtype not in DTYPES.values():
        raise CheckpointError(
            f"expected float32, bfloat16 or float16 but got {dtype} (dtype). Choose one of them."
        )
    checkpoint = open_checkpoint(src)
    _check_destination(src, dst)
    shapes = {
        f"{name}.{key}": shape for name in PARTS for key, shape in checkpoint.parts[name].shapes.items()
    }
    metadata = metadata_of({name: part.config for name, part in checkpoint.parts.items()})
    try:
        _check_free_space(dst, checkpoint.nbytes(dtype))
        with replacing(dst) as (out, partial):
            out.write(header_bytes(shapes, dtype, metadata))
            _write_tensors(out, checkpoint, dtype, _byte_counter(progress, checkpoint.nbytes(dtype)))
            out.flush()
            _check_written(partial, shapes)
    except OSError as error:
        raise CheckpointError(
            f"expected to write the checkpoint but got: {error.strerror or error} ({dst}). "
            "Choose a folder with enough room that you may write to."
        ) from error


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


def _check_destination(src: Path, dst: Path) -> None:
    where = dst.resolve()
    if dst.suffix != ".safetensors":
        raise CheckpointError(
            f"expected a name that ends in .safetensors but got {dst.name} ({dst}). Rename it."
        )
    if dst.is_dir():
        raise CheckpointError(f"expected a file name but got a folder ({dst}). Add a file name to it.")
    if where == src.resolve() or src.resolve() in where.parents:
        raise CheckpointError(
            f"expected a file outside the source but got one inside it ({dst}). Write elsewhere."
        )
    if not where.parent.is_dir():
        raise CheckpointError(f"expected a folder to write to but got none ({dst.parent}). Make it first.")


def _check_free_space(dst: Path, needed: int) -> None:
    free = shutil.disk_usage(dst.resolve().parent).free
    if free < needed:
        raise CheckpointError(
            f"expected {needed / 2**30:.1f} GiB of free space but got {free / 2**30:.1f} ({dst.parent}). "
            "Free some, or write elsewhere."
        )


def _check_written(path: Path, shapes: Mapping[str, tuple[int, ...]]) -> None:
    with safe_open(str(path), framework="pt") as written:
        assert set(written.keys()) == set(shapes), "the file that was written must read back"
