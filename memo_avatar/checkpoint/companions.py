"""What lies beside a checkpoint and what it recommends, found and checked once for the command and the nodes.

A folder's companions lie in it, a single file's beside it. VAE and wav2vec2 are folders as other projects
publish them: read, never downloaded.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ..files.config_json import CONFIG_NAME, WEIGHTS_NAME, read_config
from ..files.foreign import CheckpointError, listed, number, numbers, shown
from ..files.header import DTYPES, WeightsFile, read_header
from ..files.json_file import read_json
from ..files.limits import MAX_CONFIG_BYTES
from ..files.published_models import FACES
from ..files.weights_file import check_shapes, read_tensors
from ..inputs import GUIDANCE_SCALE, SIZE, VAE_STRIDE
from ..model.vae import SmallAutoencoder
from ..torch_ops import sdpa_attention
from ..voice.wav2vec2 import Wav2Vec2, check_base_kind, plain_name, plain_shapes, plain_weights
from .load import infer_config
from .parts import find_parts

SETTINGS_NAME = "demo.json"
CALIBRATION_NAME = "calibration.json"
VAE_FOLDER, WAV2VEC2_FOLDER = "vae", "wav2vec2"
VAE_SCALE = 0.18215  # latents of Stable Diffusion 1.5; other families' VAEs of four channels have others
LARGEST_SIZE = 4096
LARGEST_GUIDANCE = 100.0

_SHOWN = 10
_WIDEST, _MOST_LEVELS = 8192, 8
# diffusers 0.18 renamed the middle attention's layers; the published sd-vae-ft-mse has the old names.
_OLD_ATTENTION = {".query.": ".to_q.", ".key.": ".to_k.", ".value.": ".to_v.", ".proj_attn.": ".to_out.0."}


@dataclass(frozen=True)
class Settings:
    """What a checkpoint recommends; MEMO's own where it says nothing.

    ``face_embeddings``: whether it has learned whose face it sees. ``photographs``: whether it knows more
    than drawn faces.
    """

    guidance_scale: float = GUIDANCE_SCALE
    size: int = SIZE
    face_embeddings: bool = True
    photographs: bool = True


@dataclass(frozen=True)
class CompanionModel:
    """A model beside a checkpoint: its config, in range, and float32 weights that fit it."""

    config: Mapping[str, Any]
    state: dict[str, Tensor]


def home(checkpoint: Path) -> Path:
    """The folder of a checkpoint's companions."""
    return checkpoint if checkpoint.is_dir() else checkpoint.parent


def read_settings(checkpoint: Path) -> Settings:
    """What the checkpoint's demo.json says, if it has one."""
    path = home(checkpoint) / SETTINGS_NAME
    if not path.is_file():
        return Settings()
    values = read_json(path, most=MAX_CONFIG_BYTES, advice="Repair or delete the file.")
    size = number(values, "size", SIZE, VAE_STRIDE, LARGEST_SIZE, path)
    if size % VAE_STRIDE:
        raise CheckpointError(
            f"expected a size divisible by {VAE_STRIDE} but got {size} ({path}). Repair or delete the file."
        )
    return Settings(
        guidance_scale=number(values, "guidance_scale", GUIDANCE_SCALE, 0.0, LARGEST_GUIDANCE, path),
        size=size,
        face_embeddings=bool(number(values, "face_embeddings", 1, 0, 1, path)),
        photographs=bool(number(values, "photographs", 1, 0, 1, path)),
    )


def find_calibration(checkpoint: Path) -> Path | None:
    """The checkpoint's own calibration, if it has one."""
    path = home(checkpoint) / CALIBRATION_NAME
    return path if path.is_file() else None


def face_folders(places: Iterable[Path]) -> list[Path]:
    """Where the face models' ONNX files may lie in these places: MEMO's repository has them under misc."""
    return [folder / FACES for place in places for folder in (place, place / "misc")]


def check_files(checkpoint: Path, companions: Iterable[str] = ()) -> None:
    """Raise unless the checkpoint and these of its companions can be what they should, as far as headers and
    configs tell: a matter of milliseconds, before anything is loaded. A companion that is not there is not
    missed.

    Raises:
        CheckpointError: what is wrong with a file.
    """
    infer_config(checkpoint, find_parts(checkpoint))
    read_settings(checkpoint)
    looks = {VAE_FOLDER: _vae_files, WAV2VEC2_FOLDER: _wav2vec2_files}
    for name in companions:
        folder = home(checkpoint) / name
        if folder.is_dir():
            looks[name](folder)


def read_vae(folder: Path) -> CompanionModel:
    """A diffusers AutoencoderKL folder; its weights have diffusers' names."""
    config, file = _vae_files(folder)
    names = {stored: _new_name(stored) for stored in _weights(file)}
    shapes = {new: _new_shape(new, file.tensors[stored].shape) for stored, new in names.items()}
    net = SmallAutoencoder(config, attention=sdpa_attention, operations=nn, device="meta")
    check_shapes(net, shapes, file.path, "VAE")
    state = read_tensors(file, names, torch.float32)
    return CompanionModel(config, {name: tensor.reshape(shapes[name]) for name, tensor in state.items()})


def read_wav2vec2(folder: Path) -> CompanionModel:
    """A folder of Wav2Vec2Model or Wav2Vec2ForCTC; its weights have our names."""
    config, file = _wav2vec2_files(folder)
    names = {stored: plain for stored in _weights(file) if (plain := plain_name(stored))}
    shapes = plain_shapes({plain: file.tensors[stored].shape for stored, plain in names.items()})
    net = Wav2Vec2(config, attention=sdpa_attention, operations=nn, device="meta")
    check_shapes(net, shapes, file.path, "wav2vec2 model")
    return CompanionModel(config, plain_weights(read_tensors(file, names, torch.float32)))


