"""What is said of a video's sizes before it is made is what it takes."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from benchmarks.flops import real_config
from memo_avatar.checkpoint.load import uninitialized
from memo_avatar.model.nets import build_models
from memo_avatar.model.sizes import evaluation_size, features_size, memory_sizes
from memo_avatar.torch_ops import sdpa_attention
from tests.helpers.tiny_memo import tiny_config


@pytest.mark.parametrize("size", [(64, 64), (36, 52)], ids=str)
@pytest.mark.parametrize("motion", [(True,) * 4, (False, True, True, False)], ids=str)
@pytest.mark.parametrize("config", [tiny_config(), real_config()], ids=["tiny", "published"])
def test_memory_and_features_have_the_sizes_foretold(config, motion, size: tuple[int, int]) -> None:
    config = replace(config, diffusion_net=replace(config.diffusion_net, motion_levels=motion))
    models = build_models(config, operations=uninitialized, attention=sdpa_attention, device="meta")
    latents, faces = torch.empty(2, 4, *size, device="meta"), config.image_proj
    features = models.reference_net(latents, torch.empty(2, faces.tokens, faces.dim, device="meta"))
    assert sum(layer[0].numel() for layer in features.layers) == features_size(config.diffusion_net, *size)
    state = models.diffusion_net.update_memory(features, torch.zeros(1, 2, dtype=torch.long, device="meta"))
    numbers = tuple(memory.kv.numel() + memory.z.numel() for memory in state.memories)
    assert numbers == memory_sizes(config.diffusion_net, *size)


def test_the_published_sizes_at_512x512_in_16_bit() -> None:
    config, mib = real_config().diffusion_net, 2**20
    assert 2 * sum(memory_sizes(config, 64, 64)) // mib == 3345
    assert 2 * evaluation_size(config, 16, 64, 64) // mib == 1200
