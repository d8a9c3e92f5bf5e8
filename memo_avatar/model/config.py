"""Sizes of MEMO's four nets, read from the weights and checked against the checkpoint's config files.

Upstream's ``image_proj`` and ``audio_proj`` configs carry no sizes, so the shapes of the weights are the
truth. What shapes cannot tell (head counts, group counts, epsilons) comes from the config, with upstream's
values as defaults.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

Shapes = Mapping[str, tuple[int, ...]]

_UNET_LEVELS = 4
_MOST_LAYERS = 16  # in a block; MEMO has up to 3, and the nets are built from what the names say
_MOST_HEADS = 1024
_FIXED_UNET_OPTIONS: dict[str, tuple[Any, ...]] = {
    # Options of upstream's classes that change what is computed; MEMO uses one value of each.
    "act_fn": ("silu", "swish"),
    "addition_embed_type": (None,),
    "attention_type": ("default",),
    "center_input_sample": (False,),
    "class_embed_type": (None,),
    "conv_in_kernel": (3,),
    "downsample_padding": (1,),
    "dual_cross_attention": (False,),
    "encoder_hid_dim": (None,),
    "flip_sin_to_cos": (True,),
    "freq_shift": (0,),
    "mid_block_scale_factor": (1,),
    "num_class_embeds": (None,),
    "only_cross_attention": (False,),
    "resnet_time_scale_shift": ("default",),
    "time_embedding_type": ("positional",),
    "transformer_layers_per_block": (1,),
    "unet_use_temporal_attention": (None, False),
    "use_inflated_groupnorm": (True,),
}


class ConfigError(ValueError):
    """A checkpoint whose config and weights do not describe a MEMO net."""


@dataclass(frozen=True)
class UNetConfig:
    """What the reference net and the diffusion net share. Block order is upstream's: down 0..3, mid, up 0..3.

    ``attention_levels[i]`` says whether down block ``i`` (and its mirror) has spatial attention;
    ``num_attention_heads[i]`` is what upstream's config calls ``attention_head_dim``.
    """

    in_channels: int
    block_out_channels: tuple[int, ...]
    layers_per_block: int
    attention_levels: tuple[bool, ...]
    num_attention_heads: tuple[int, ...]
    cross_attention_dim: int
    use_linear_projection: bool
    norm_num_groups: int = 32
    norm_eps: float = 1e-5


@dataclass(frozen=True)
class ReferenceUNetConfig(UNetConfig):
    """Sizes of the reference net (upstream ``memo/models/unet_2d_condition.py``)."""

    @classmethod
    def infer(cls, config: Mapping[str, Any], shapes: Shapes) -> ReferenceUNetConfig:
        """Read the sizes from ``shapes``; raise :class:`ConfigError` where ``config`` disagrees."""
        return cls(**_infer_unet(config, shapes, "reference_net"))


@dataclass(frozen=True)
class UNet3DConfig(UNetConfig):
    """Sizes of the diffusion net (upstream ``memo/models/unet_3d.py``).

    ``motion_levels[i]`` says whether down block ``i`` and its mirror have motion modules (the mid block
    always has); ``num_emotions`` counts the rows of the emotion table, the null class included;
    ``max_frames`` is the length of the position table, hence of a clip.
    """

    out_channels: int = 4
    audio_attention_dim: int = 768
    motion_levels: tuple[bool, ...] = (True, True, True, True)
    motion_num_attention_heads: int = 8
    motion_num_transformer_blocks: int = 1
    motion_num_attentions: int = 2
    num_emotions: int = 10
    max_frames: int = 32

    @classmethod
    def infer(cls, config: Mapping[str, Any], shapes: Shapes) -> UNet3DConfig:
        """Read the sizes from ``shapes``; raise :class:`ConfigError` where ``config`` disagrees."""
        part = "diffusion_net"
        sizes = _infer_unet(config, shapes, part)
        audio = "mid_block.audio_modules.0.transformer_blocks.0"
        motion = "mid_block.motion_modules.0.temporal_transformer.transformer_blocks"
        table = _shape(shapes, f"{audio}.norm1.class_embedder.embedding_table.weight", part)
        options = config.get("motion_module_kwargs") or {}
        if not isinstance(options, Mapping):
            raise ConfigError(
                f"expected motion_module_kwargs to be an object but got {options!r:.60} ({part} config). "
                "Download the config again."
            )
        inferred = cls(
            **sizes,
            out_channels=_shape(shapes, "conv_out.weight", part)[0],
            audio_attention_dim=_shape(shapes, f"{audio}.audio_attn1.to_q.weight", part)[1],
            motion_levels=tuple(
                _has(shapes, f"down_blocks.{i}.motion_modules.") for i in range(_UNET_LEVELS)
            ),
            motion_num_attention_heads=_whole(options, "num_attention_heads", 8, part),
            motion_num_transformer_blocks=_count(shapes, motion),
            motion_num_attentions=_count(shapes, f"{motion}.0.attention_blocks"),
            num_emotions=table[0],
            max_frames=_shape(shapes, f"{motion}.0.attention_blocks.0.pos_encoder.pe", part)[1],
        )
        _agree(config, "out_channels", inferred.out_channels, part)
        _agree(config, "audio_attention_dim", inferred.audio_attention_dim, part)
        _agree(options, "num_transformer_block", inferred.motion_num_transformer_blocks, part)
        _agree(options, "temporal_position_encoding_max_len", inferred.max_frames, part)
        _agree(options, "temporal_attention_dim_div", 1, part)
        return inferred


@dataclass(frozen=True)
class ImageProjectionConfig:
    """Face embedding -> ``tokens`` tokens of width ``dim`` (upstream ``memo/models/image_proj.py``)."""

    embedding_dim: int
    tokens: int
    dim: int

    @classmethod
    def infer(cls, config: Mapping[str, Any], shapes: Shapes) -> ImageProjectionConfig:
        """Read the sizes from ``shapes``; raise :class:`ConfigError` where ``config`` disagrees."""
        part = "image_proj"
        out_features, embedding_dim = _shape(shapes, "proj.weight", part)
        dim = _shape(shapes, "norm.weight", part)[0]
        _agree(config, "clip_embeddings_dim", embedding_dim, part)
        _agree(config, "cross_attention_dim", dim, part)
        _agree(config, "clip_extra_context_tokens", out_features // dim, part)
        return cls(embedding_dim=embedding_dim, tokens=out_features // dim, dim=dim)


@dataclass(frozen=True)
class AudioProjectionConfig:
    """A window of wav2vec2 states -> ``tokens`` tokens of width ``dim``.

    Upstream: ``memo/models/audio_proj.py``.
    Only the product window x blocks x channels is visible in the weights: ``input_dim``.
    """

    input_dim: int
    hidden_dim: int
    tokens: int
    dim: int

    @classmethod
    def infer(cls, config: Mapping[str, Any], shapes: Shapes) -> AudioProjectionConfig:
        """Read the sizes from ``shapes``; raise :class:`ConfigError` where ``config`` disagrees."""
        part = "audio_proj"
        hidden_dim, input_dim = _shape(shapes, "proj1.weight", part)
        out_features = _shape(shapes, "proj3.weight", part)[0]
        dim = _shape(shapes, "norm.weight", part)[0]
        _agree(config, "intermediate_dim", hidden_dim, part)
        _agree(config, "output_dim", dim, part)
        _agree(config, "context_tokens", out_features // dim, part)
        return cls(input_dim=input_dim, hidden_dim=hidden_dim, tokens=out_features // dim, dim=dim)


@dataclass(frozen=True)
class MemoConfig:
    """The four nets of one checkpoint; their widths must fit each other."""

    diffusion_net: UNet3DConfig
    reference_net: ReferenceUNetConfig
    image_proj: ImageProjectionConfig
    audio_proj: AudioProjectionConfig

    def __post_init__(self) -> None:
        net = self.diffusion_net
        _match(
            "reference_net block_out_channels", self.reference_net.block_out_channels, net.block_out_channels
        )
        _match("reference_net layers_per_block", self.reference_net.layers_per_block, net.layers_per_block)
        _match("image_proj width", self.image_proj.dim, net.cross_attention_dim)
        _match("audio_proj width", self.audio_proj.dim, net.audio_attention_dim)


def _match(what: str, got: Any, expected: Any) -> None:
    if got != expected:
        raise ConfigError(
            f"expected {what} to be {expected}, as in diffusion_net, but got {got} (configs). "
            "Take all parts from one MEMO checkpoint."
        )


def _infer_unet(config: Mapping[str, Any], shapes: Shapes, part: str) -> dict[str, Any]:
    for option, allowed in _FIXED_UNET_OPTIONS.items():
        if option in config and config[option] not in allowed:
            raise ConfigError(
                f"expected {option} to be {allowed[0]!r} but got {config[option]!r:.60} ({part} config). "
                "Take the config from MEMO's own folder: this one is of no MEMO network."
            )
    channels = tuple(
        _shape(shapes, f"down_blocks.{i}.resnets.0.conv1.weight", part)[0] for i in range(_UNET_LEVELS)
    )
    heads_key = "num_attention_heads" if config.get("num_attention_heads") else "attention_head_dim"
    heads = config.get(heads_key, 8)
    levels = heads if isinstance(heads, list) else [heads] * _UNET_LEVELS
    if len(levels) != _UNET_LEVELS:
        raise ConfigError(
            f"expected {heads_key} to be a number or {_UNET_LEVELS} of them but got {len(levels)} "
            f"({part} config). Download the config again."
        )
    heads = tuple(_whole({heads_key: count}, heads_key, 8, part) for count in levels)
    sizes: dict[str, Any] = {
        "in_channels": _shape(shapes, "conv_in.weight", part)[1],
        "block_out_channels": channels,
        "layers_per_block": _count(shapes, "down_blocks.0.resnets"),
        "attention_levels": tuple(_has(shapes, f"down_blocks.{i}.attentions.") for i in range(_UNET_LEVELS)),
        "num_attention_heads": heads,
        "cross_attention_dim": _shape(
            shapes, "mid_block.attentions.0.transformer_blocks.0.attn2.to_k.weight", part
        )[1],
        "use_linear_projection": len(_shape(shapes, "mid_block.attentions.0.proj_in.weight", part)) == 2,
        "norm_num_groups": _whole(config, "norm_num_groups", 32, part),
        "norm_eps": _epsilon(config, part),
    }
    for key in (
        "in_channels",
        "block_out_channels",
        "layers_per_block",
        "cross_attention_dim",
        "use_linear_projection",
    ):
        _agree(config, key, sizes[key], part)
    for count, width in zip(heads, channels, strict=True):
        _check_divides(heads_key, count, width, part)
        _check_divides("norm_num_groups", sizes["norm_num_groups"], width, part)
    return sizes


def _check_divides(key: str, count: int, width: int, part: str) -> None:
    if width % count:
        raise ConfigError(
            f"expected {key} to divide the width {width} of a block but got {count} ({part} config). "
            "Download the config again."
        )


def _whole(config: Mapping[str, Any], key: str, default: int, part: str) -> int:
    value = config.get(key, default)
    if type(value) is not int or not 1 <= value <= _MOST_HEADS:
        raise ConfigError(
            f"expected {key} to be a whole number from 1 to {_MOST_HEADS} but got {value!r:.40} "
            f"({part} config). Download the config again."
        )
    return value


def _epsilon(config: Mapping[str, Any], part: str) -> float:
    value = config.get("norm_eps", 1e-5)
    if type(value) is not float or not 0 < value < 1:
        raise ConfigError(
            f"expected norm_eps to lie between 0 and 1 but got {value!r:.40} ({part} config). "
            "Download the config again."
        )
    return value


def _agree(config: Mapping[str, Any], key: str, actual: Any, part: str) -> None:
    said = config.get(key)
    said = tuple(said) if isinstance(said, list) else said
    if said is not None and said != actual:
        raise ConfigError(
            f"expected {key} to be {actual}, as in the weights, but got {said!r:.60} ({part} config). "
            "Copy config and weights from one place: they come from different checkpoints."
        )


def _shape(shapes: Shapes, key: str, part: str) -> tuple[int, ...]:
    if key not in shapes:
        raise ConfigError(
            f"expected the key {key} but got {len(shapes)} keys without it ({part} weights). "
            f"Check that this file is MEMO's {part}."
        )
    return shapes[key]


def _has(shapes: Shapes, prefix: str) -> bool:
    return any(key.startswith(prefix) for key in shapes)


def _count(shapes: Shapes, prefix: str) -> int:
    pattern = re.compile(rf"{re.escape(prefix)}\.(\d+)\.")
    found = len({match.group(1) for key in shapes if (match := pattern.match(key))})
    if found > _MOST_LAYERS:
        raise ConfigError(
            f"expected at most {_MOST_LAYERS} layers but got {found} ({prefix}). "
            "Check which file it is: it is no MEMO network."
        )
    return found
