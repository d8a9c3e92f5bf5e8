"""MEMO checkpoints: upstream's folders and our single file -> checked headers -> the four nets.

A folder holds ``<part>/config.json`` and ``<part>/diffusion_pytorch_model.safetensors``. A single file holds
the keys ``<part>.<key>`` and, in its metadata, ``<part>.config`` with each config as JSON. Everything that a
header can tell is checked before a tensor is read.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace

import torch
from torch import Tensor, nn

from ..files.foreign import CheckpointError, listed
from ..files.header import DTYPES
from ..files.weights_file import read_tensors
from ..model.config import (
    AudioProjectionConfig,
    ConfigError,
    ImageProjectionConfig,
    MemoConfig,
    ReferenceUNetConfig,
    UNet3DConfig,
)
from ..model.nets import MemoModels, build_models
from ..torch_ops import Attention, Operations, sdpa_attention
from .kinds import PARTS, explain_part
from .parts import SHOWN_KEYS, Part, find_parts

_CONFIGS = {
    "diffusion_net": UNet3DConfig,
    "reference_net": ReferenceUNetConfig,
    "image_proj": ImageProjectionConfig,
    "audio_proj": AudioProjectionConfig,
}

_LAYERS = ("Linear", "Conv2d", "GroupNorm", "LayerNorm", "Embedding")

uninitialized: Operations = SimpleNamespace(
    **{name: type(name, (getattr(nn, name),), {"reset_parameters": lambda _: None}) for name in _LAYERS}
)
"""torch.nn's layers without the initialisation that a checkpoint overwrites (half the time of building)."""

REPORT_BYTES = 8 * 2**20

Progress = Callable[[int, int], None]
"""``progress(done_bytes, total_bytes)`` after every few megabytes."""

__all__ = [
    "PARTS",
    "Checkpoint",
    "CheckpointError",
    "build_models",
    "infer_config",
    "load_memo",
    "open_checkpoint",
]


@dataclass(frozen=True)
class Checkpoint:
    """A checkpoint whose keys, shapes and configs are known to fit. Its weights are still on disk."""

    path: Path
    parts: Mapping[str, Part]
    config: MemoConfig

    @property
    def dtype(self) -> torch.dtype:
        """The dtype that most of the weights are stored in."""
        sizes: Counter[str] = Counter()
        for part in self.parts.values():
            for stored in part.tensors.values():
                sizes[stored.dtype] += stored.nbytes
        return DTYPES[sizes.most_common(1)[0][0]]

    def nbytes(self, dtype: torch.dtype) -> int:
        """The size of all weights in ``dtype``."""
        shapes = (shape for part in self.parts.values() for shape in part.shapes.values())
        return sum(torch.Size(shape).numel() for shape in shapes) * dtype.itemsize

    def read(
        self,
        part: str,
        dtype: torch.dtype | None = None,
        device: torch.device | str = "cpu",
        on_bytes: Callable[[int], None] | None = None,
    ) -> dict[str, Tensor]:
        """The state dict of one net. Tensors may share the file's memory mapping: treat them as read-only."""
        owner = self.parts[part]
        names = {owner.prefix + key: key for key in owner.tensors}
        return read_tensors(owner.file, names, dtype or self.dtype, device, on_bytes)

    def load(
        self,
        *,
        dtype: torch.dtype | None = None,
        device: torch.device | str = "cpu",
        operations: Operations = uninitialized,
        attention: Attention = sdpa_attention,
        progress: Progress | None = None,
    ) -> MemoModels:
        """The nets with their weights, for inference. ``dtype`` None keeps the stored one.

        Raises:
            CheckpointError: a weight that is not finite, or a file that is not what it was.
        """
        dtype = dtype or self.dtype
        models = build_models(
            self.config, operations=operations, attention=attention, dtype=dtype, device="meta"
        )
        on_bytes = byte_counter(progress, self.nbytes(dtype))
        for name in PARTS:
            net: nn.Module = getattr(models, name)
            net.load_state_dict(self.read(name, dtype, device, on_bytes), assign=True)
            net.eval().requires_grad_(False)
        return models


