"""Folders of other projects' models that MEMO needs (a VAE, wav2vec2): read and checked, never downloaded."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from torch import Tensor

from .wav2vec2 import check_base_kind, plain_weights
from .weights_file import CheckpointError, read_all

_SHOWN = 10
# diffusers 0.18 renamed the middle attention's layers; the published sd-vae-ft-mse has the old names.
_OLD_ATTENTION = {".query.": ".to_q.", ".key.": ".to_k.", ".value.": ".to_v.", ".proj_attn.": ".to_out.0."}


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


def read_vae(folder: Path) -> tuple[dict[str, Any], dict[str, Tensor], Path]:
    """A diffusers AutoencoderKL folder -> its config, float32 weights by diffusers' names, and their file."""
    config, path = _find(folder, "diffusion_pytorch_model.safetensors", "VAE")
    found = (config.get("_class_name"), config.get("latent_channels"))
    if found != ("AutoencoderKL", 4):
        raise CheckpointError(
            f"expected an AutoencoderKL of 4 channels but got {found[0]} of {found[1]} "
            f"({folder / 'config.json'}). Use the folder of stabilityai/sd-vae-ft-mse."
        )
    return config, _renamed(read_all(path)), path


def read_wav2vec2(folder: Path) -> tuple[dict[str, Any], dict[str, Tensor], Path]:
    """A folder of Wav2Vec2Model or Wav2Vec2ForCTC -> its config, float32 weights by our names, their file."""
    config, path = _find(folder, "model.safetensors", "wav2vec2 model")
    check_base_kind(config, folder / "config.json")
    return config, plain_weights(read_all(path)), path


def _find(folder: Path, weights: str, what: str) -> tuple[dict[str, Any], Path]:
    """(config, path of the weights), or what is there instead."""
    if not folder.is_dir():
        actual = "a file" if folder.exists() else "nothing"
        raise CheckpointError(
            f"expected a folder with the {what} but got {actual} ({folder}). Check the path."
        )
    for name in ("config.json", weights):
        if not (folder / name).is_file():
            found = ", ".join(sorted(item.name for item in folder.iterdir())[:_SHOWN]) or "an empty folder"
            raise CheckpointError(
                f"expected {name} of the {what} but got {found} ({folder}). "
                f"Give the folder that holds config.json and {weights}; pickles are not read."
            )
    config = folder / "config.json"
    try:
        return parse_config(config.read_text(encoding="utf-8"), str(config)), folder / weights
    except (OSError, UnicodeDecodeError) as error:
        raise CheckpointError(
            f"expected a readable config.json but got: {error} ({folder}). Download it again."
        ) from error


def _renamed(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """Old names of the attention's layers -> today's; its 1x1 convolutions become linear layers."""
    renamed = {}
    for key, tensor in state.items():
        if ".attentions." in key:
            for old, new in _OLD_ATTENTION.items():
                key = key.replace(old, new)
            tensor = tensor[:, :, 0, 0] if tensor.ndim == 4 else tensor
        renamed[key] = tensor
    return renamed
