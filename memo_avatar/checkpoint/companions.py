"""Folders of other projects' models that MEMO needs (a VAE, wav2vec2): read and checked, never downloaded."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from torch import Tensor

from ..files.config_json import CONFIG_NAME, WEIGHTS_NAME, read_config
from ..files.foreign import CheckpointError
from ..files.weights_file import read_all
from ..voice.wav2vec2 import check_base_kind, plain_weights

_SHOWN = 10
# diffusers 0.18 renamed the middle attention's layers; the published sd-vae-ft-mse has the old names.
_OLD_ATTENTION = {".query.": ".to_q.", ".key.": ".to_k.", ".value.": ".to_v.", ".proj_attn.": ".to_out.0."}


def read_vae(folder: Path) -> tuple[dict[str, Any], dict[str, Tensor], Path]:
    """A diffusers AutoencoderKL folder -> its config, float32 weights by diffusers' names, and their file."""
    config, path = _find(folder, WEIGHTS_NAME, "VAE")
    found = (config.get("_class_name"), config.get("latent_channels"))
    if found != ("AutoencoderKL", 4):
        raise CheckpointError(
            f"expected an AutoencoderKL of 4 channels but got {found[0]} of {found[1]} "
            f"({folder / CONFIG_NAME}). Use the folder of stabilityai/sd-vae-ft-mse."
        )
    return config, _renamed(read_all(path)), path


def read_wav2vec2(folder: Path) -> tuple[dict[str, Any], dict[str, Tensor], Path]:
    """A folder of Wav2Vec2Model or Wav2Vec2ForCTC -> its config, float32 weights by our names, their file."""
    config, path = _find(folder, "model.safetensors", "wav2vec2 model")
    check_base_kind(config, folder / CONFIG_NAME)
    return config, plain_weights(read_all(path)), path


def _find(folder: Path, weights: str, what: str) -> tuple[dict[str, Any], Path]:
    """(config, path of the weights), or what is there instead."""
    if not folder.is_dir():
        actual = "a file" if folder.exists() else "nothing"
        raise CheckpointError(
            f"expected a folder with the {what} but got {actual} ({folder}). Check the path."
        )
    for name in (CONFIG_NAME, weights):
        if not (folder / name).is_file():
            found = ", ".join(sorted(item.name for item in folder.iterdir())[:_SHOWN]) or "an empty folder"
            raise CheckpointError(
                f"expected {name} of the {what} but got {found} ({folder}). "
                f"Give the folder that holds {CONFIG_NAME} and {weights}; pickles are not read."
            )
    return read_config(folder), folder / weights


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
