"""Counts the floating-point operations of MEMO at its real sizes, on the meta device: no weights, no GPU.

    python -m benchmarks.flops

Runs the product's own functions (the clip loop's conditions and denoiser) at 512x512, 16 frames and the
published channels. A multiply-add counts as two. Prints a table and, as the last line, one JSON document.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, TypeVar

import torch
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from memo_avatar.checkpoint.load import uninitialized
from memo_avatar.clips.conditions import VideoConditions
from memo_avatar.clips.denoiser import ClipDenoiser
from memo_avatar.clips.values import SamplingSettings
from memo_avatar.inputs import Portrait
from memo_avatar.model.config import (
    AudioProjectionConfig,
    ImageProjectionConfig,
    MemoConfig,
    ReferenceUNetConfig,
    UNet3DConfig,
)
from memo_avatar.model.nets import MemoModels, build_models
from memo_avatar.model.vae import SmallAutoencoder
from memo_avatar.timing import FPS, clip_spans
from memo_avatar.torch_ops import sdpa_attention

Result = TypeVar("Result")

SIZE = 512
WAV2VEC2_LAYERS, WAV2VEC2_WIDTH, WINDOW = 12, 768, 5
STEPS = 20
VAE_CONFIG = {
    "in_channels": 3,
    "out_channels": 3,
    "latent_channels": 4,
    "block_out_channels": [128, 256, 512, 512],
    "layers_per_block": 2,
    "norm_num_groups": 32,
}
"""Of stabilityai/sd-vae-ft-mse, MEMO's autoencoder."""

UPSTREAM_TFLOP = {"step_tflop": 59.6, "reference_next_clip_tflop": 25.8}
"""memoavatar/memo at commit a5aee30, counted the same way at the same sizes."""

UPSTREAM_STEP_TFLOP = {
    "spatial": 16.9 + 2.8,
    "audio": 13.4,
    "motion": 13.2,
    "ResNets": 11.0,
    "resampling": 2.4,
}
"""2.8 of the spatial transformers' share is a pass over the uncond half whose result upstream throws away."""

BOUNDS_TFLOP = {
    "step_tflop": 51.5,
    "cache_step_tflop": 0.515,
    "step_cond_only_tflop": 26.8,
    "reference_first_clip_tflop": 1.7,
    "reference_next_clip_tflop": 24.5,
}

CARDS_TFLOP_PER_SECOND = {
    "RTX 3070 (8 GB)": 40.6,
    "RTX 3080 (10 GB)": 59.5,
    "RTX 4080 (16 GB)": 97.5,
    "RTX 3090 (24 GB)": 71.2,
    "RTX 4090 (24 GB)": 165.2,
}
"""bf16 products summed in float32, dense, as NVIDIA's papers on GA102 and Ada say: twice the float32 rate."""

SPEECH_SECONDS = 4

_PARTS = {
    "spatial": re.compile(r"^UNet3D\.(\w+\.)*?attentions\.\d+$"),
    "audio": re.compile(r"^UNet3D\.(\w+\.)*?audio_modules\.\d+$"),
    "motion": re.compile(r"^UNet3D\.(\w+\.)*?motion_modules\.\d+$"),
    "ResNets": re.compile(r"^UNet3D\.(\w+\.)*?resnets\.\d+$"),
    "resampling": re.compile(r"^UNet3D\.(\w+\.)*?(down|up)samplers\.\d+$"),
}


def real_config() -> MemoConfig:
    """The sizes of the published checkpoint."""
    unet: dict[str, Any] = {
        "in_channels": 4,
        "block_out_channels": (320, 640, 1280, 1280),
        "layers_per_block": 2,
        "attention_levels": (True, True, True, False),
        "num_attention_heads": (8, 8, 8, 8),
        "cross_attention_dim": 768,
        "use_linear_projection": False,
    }
    return MemoConfig(
        diffusion_net=UNet3DConfig(**unet, audio_attention_dim=768),
        reference_net=ReferenceUNetConfig(**unet),
        image_proj=ImageProjectionConfig(embedding_dim=512, tokens=4, dim=768),
        audio_proj=AudioProjectionConfig(
            input_dim=WINDOW * WAV2VEC2_LAYERS * WAV2VEC2_WIDTH, hidden_dim=512, tokens=32, dim=768
        ),
    )


