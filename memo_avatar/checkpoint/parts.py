"""Where a checkpoint's four parts are: upstream's folders, or our single file. Headers and configs only."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..files.config_json import WEIGHTS_NAME, read_config
from ..files.foreign import CheckpointError, counted, listed
from ..files.header import StoredTensor, WeightsFile, read_header
from ..files.json_file import parse_json
from .kinds import PARTS, explain_file, explain_folder, explain_missing_weights, explain_part, identify

SHOWN_KEYS = 10


@dataclass(frozen=True)
class Part:
    """One net's share of a checkpoint: its stored tensors and its config as it was written."""

    file: WeightsFile
    prefix: str
    config: Mapping[str, Any]

    @property
    def tensors(self) -> dict[str, StoredTensor]:
        """By the net's own keys."""
        found = self.file.tensors.items()
        return {name[len(self.prefix) :]: stored for name, stored in found if name.startswith(self.prefix)}

    @property
    def shapes(self) -> dict[str, tuple[int, ...]]:
        return {key: stored.shape for key, stored in self.tensors.items()}


def find_parts(path: Path) -> dict[str, Part]:
    """The parts of the folder or single file at ``path``, in the order of ``PARTS``."""
    return _folder_parts(path) if path.is_dir() else _file_parts(path)


def metadata_of(configs: Mapping[str, Mapping[str, Any]]) -> dict[str, str]:
    """The metadata of a single file: what :func:`find_parts` reads back."""
    return {"format": "pt"} | {f"{name}.config": json.dumps(config) for name, config in configs.items()}


def _folder_parts(path: Path) -> dict[str, Part]:
    missing = [name for name in PARTS if not (path / name).is_dir()]
    if missing:
        raise CheckpointError(
            f"expected the folders {', '.join(PARTS)} but got none named {' or '.join(missing)} ({path}). "
            f"{explain_folder(path)}"
        )
    found: dict[str, Part] = {}
    problems: dict[str, CheckpointError] = {}
    for name in PARTS:
        try:
            found[name] = _folder_part(path / name)
        except CheckpointError as error:
            problems[name] = error
    if problems:
        first, *others = problems
        rest = f" Also wrong: {', '.join(others)}." if others else ""
        raise CheckpointError(f"{problems[first]}{rest}") from problems[first]
    return found


def _folder_part(folder: Path) -> Part:
    weights = folder / WEIGHTS_NAME
    if not weights.is_file() and not weights.is_symlink():
        raise CheckpointError(
            f"expected {WEIGHTS_NAME} but got none ({folder}). {explain_missing_weights(folder)}"
        )
    return _checked(folder.name, Part(read_header(weights), "", read_config(folder)))


def _file_parts(path: Path) -> dict[str, Part]:
    if not os.path.lexists(path):
        raise CheckpointError(
            f"expected a MEMO folder or .safetensors file but got nothing there ({path}). Check the path."
        )
    file = read_header(path)
    keys = list(file.tensors)
    missing = [name for name in PARTS if not any(key.startswith(f"{name}.") for key in keys)]
    if missing:
        raise CheckpointError(
            f"expected keys of {', '.join(PARTS)} but got none of {' or '.join(missing)} "
            f"among {len(keys)}: {listed(keys, SHOWN_KEYS)} ({path}). {explain_file(keys)}"
        )
    foreign = [key for key in keys if key.split(".")[0] not in PARTS]
    if foreign:
        raise CheckpointError(
            f"expected only keys of {', '.join(PARTS)} but got {counted(len(foreign), 'other')}: "
            f"{listed(foreign, SHOWN_KEYS)} ({path}). {explain_file(keys)}"
        )
    return {name: _file_part(file, name) for name in PARTS}


def _file_part(file: WeightsFile, name: str) -> Part:
    entry = f"{name}.config"
    if entry not in file.metadata:
        raise CheckpointError(
            f"expected the config of {name} in the metadata but got none ({file.path}, {entry}). "
            "Another program saved this file and dropped it; convert MEMO's folder again."
        )
    config = parse_json(file.metadata[entry], f"{file.path}, {entry}")
    return _checked(name, Part(file, f"{name}.", config))


def _checked(name: str, part: Part) -> Part:
    """The same, if its tensors have the names of this net's."""
    keys = part.tensors
    if identify(keys) != f"MEMO's {name}":
        first = listed(keys, SHOWN_KEYS) or "none"
        raise CheckpointError(
            f"expected MEMO's {name} but got {len(keys)} tensors: {first} ({part.file.path}). "
            f"{explain_part(name, keys)}"
        )
    return part
