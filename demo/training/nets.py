"""The demo's four nets: sizes, initialisation, and saving in upstream's layout."""

import json
import math
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from memo_avatar.model.config import (
    AudioProjectionConfig,
    ImageProjectionConfig,
    MemoConfig,
    ReferenceUNetConfig,
    UNet3DConfig,
)
from memo_avatar.model.nets import MemoModels
from memo_avatar.model.projections import AudioProjection, ImageProjection
from memo_avatar.model.reference_unet import ReferenceUNet
from memo_avatar.model.unet3d import UNet3D
from memo_avatar.torch_ops import sdpa_attention

CHANNELS = (32, 64, 64, 64)
HEADS = 2
GROUPS = 8
WIDTH = 32  # of face and audio tokens
AUDIO_TOKENS = 4
AUDIO_INPUT = 5 * 3 * 48  # window x layers x width of the demo's wav2vec2
PARTS = ("diffusion_net", "reference_net", "image_proj", "audio_proj")

_SHARED = {
    "act_fn": "silu",
    "attention_head_dim": HEADS,
    "block_out_channels": list(CHANNELS),
    "center_input_sample": False,
    "class_embed_type": None,
    "cross_attention_dim": WIDTH,
    "downsample_padding": 1,
    "dual_cross_attention": False,
    "flip_sin_to_cos": True,
    "freq_shift": 0,
    "in_channels": 4,
    "layers_per_block": 1,
    "mid_block_scale_factor": 1,
    "norm_eps": 1e-05,
    "norm_num_groups": GROUPS,
    "num_class_embeds": None,
    "only_cross_attention": False,
    "out_channels": 4,
    "resnet_time_scale_shift": "default",
    "sample_size": None,
    "upcast_attention": False,
    "use_linear_projection": False,
}


def _blocks(suffix: str) -> dict[str, Any]:
    down, up = f"CrossAttnDownBlock{suffix}", f"CrossAttnUpBlock{suffix}"
    return {
        "down_block_types": [down, down, down, f"DownBlock{suffix}"],
        "mid_block_type": f"UNetMidBlock{suffix}CrossAttn",
        "up_block_types": [f"UpBlock{suffix}", up, up, up],
    }


PART_CONFIGS: dict[str, dict[str, Any]] = {
    "diffusion_net": {
        "_class_name": "UNet3DConditionModel",
        **_SHARED,
        **_blocks("3D"),
        "audio_attention_dim": WIDTH,
        "emo_drop_rate": 0.05,
        "motion_module_kwargs": {
            "attention_block_types": ["Temporal_Self", "Temporal_Self"],
            "num_attention_heads": 8,
            "num_transformer_block": 1,
            "temporal_attention_dim_div": 1,
            "temporal_position_encoding": True,
            "temporal_position_encoding_max_len": 32,
        },
        "motion_module_resolutions": [1, 2, 4, 8],
        "unet_use_cross_frame_attention": None,
        "unet_use_temporal_attention": None,
        "use_inflated_groupnorm": True,
    },
    "reference_net": {
        "_class_name": "UNet2DConditionModel",
        **_SHARED,
        **_blocks("2D"),
        "addition_embed_type": None,
        "attention_type": "default",
        "conv_in_kernel": 3,
        "conv_out_kernel": 3,
        "dropout": 0.0,
        "encoder_hid_dim": None,
        "num_attention_heads": None,
        "time_embedding_type": "positional",
        "transformer_layers_per_block": 1,
    },
    "image_proj": {
        "_class_name": "ImageProjModel",
        "cross_attention_dim": WIDTH,
        "clip_embeddings_dim": 512,
        "clip_extra_context_tokens": 4,
    },
    "audio_proj": {
        "_class_name": "AudioProjModel",
        "seq_len": 5,
        "blocks": 3,
        "channels": 48,
        "intermediate_dim": 128,
        "output_dim": WIDTH,
        "context_tokens": AUDIO_TOKENS,
    },
}


def memo_config() -> MemoConfig:
    """The sizes of the demo model."""
    unet: dict[str, Any] = {
        "in_channels": 4,
        "block_out_channels": CHANNELS,
        "layers_per_block": 1,
        "attention_levels": (True, True, True, False),
        "num_attention_heads": (HEADS,) * 4,
        "cross_attention_dim": WIDTH,
        "use_linear_projection": False,
        "norm_num_groups": GROUPS,
    }
    return MemoConfig(
        diffusion_net=UNet3DConfig(**unet, audio_attention_dim=WIDTH),
        reference_net=ReferenceUNetConfig(**unet),
        image_proj=ImageProjectionConfig(embedding_dim=512, tokens=4, dim=WIDTH),
        audio_proj=AudioProjectionConfig(
            input_dim=AUDIO_INPUT, hidden_dim=128, tokens=AUDIO_TOKENS, dim=WIDTH
        ),
    )


def build_models(seed: int = 0) -> MemoModels:
    """Freshly initialised nets: torch's defaults, every branch that ends in a residual starting at zero."""
    torch.manual_seed(seed)
    config = memo_config()
    nets: dict[str, Any] = {"operations": nn, "attention": sdpa_attention}
    models = MemoModels(
        diffusion_net=UNet3D(config.diffusion_net, **nets),
        reference_net=ReferenceUNet(config.reference_net, **nets),
        image_proj=ImageProjection(config.image_proj, operations=nn),
        audio_proj=AudioProjection(config.audio_proj, operations=nn),
        config=config,
    )
    for part in PARTS:
        for name, module in getattr(models, part).named_modules():
            if name.rsplit(".", 1)[-1] in ("conv2", "proj_out"):
                nn.init.zeros_(module.weight)
                nn.init.zeros_(module.bias)
            if name.endswith("embedding_table"):
                nn.init.normal_(module.weight, std=0.5)
            if name.endswith("pos_encoder"):
                module.pe.copy_(_positions(*module.pe.shape[1:]))
    # Cartoon faces have no embedding: the reference image says who it is, whatever embedding comes.
    nn.init.zeros_(models.image_proj.proj.weight)
    models.image_proj.proj.weight.requires_grad_(False)
    return models


def _positions(length: int, dim: int) -> Tensor:
    """The sinusoidal table of Vaswani et al. 2017, sine and cosine interleaved, (1, length, dim)."""
    angles = torch.arange(length)[:, None] * torch.exp(torch.arange(0, dim, 2) * (-math.log(10_000.0) / dim))
    return torch.stack([angles.sin(), angles.cos()], dim=-1).flatten(1)[None]


def parts(models: MemoModels) -> nn.ModuleDict:
    """The four nets as one module, for optimisers and training checkpoints."""
    return nn.ModuleDict({part: getattr(models, part) for part in PARTS})


def save_checkpoint(models: MemoModels, folder: Path, dtype: torch.dtype = torch.float16) -> None:
    """Write the four parts as `<part>/config.json` and `<part>/diffusion_pytorch_model.safetensors`."""
    for part in PARTS:
        target = folder / part
        target.mkdir(parents=True, exist_ok=True)
        (target / "config.json").write_text(json.dumps(PART_CONFIGS[part], indent=2, sort_keys=True) + "\n")
        weights = {
            k: v.detach().to("cpu", dtype).contiguous() for k, v in getattr(models, part).state_dict().items()
        }
        save_file(weights, target / "diffusion_pytorch_model.safetensors", metadata={"format": "pt"})