class MetaVAE:
    """The right shapes and no work: the autoencoder is counted apart."""

    def encode(self, pixels: Tensor) -> Tensor:
        return pixels.new_empty(pixels.shape[0], 4, pixels.shape[2] // 8, pixels.shape[3] // 8)

    def decode(self, latents: Tensor) -> Tensor:
        return latents.new_empty(latents.shape[0], 3, latents.shape[2] * 8, latents.shape[3] * 8)


@dataclass(frozen=True)
class Counts:
    """Teraflops of the work per step and per clip; ``parts`` splits a step by kind of layer.

    ``cache_step`` is what a step cache does in a skipped step: it watches the signal, compares it with the
    step before, and replays every branch by a line through two stored values.
    """

    step: float
    cache_step: float
    reference_first_clip: float
    reference_next_clip: float
    context_next_clip: float
    parts: Mapping[str, float]


def count(work: Callable[[], Result]) -> tuple[Result, dict[str, float]]:
    """The result of ``work`` and its teraflops by module; "Global" is all of it.

    Not in inference mode: there torch 2.4 hands over whole layers, which its counter does not know.
    """
    with FlopCounterMode(display=False) as counter:
        result = work()
    flops = {name: sum(by_op.values()) / 1e12 for name, by_op in counter.get_flop_counts().items()}
    return result, flops


@torch.no_grad()
def count_clips(models: MemoModels, settings: SamplingSettings) -> Counts:
    """Count one step, and what the first and a later clip need before their steps."""
    frames, latent = settings.frames_per_clip, SIZE // 8
    portrait = Portrait(torch.zeros(1, 3, SIZE, SIZE), torch.ones(1, 512))
    conditions = VideoConditions(models, MetaVAE(), portrait, settings)
    past_latents = torch.empty(settings.past_frames, 4, latent, latent, device="meta")
    audio = torch.empty(frames, WINDOW, WAV2VEC2_LAYERS, WAV2VEC2_WIDTH, device="meta")
    _, first = count(lambda: conditions.reference(conditions.plan(None), None))
    _, following = count(lambda: conditions.reference(conditions.plan(past_latents), past_latents))
    context, clip = count(lambda: conditions.clip(past_latents, None, audio, 0))
    denoiser = ClipDenoiser(models.diffusion_net, context, settings.branches, models.dtype)
    latents, timestep = torch.empty(1, 4, frames, latent, latent, device="meta"), torch.tensor(1000.0)
    _, step = count(lambda: denoiser(latents, timestep))
    signal, watching = count(lambda: denoiser.modulated_input(latents, timestep))
    # Elementwise work is not in the counter: |x - y| and |y| summed; then weight, add for every branch.
    replay = 4 * signal.numel() + 3 * latents.numel() * len(settings.branches)
    parts = {
        part: sum(flops for name, flops in step.items() if pattern.match(name))
        for part, pattern in _PARTS.items()
    }
    total_clip, total_following = clip["Global"], following["Global"]
    return Counts(
        step=step["Global"],
        cache_step=watching["Global"] + replay / 1e12,
        reference_first_clip=first["Global"],
        reference_next_clip=total_following,
        context_next_clip=total_clip - total_following,
        parts=parts,
    )


def measure() -> dict[str, Any]:
    """All counts of the real sizes, with guidance and without."""
    models = build_models(real_config(), operations=uninitialized, attention=sdpa_attention, device="meta")
    guided = count_clips(models, SamplingSettings())
    cond_only = count_clips(models, SamplingSettings(guidance_scale=1.0))
    encoding, decoding = count_vae()
    return {
        "step_tflop": guided.step,
        "cache_step_tflop": guided.cache_step,
        "step_cond_only_tflop": cond_only.step,
        "reference_first_clip_tflop": guided.reference_first_clip,
        "reference_next_clip_tflop": guided.reference_next_clip,
        "context_next_clip_tflop": guided.context_next_clip,
        "vae_encode_frame_tflop": encoding,
        "vae_decode_frame_tflop": decoding,
        "step_parts_tflop": dict(guided.parts),
    }


@torch.no_grad()
def count_vae() -> tuple[float, float]:
    """Teraflops of encoding and of decoding one frame."""
    plain: dict[str, Any] = {"dtype": torch.float32, "device": "meta"}
    vae = SmallAutoencoder(VAE_CONFIG, attention=sdpa_attention, operations=uninitialized, **plain)
    latents, encoding = count(lambda: vae.encode(torch.empty(1, 3, SIZE, SIZE, device="meta")))
    _, decoding = count(lambda: vae.decode(latents))
    return encoding["Global"], decoding["Global"]


def clip_factor(results: Mapping[str, Any], computed: float, frames: int = 16) -> float:
    """How many times less work a later clip is with so many of its 20 steps computed, all of it counted:
    past frames encoded, reference net, memory and context, steps, frames decoded.
    """
    vae = frames * (results["vae_encode_frame_tflop"] + results["vae_decode_frame_tflop"])
    beside = results["reference_next_clip_tflop"] + results["context_next_clip_tflop"] + vae
    step = results["step_tflop"]
    return (beside + STEPS * step) / (beside + computed * step)


def speech_tflop(results: Mapping[str, Any], computed: int, seconds: int = SPEECH_SECONDS) -> float:
    """Teraflops of a video with so many computed steps in every clip but the first, which teaches a cache and
    is computed in full.
    """
    settings = SamplingSettings()
    frames, step = settings.frames_per_clip, results["step_tflop"]
    later = len(clip_spans(seconds * FPS, frames)) - 1
    context = results["context_next_clip_tflop"]
    encode, decode = results["vae_encode_frame_tflop"], frames * results["vae_decode_frame_tflop"]
    first = results["reference_first_clip_tflop"] + context + encode + decode + STEPS * step
    each = results["reference_next_clip_tflop"] + context + frames * encode + decode + computed * step
    return first + later * each


def print_speech(results: Mapping[str, Any]) -> None:
    """What no card can be faster than: the counted work at the rate that its maker names."""
    print(f"{SPEECH_SECONDS} s of speech, seconds at the least, by computed steps")
    print(f"{'':<34}{20:>8}{10:>8}{6:>8}")
    for card, rate in CARDS_TFLOP_PER_SECOND.items():
        times = (speech_tflop(results, computed) / rate for computed in (20, 10, 6))
        print(f"{card:<34}" + "".join(f"{time:>8.0f}" for time in times))
    print()


def print_table(results: Mapping[str, Any]) -> None:
    """Ours beside upstream's, with the bounds that the tests hold."""
    print(f"MEMO at {SIZE}x{SIZE}, 16 frames, real sizes; teraflops (a multiply-add is two)\n")
    print(f"{'':<34}{'ours':>8}{'bound':>8}{'upstream':>10}")
    for name, value in results.items():
        if isinstance(value, float):
            bound, upstream = BOUNDS_TFLOP.get(name, ""), UPSTREAM_TFLOP.get(name, "")
            label = name.removesuffix("_tflop").replace("_", " ")
            print(f"{label:<34}{value:>8.2f}{bound!s:>8}{upstream!s:>10}")
    for part, value in results["step_parts_tflop"].items():
        print(f"{'  step: ' + part:<34}{value:>8.2f}{'':>8}{UPSTREAM_STEP_TFLOP[part]:>10.1f}")
    print(f"\n{'computed steps of a later clip':<34}{'steps':>8}{'clip':>8}  times less work")
    for computed in (20, 13, 10, 8, 7, 6, 5, 4):
        print(f"{computed:<34}{STEPS / computed:>8.2f}{clip_factor(results, computed):>8.2f}")
    print()


def main() -> None:
    results = measure()
    print_table(results)
    print_speech(results)
    print(json.dumps(results))


if __name__ == "__main__":
    main()
