"""Makes a golden case at MEMO's published widths with upstream's own `memo` package: random weights, 128x128.

    python tests/helpers/reference/upstream_case.py UPSTREAM MICRO OUT

UPSTREAM is a checkout of memoavatar/memo, MICRO the stored case whose configs and autoencoder are taken, OUT
a new folder of some 10 GB, laid out as tests/goldens/README.md says, for tests/parity/check.py. The weights
are read where they lie in OUT's files, so that memory holds one net at most.
"""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from upstream import (
    WEIGHTS,
    clip_span,
    import_upstream,
    load_autoencoder,
    make_pipeline,
    make_unet,
    read_config,
    run_clip,
)

WIDTHS = {
    "block_out_channels": (320, 640, 1280, 1280),
    "layers_per_block": 2,
    "attention_head_dim": 8,
    "cross_attention_dim": 768,
}
RUN = {
    "guidance_scale": 3.5,
    "num_inference_steps": 2,
    "clips": 2,
    "frames_per_clip": 16,
    "past_frames": 16,
    "resolution": [128, 128],
    "null_emotion": 9,
}


def builders(micro: Path) -> dict[str, Callable[[], Any]]:
    """How each of the four nets is made at its published width."""
    from memo.models.audio_proj import AudioProjModel
    from memo.models.image_proj import ImageProjModel

    def unet(name: str, **sizes: Any) -> Any:
        return make_unet(name, read_config(micro / "checkpoint" / name) | WIDTHS | sizes)

    return {
        "reference_net": lambda: unet("reference_net"),
        "diffusion_net": lambda: unet("diffusion_net", audio_attention_dim=768),
        "image_proj": ImageProjModel,
        "audio_proj": AudioProjModel,
    }


def fill(net: nn.Module, generator: torch.Generator) -> None:
    """Random weights, none of them zero."""
    for name, tensor in net.named_parameters():
        with torch.no_grad():
            tensor.normal_(generator=generator)
            tensor.mul_(tensor[0].numel() ** -0.5 if tensor.ndim > 1 else 0.1)
            if tensor.ndim == 1 and name.endswith("weight"):
                tensor.add_(1)


def onto_disk(net: Any, folder: Path) -> Any:
    """The same net, its weights mapped from the checkpoint's file."""
    folder.mkdir(parents=True)
    net.save_config(folder)
    save_file(net.state_dict(), folder / WEIGHTS)
    net.load_state_dict(load_file(folder / WEIGHTS), assign=True)
    return net


def make_inputs(generator: torch.Generator) -> dict[str, Tensor]:
    """A picture of noise, a face, and a voice of random features."""
    frames, (height, width) = RUN["clips"] * RUN["frames_per_clip"], RUN["resolution"]
    return {
        "pixel_values": torch.rand(1, 3, height, width, generator=generator) * 2 - 1,
        "face_emb": torch.randn(1, 512, generator=generator),
        "audio_emb": torch.randn(frames, 5, 12, 768, generator=generator),
        "audio_emotion": torch.full((frames,), 3),
    }


def recorded(function: Callable[..., Any], keep: Callable[..., None]) -> Callable[..., Any]:
    """The function, after whose every call `keep(result, *arguments)` is called."""

    def call(*arguments: Any, **options: Any) -> Any:
        result = function(*arguments, **options)
        keep(result, *arguments)
        return result

    return call


def record(pipeline: Any, audio_proj: Any, inputs: dict[str, Tensor]) -> dict[str, Tensor]:
    """What upstream computes for the inputs, under the names of a golden file."""
    golden = dict(inputs)
    steps: list[Tensor] = []
    clip = 0
    pipeline.diffusion_net.register_forward_hook(lambda _net, _inputs, result: steps.append(result.sample))
    pipeline.prepare_latents = recorded(
        pipeline.prepare_latents, lambda noise, *_: golden.update({f"clip{clip}.noise": noise})
    )
    pipeline.decode_latents = recorded(
        pipeline.decode_latents, lambda _, latents: golden.update({f"clip{clip}.latents": latents})
    )
    generator, past = torch.Generator().manual_seed(1), None
    for clip in range(RUN["clips"]):
        with torch.no_grad():
            tokens = audio_proj(inputs["audio_emb"][clip_span(inputs, RUN, clip)][None])
        past = run_clip(pipeline, tokens, inputs, RUN, clip, past, generator)
        golden |= {f"clip{clip}.audio_tokens": tokens, f"clip{clip}.video": past.half()}
        golden |= {f"clip{clip}.step{step}.velocity": velocity for step, velocity in enumerate(steps)}
        steps.clear()
    return golden | {"sigmas": pipeline.scheduler.sigmas}


def main() -> None:
    """Command line."""
    checkout, micro, out = map(Path, sys.argv[1:4])
    import_upstream(checkout)
    generator = torch.Generator().manual_seed(0)
    nets = {}
    for name, build in builders(micro).items():
        net = build()
        fill(net, generator)
        nets[name] = onto_disk(net, out / "checkpoint" / name)
    shutil.copytree(micro / "checkpoint" / "vae", out / "checkpoint" / "vae")
    audio_proj = nets.pop("audio_proj").eval()
    pipeline = make_pipeline(nets | {"vae": load_autoencoder(micro / "checkpoint" / "vae")})
    golden = record(pipeline, audio_proj, make_inputs(generator))
    save_file({name: tensor.contiguous() for name, tensor in golden.items()}, out / "golden.safetensors")
    (out / "run.json").write_text(json.dumps(RUN), encoding="utf-8")


if __name__ == "__main__":
    main()
