"""A checkpoint of the published sizes without weights, and inputs of the trained size, for dry runs.

Headers and configs are written and read as those of real files; what they promise is a hole in the file, and
what is read of it was never written. Gigabytes of weights then take neither disk nor RAM.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from benchmarks.flops import VAE_CONFIG, WAV2VEC2_LAYERS, WAV2VEC2_WIDTH, WINDOW, real_config
from memo_avatar.checkpoint.load import uninitialized
from memo_avatar.model.nets import build_models
from memo_avatar.model.vae import SmallAutoencoder
from memo_avatar.torch_ops import sdpa_attention

PARTS = ("diffusion_net", "reference_net", "image_proj", "audio_proj")
STORED_VAE_CONFIG = {"_class_name": "AutoencoderKL", "act_fn": "silu", **VAE_CONFIG}


def write_checkpoint(folder: Path) -> Path:
    """The four nets in bfloat16 and a VAE in float32, all hole."""
    nets = build_models(real_config(), operations=uninitialized, attention=sdpa_attention, device="meta")
    for name in PARTS:
        heads = {"attention_head_dim": 8} if name.endswith("_net") else {}
        _write(folder / name, "diffusion_pytorch_model", heads, getattr(nets, name).state_dict(), "BF16")
    vae = SmallAutoencoder(VAE_CONFIG, operations=torch.nn, attention=sdpa_attention, device="meta")
    _write(folder / "vae", "diffusion_pytorch_model", STORED_VAE_CONFIG, vae.state_dict(), "F32")
    return folder


def _write(
    folder: Path, name: str, config: Mapping[str, Any], state: Mapping[str, Tensor], dtype: str
) -> None:
    folder.mkdir(parents=True)
    (folder / "config.json").write_text(json.dumps(config))
    header, end = {}, 0
    for key, tensor in state.items():
        begin, end = end, end + tensor.numel() * (2 if dtype == "BF16" else 4)
        header[key] = {"dtype": dtype, "shape": list(tensor.shape), "data_offsets": [begin, end]}
    text = json.dumps(header).encode()
    with open(folder / f"{name}.safetensors", "wb") as file:
        file.write(len(text).to_bytes(8, "little") + text)
        file.truncate(file.tell() + end)


def read_nothing(checkpoint_class: Any) -> None:
    """Let a `Checkpoint` give tensors that nobody wrote, instead of reading and checking gigabytes."""

    def read(self: Any, part: str, dtype: Any = None, device: Any = "cpu", _on_bytes: Any = None) -> Any:
        kind = dtype or self.dtype
        shapes: Iterable[tuple[str, tuple[int, ...]]] = self.parts[part].shapes.items()
        return {key: torch.empty(shape, dtype=kind, device=device) for key, shape in shapes}

    checkpoint_class.read = read


def pixels(size: int) -> Tensor:
    """A portrait (1, 3, H, W)."""
    return torch.zeros(1, 3, size, size)


def face(known: bool) -> Tensor:
    """A face embedding, or the zeros that stand for none."""
    return torch.full((1, 512), 1.0 if known else 0.0)


def voice(frames: int) -> tuple[Tensor, Tensor]:
    """Audio features and emotions of that many frames."""
    shape = (frames, WINDOW, WAV2VEC2_LAYERS, WAV2VEC2_WIDTH)
    return torch.zeros(shape), torch.full((frames,), 3)
