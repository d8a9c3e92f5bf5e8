"""The two files of a model's folder, as diffusers names them, and reading the smaller one."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from .json_file import read_json
from .limits import MAX_CONFIG_BYTES

CONFIG_NAME = "config.json"
WEIGHTS_NAME = "diffusion_pytorch_model.safetensors"


def read_config(folder: Path) -> dict[str, Any]:
    """A folder's `config.json`."""
    return read_json(folder / CONFIG_NAME, most=MAX_CONFIG_BYTES)
