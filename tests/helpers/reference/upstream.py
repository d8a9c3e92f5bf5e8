"""Upstream's own `memo` package for the scripts beside this one: its nets, its pipeline, one clip of a video.

They run in an environment with its dependencies (diffusers 0.31, transformers 4.46, einops). xformers is
replaced by a stand-in that is never called: upstream's memory processor is pure torch, only its switch asks
for xformers.
"""

from __future__ import annotations

import json
import sys
import types
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor

WEIGHTS = "diffusion_pytorch_model.safetensors"


def import_upstream(checkout: Path) -> None:
    """Make `memo` importable without xformers."""
    import diffusers.utils.import_utils  # noqa: F401 - looks for the real xformers, so it comes first

    stand_in, ops = types.ModuleType("xformers"), types.ModuleType("xformers.ops")
    stand_in.ops = ops  # type: ignore[attr-defined]
    sys.modules.update({"xformers": stand_in, "xformers.ops": ops})
    sys.path.insert(0, str(checkout))


def make_unet(name: str, config: Mapping[str, Any]) -> Any:
    """`reference_net` or `diffusion_net` as its `config.json` says, freshly made."""
    from memo.models.unet_2d_condition import UNet2DConditionModel
    from memo.models.unet_3d import UNet3DConditionModel

    kinds = {"reference_net": UNet2DConditionModel, "diffusion_net": UNet3DConditionModel}
    return kinds[name].from_config(dict(config))


def read_config(folder: Path) -> dict[str, Any]:
    return json.loads((folder / "config.json").read_text(encoding="utf-8"))


def load_autoencoder(folder: Path) -> Any:
    from diffusers import AutoencoderKL

    vae = AutoencoderKL.from_config(read_config(folder))
    load_weights(vae, folder)
    return vae


def load_weights(net: Any, folder: Path) -> None:
    """The folder's weights into the net, computing in float32."""
    net.load_state_dict({key: value.float() for key, value in load_file(folder / WEIGHTS).items()})


def make_pipeline(nets: Mapping[str, Any]) -> Any:
    """Upstream's pipeline of `vae`, `reference_net`, `diffusion_net` and `image_proj`, with its memory on."""
    from diffusers import FlowMatchEulerDiscreteScheduler
    from memo.models.attention_processor import MemoryLinearAttnProcessor
    from memo.pipelines.video_pipeline import VideoPipeline

    for net in nets.values():
        net.eval().requires_grad_(False)
    for module in nets["diffusion_net"].modules():
        if getattr(module, "attention_mode", None) == "Temporal":
            module.set_processor(MemoryLinearAttnProcessor())
    pipeline = VideoPipeline(scheduler=FlowMatchEulerDiscreteScheduler(), **nets)
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


def run_clip(
    pipeline: Any,
    audio_tokens: Tensor,
    inputs: Mapping[str, Tensor],
    run: Mapping[str, Any],
    index: int,
    past: Tensor | None,
    generator: torch.Generator,
) -> Tensor:
    """Frames (1, 3, F, H, W) of clip `index`, called as upstream's inference.py does.

    `inputs` and `run` are a golden case's tensors and run.json; `past` are the frames of the clip before.
    """
    image, length = inputs["pixel_values"], run["frames_per_clip"]
    frames = image.repeat(run["past_frames"], 1, 1, 1)
    if past is not None:
        frames = past[0].permute(1, 0, 2, 3)[-run["past_frames"] :] * 2.0 - 1.0
    height, width = run["resolution"]
    return pipeline(
        ref_image=torch.cat([image, frames])[None],
        face_emb=inputs["face_emb"],
        audio_tensor=audio_tokens,
        audio_emotion=inputs["audio_emotion"][clip_span(inputs, run, index)],
        emotion_class_num=run["null_emotion"],
        width=width,
        height=height,
        video_length=length,
        num_inference_steps=run["num_inference_steps"],
        guidance_scale=run["guidance_scale"],
        generator=generator,
        is_new_audio=index == 0,
    ).videos


def clip_span(inputs: Mapping[str, Tensor], run: Mapping[str, Any], index: int) -> Tensor:
    """The rows of the voice that clip `index` speaks; a voice too short for it is repeated."""
    length = run["frames_per_clip"]
    return torch.arange(index * length, (index + 1) * length) % inputs["audio_emb"].shape[0]