def _vae_files(folder: Path) -> tuple[dict[str, Any], WeightsFile]:
    """Config, in range, and header of the weights."""
    config, path = _find(folder, WEIGHTS_NAME, "VAE")
    return _vae_config(config, folder / CONFIG_NAME), read_header(path)


def _wav2vec2_files(folder: Path) -> tuple[dict[str, Any], WeightsFile]:
    """The same."""
    config, path = _find(folder, "model.safetensors", "wav2vec2 model")
    check_base_kind(config, folder / CONFIG_NAME)
    return _wav2vec2_config(config, folder / CONFIG_NAME), read_header(path)


def _find(folder: Path, weights: str, what: str) -> tuple[dict[str, Any], Path]:
    """(config, path of the weights), or what is there instead."""
    if not folder.is_dir():
        actual = "a file" if folder.exists() else "nothing"
        raise CheckpointError(
            f"expected a folder with the {what} but got {actual} ({folder}). Check the path."
        )
    for name in (CONFIG_NAME, weights):
        if not (folder / name).is_file() and not (folder / name).is_symlink():
            first = listed(sorted(item.name for item in folder.iterdir()), _SHOWN)
            raise CheckpointError(
                f"expected {name} of the {what} but got {first or 'an empty folder'} ({folder}). "
                f"Put {CONFIG_NAME} and {weights} into one folder; pickles are not read."
            )
    return read_config(folder), folder / weights


def _weights(file: WeightsFile) -> list[str]:
    """Tensors of weights: a counter or a mask among them is none."""
    return [name for name, stored in file.tensors.items() if stored.dtype in DTYPES]


def _vae_config(config: Mapping[str, Any], where: Path) -> dict[str, Any]:
    """What `SmallAutoencoder` and diffusers need, in range."""
    found = (config.get("_class_name"), config.get("latent_channels"))
    scale = config.get("scaling_factor", VAE_SCALE)
    if found != ("AutoencoderKL", 4) or scale != VAE_SCALE:
        raise CheckpointError(
            f"expected an AutoencoderKL of 4 channels and scale {VAE_SCALE} but got {shown(found[0])} of "
            f"{shown(found[1])} and {shown(scale)} ({where}). Use the folder of stabilityai/sd-vae-ft-mse."
        )
    widths = numbers(config, "block_out_channels", 1, _WIDEST, where, most=_MOST_LEVELS)
    groups = number(config, "norm_num_groups", 32, 1, _WIDEST, where)
    _check_divides("norm_num_groups", groups, widths, where)
    return {
        "in_channels": number(config, "in_channels", 3, 3, 3, where),
        "out_channels": number(config, "out_channels", 3, 3, 3, where),
        "latent_channels": 4,
        "block_out_channels": list(widths),
        "down_block_types": ["DownEncoderBlock2D"] * len(widths),
        "up_block_types": ["UpDecoderBlock2D"] * len(widths),
        "layers_per_block": number(config, "layers_per_block", 1, 1, 16, where),
        "norm_num_groups": groups,
        "force_upcast": bool(number(config, "force_upcast", 1, 0, 1, where)),
    }


def _wav2vec2_config(config: Mapping[str, Any], where: Path) -> dict[str, Any]:
    """What `Wav2Vec2` needs, in range."""
    width = number(config, "hidden_size", None, 1, _WIDEST, where)
    groups = number(config, "num_conv_pos_embedding_groups", None, 1, _WIDEST, where)
    heads = number(config, "num_attention_heads", None, 1, _WIDEST, where)
    for name, count in (("num_conv_pos_embedding_groups", groups), ("num_attention_heads", heads)):
        _check_divides(name, count, (width,), where)
    convs = {
        name: list(numbers(config, name, 1, most, where, most=16))
        for name, most in (("conv_dim", _WIDEST), ("conv_kernel", 64), ("conv_stride", 64))
    }
    if len({len(values) for values in convs.values()}) != 1:
        raise CheckpointError(
            f"expected as many kernels and strides as convolutions but got {convs} ({where}). "
            "Download the file again."
        )
    return {
        **convs,
        "conv_bias": bool(number(config, "conv_bias", 0, 0, 1, where)),
        "hidden_size": width,
        "intermediate_size": number(config, "intermediate_size", None, 1, 4 * _WIDEST, where),
        "layer_norm_eps": number(config, "layer_norm_eps", 1e-5, 1e-12, 1.0, where),
        "num_attention_heads": heads,
        "num_conv_pos_embeddings": number(config, "num_conv_pos_embeddings", None, 1, 1024, where),
        "num_conv_pos_embedding_groups": groups,
        "num_hidden_layers": number(config, "num_hidden_layers", None, 1, 128, where),
    }


def _check_divides(name: str, count: int, widths: Iterable[int], where: Path) -> None:
    for width in widths:
        if width % count:
            raise CheckpointError(
                f"expected {name} to divide {width} but got {count} ({where}). Download the file again."
            )


def _new_name(key: str) -> str:
    """Old names of the attention's layers -> today's."""
    if ".attentions." in key:
        for old, new in _OLD_ATTENTION.items():
            key = key.replace(old, new)
    return key


def _new_shape(name: str, shape: tuple[int, ...]) -> tuple[int, ...]:
    """The old attention's 1x1 convolutions are linear layers now."""
    return shape[:2] if ".attentions." in name and shape[2:] == (1, 1) else shape