def load_memo(
    path: str | Path, *, dtype: torch.dtype | None = None, device: torch.device | str = "cpu"
) -> MemoModels:
    """Open a checkpoint and load it (`Checkpoint.load`).

    Raises:
        CheckpointError: anything about the files; the text names the file, the keys and the likely mix-up.
    """
    return open_checkpoint(path).load(dtype=dtype, device=device)


def open_checkpoint(path: str | Path) -> Checkpoint:
    """Read and check a checkpoint's headers and configs: the folder or the single file at ``path``.

    Raises:
        CheckpointError: anything that keeps it from being loaded, but for NaN among the weights.
    """
    path = Path(path)
    parts = find_parts(path)
    config = infer_config(path, parts)
    models = _build_empty(path, config)
    for name, part in parts.items():
        expected = {key: tuple(tensor.shape) for key, tensor in getattr(models, name).state_dict().items()}
        _check_schema(name, part, expected)
    return Checkpoint(path, parts, config)


# Checking them


def infer_config(path: Path, parts: Mapping[str, Part]) -> MemoConfig:
    """The sizes that the weights' shapes tell, where the configs agree with them.

    Raises:
        CheckpointError: config and weights are not of one network, or of none.
    """
    with _of_checkpoint(path):
        return MemoConfig(
            **{name: _CONFIGS[name].infer(parts[name].config, parts[name].shapes) for name in PARTS}
        )


def _build_empty(path: Path, config: MemoConfig) -> MemoModels:
    """The nets of these sizes, on the meta device."""
    with _of_checkpoint(path):
        return build_models(config, operations=uninitialized, attention=sdpa_attention, device="meta")


@contextmanager
def _of_checkpoint(path: Path) -> Iterator[None]:
    """What is wrong with its sizes, told with its path before the advice."""
    try:
        yield
    except ConfigError as error:
        reason, _, advice = str(error).partition("). ")
        raise CheckpointError(f"{reason} of {path}). {advice}") from error
    except (LookupError, TypeError, ValueError, ArithmeticError) as error:
        raise CheckpointError(
            f"expected the shapes and configs of MEMO's nets but got ones of no network: {error} ({path}). "
            "Download the checkpoint again."
        ) from error


def _check_schema(name: str, part: Part, expected: Mapping[str, tuple[int, ...]]) -> None:
    tensors = part.tensors
    missing = [key for key in expected if key not in tensors]
    unexpected = [key for key in tensors if key not in expected]
    shared = [key for key in expected if key in tensors]
    shapes = [
        f"{key} {list(tensors[key].shape)} instead of {list(expected[key])}"
        for key in shared
        if tensors[key].shape != expected[key]
    ]
    dtypes = [f"{key} {tensors[key].dtype}" for key in shared if tensors[key].dtype not in DTYPES]
    problems = {
        "missing": missing,
        "unexpected": unexpected,
        "of another shape": shapes,
        f"of a dtype other than {', '.join(DTYPES)}": dtypes,
    }
    found = [f"{len(keys)} {what}: {listed(keys, SHOWN_KEYS)}" for what, keys in problems.items() if keys]
    if found:
        raise CheckpointError(
            f"expected the {len(expected)} tensors of {name} but got {len(tensors)}, {'; '.join(found)} "
            f"({part.file.path}). {explain_part(name, tensors)}"
        )


def byte_counter(progress: Progress | None, total: int) -> Callable[[int], None]:
    """Adds up finished bytes and reports them to ``progress`` now and then."""
    done = reported = 0

    def count(nbytes: int) -> None:
        nonlocal done, reported
        done += nbytes
        if progress is not None and (done - reported >= REPORT_BYTES or done == total):
            reported = done
            progress(done, total)

    return count
