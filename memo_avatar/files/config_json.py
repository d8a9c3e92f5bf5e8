"""The two files of a model's folder, as diffusers names them, and reading the smaller one."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from .weights_file import CheckpointError

CONFIG_NAME = "config.json"
WEIGHTS_NAME = "diffusion_pytorch_model.safetensors"


def read_config(folder: Path) -> dict[str, Any]:
    """A folder's `config.json`."""
    path = folder / CONFIG_NAME
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise CheckpointError(
            f"expected a readable {CONFIG_NAME} but got: {error} ({folder}). Download it beside the weights."
        ) from error
    return parse_config(text, str(path))


def parse_config(text: str, where: str) -> dict[str, Any]:
    """The JSON object of a config file."""
    try:
        config = json.loads(text)
    except ValueError as error:
        raise CheckpointError(
            f"expected JSON but got: {error} ({where}). Download the file again."
        ) from error
    if not isinstance(config, dict):
        raise CheckpointError(
            f"expected a JSON object but got a {type(config).__name__} ({where}). Download the file again."
        )
    return config
