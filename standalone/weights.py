"""Local safetensors folders of other libraries' models: read, checked strictly, never downloaded."""

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from .errors import CommandError

SHOWN_KEYS = 10


def read_config(folder: Path, what: str) -> dict[str, Any]:
    """`config.json` of a model folder."""
    path = folder / "config.json"
    if not folder.is_dir():
        actual = "a file" if folder.exists() else "nothing"
        raise CommandError(f"expected a folder with the {what} but got {actual} ({folder}). Check the path.")
    if not path.is_file():
        raise CommandError(
            f"expected the {what}'s config.json but got a folder without one ({folder}). "
            "Give the folder that holds config.json and the .safetensors file."
        )
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise CommandError(f"expected JSON but got {error} ({path}). Download the file again.") from error
    if not isinstance(config, dict):
        raise CommandError(
            f"expected a JSON object but got a {type(config).__name__} ({path}). Download it again."
        )
    return config


def read_weights(folder: Path, names: Iterable[str], what: str) -> tuple[dict[str, Tensor], Path]:
    """The tensors of the first of `names` that the folder holds, and that file's path."""
    candidates = [folder / name for name in names]
    path = next((candidate for candidate in candidates if candidate.is_file()), None)
    if path is None:
        wanted = " or ".join(candidate.name for candidate in candidates)
        found = ", ".join(sorted(item.name for item in folder.iterdir())[:SHOWN_KEYS]) or "an empty folder"
        raise CommandError(
            f"expected {wanted} of the {what} but got {found} ({folder}). "
            "Download the safetensors file; pickled .bin and .pt files are not read."
        )
    try:
        return load_file(path), path
    except (SafetensorError, OSError) as error:
        raise CommandError(
            f"expected a whole safetensors file but got {error} ({path}). Download the {what} again."
        ) from error


def load_strictly(model: nn.Module, state: Mapping[str, Tensor], path: Path, what: str) -> None:
    """Fill the model with exactly its own keys and shapes, all finite; `state` may be in any float type."""
    expected = model.state_dict()
    missing = sorted(expected.keys() - state.keys())
    unexpected = sorted(state.keys() - expected.keys())
    if missing or unexpected:
        raise CommandError(
            f"expected the {len(expected)} tensors of the {what} but got {len(state)}, "
            f"missing {_shorten(missing)}, unexpected {_shorten(unexpected)} ({path}). "
            f"Check that this file is the {what} and belongs to the config.json beside it."
        )
    for key, tensor in state.items():
        if tensor.shape != expected[key].shape:
            raise CommandError(
                f"expected shape {tuple(expected[key].shape)} but got {tuple(tensor.shape)} ({path}, {key}). "
                f"Use the config.json that belongs to these weights."
            )
    check_finite(state.items(), str(path), what)
    model.load_state_dict(state)


def check_finite(tensors: Iterable[tuple[str, Tensor]], where: str, what: str) -> None:
    """NaN or infinite weights give black or grey video after minutes of work; find them now."""
    for key, tensor in tensors:
        # The extremes are NaN if any value is, and need no mask as large as the tensor.
        if tensor.is_floating_point() and tensor.numel() and not _is_finite(tensor):
            raise CommandError(
                f"expected finite weights but got NaN or infinity in the {what} ({where}, {key}). "
                "Download the file again, or convert it again from a good one."
            )


def _is_finite(tensor: Tensor) -> bool:
    low, high = torch.aminmax(tensor)
    return bool(torch.isfinite(low) & torch.isfinite(high))


def _shorten(keys: list[str]) -> str:
    if not keys:
        return "none"
    more = f" and {len(keys) - SHOWN_KEYS} more" if len(keys) > SHOWN_KEYS else ""
    return ", ".join(keys[:SHOWN_KEYS]) + more
