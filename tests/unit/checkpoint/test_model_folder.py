"""Folders of a VAE and of wav2vec2, as their projects publish them."""

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from memo_avatar.checkpoint.companions import read_vae, read_wav2vec2
from memo_avatar.files.foreign import CheckpointError
from standalone.vae import load_vae

DEMO = Path(__file__).parents[3] / "demo" / "checkpoint"
WEIGHTS = "diffusion_pytorch_model.safetensors"
NEW_TO_OLD = {".to_q.": ".query.", ".to_k.": ".key.", ".to_v.": ".value.", ".to_out.0.": ".proj_attn."}


def old_names(state: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """As sd-vae-ft-mse was published: other names, and convolutions where there are linear layers now."""
    renamed = {}
    for key, tensor in state.items():
        for new, old in NEW_TO_OLD.items():
            if new in key:
                key = key.replace(new, old)
                tensor = tensor[:, :, None, None] if tensor.ndim == 2 else tensor
        renamed[key] = tensor.contiguous()
    return renamed


def test_a_vae_with_the_attention_of_before_diffusers_0_18(tmp_path: Path) -> None:
    shutil.copyfile(DEMO / "vae" / "config.json", tmp_path / "config.json")
    state = load_file(DEMO / "vae" / WEIGHTS)
    old = old_names(state)
    assert len(old.keys() - state.keys()) == 16  # four layers with bias, in encoder and decoder
    save_file(old, tmp_path / WEIGHTS)
    read = read_vae(tmp_path).state
    assert read.keys() == state.keys()
    assert all(torch.equal(read[key], tensor.float()) for key, tensor in state.items())
    latents = torch.randn(1, 4, 4, 4, generator=torch.Generator().manual_seed(0))
    new = load_vae(DEMO / "vae", dtype=torch.float32).decode(latents)
    assert torch.equal(load_vae(tmp_path, dtype=torch.float32).decode(latents), new)


@pytest.mark.parametrize("read", [read_vae, read_wav2vec2])
@pytest.mark.parametrize(
    ("config", "message"),
    [
        (b"{", "expected a JSON object but got: an end too early"),
        (b"[]", "expected a JSON object but got: a list"),
        (b"\xff{}", "expected a readable config.json but got"),
        (b'{"model_type": "bert", "_class_name": "UNet"}', "Use "),
        (None, "expected config.json of the"),
    ],
)
def test_damaged_and_foreign_configs(
    read: Callable[[Path], object], config: bytes | None, message: str, tmp_path: Path
) -> None:
    for name in (WEIGHTS, "model.safetensors"):
        (tmp_path / name).write_bytes(b"")
    if config is not None:
        (tmp_path / "config.json").write_bytes(config)
    with pytest.raises(CheckpointError) as caught:
        read(tmp_path)
    assert message in str(caught.value)
    assert str(tmp_path) in str(caught.value)
