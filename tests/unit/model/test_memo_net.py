"""The diffusion net as a function: parts, branches, order, sizes, memory.

In float64: at these sizes a GroupNorm sees one value per group, which float32 rounds to about 1e-4.
"""

from __future__ import annotations

import weakref
from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn

from memo_avatar.model.context import ClipContext, ReferenceFeatures, join_contexts, join_features
from memo_avatar.model.linear_memory import DECAY, MemoryLinearAttention
from memo_avatar.model.memory import LayerMemory, MemoryState
from memo_avatar.model.nets import MemoModels
from tests.helpers.tiny_memo import AUDIO_DIM, FACE_DIM, tiny_memo

CLOSE = {"rtol": 1e-7, "atol": 1e-7}


@pytest.fixture(scope="module")
def models() -> MemoModels:
    return double(tiny_memo())


def double(models: MemoModels) -> MemoModels:
    for net in (models.diffusion_net, models.reference_net, models.audio_proj):
        net.double()
    return models


def random(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed)).double()


def features(models: MemoModels, images: int, size: tuple[int, int], seed: int) -> ReferenceFeatures:
    return models.reference_net(
        random(images, 4, *size, seed=seed), random(images, 2, FACE_DIM, seed=seed + 1)
    )


def make_context(
    models: MemoModels,
    *,
    frames: int = 3,
    size: tuple[int, int] = (4, 4),
    flags: tuple[bool, ...] = (False, True),
    seed: int = 10,
) -> ClipContext:
    batch = len(flags)
    past = features(models, 2 * batch, size, seed)
    rows = torch.arange(2 * batch).reshape(batch, 2)
    return models.diffusion_net.prepare_context(
        face_tokens=random(batch, 2, FACE_DIM, seed=seed + 2),
        audio_tokens=random(batch, frames, 2, AUDIO_DIM, seed=seed + 3),
        emotion=torch.tensor([9, 3, 0][:batch]),
        reference=features(models, sum(flags), size, seed + 4) if any(flags) else None,
        has_reference=flags,
        memory=models.diffusion_net.update_memory(past, rows),
    )


def test_forward_is_head_of_body_of_stem(models: MemoModels) -> None:
    net, context = models.diffusion_net, make_context(models)
    latents, timestep = random(2, 4, 3, 4, 4), torch.tensor([700.0, 700.0])
    temb = net.embed_timestep(timestep, 2, latents.dtype)
    parts = net.head(net.body(net.stem(latents), temb, context), context.frames)
    assert torch.equal(parts, net(latents, timestep, context))


def test_modulated_input_is_what_the_first_resnet_uses(models: MemoModels) -> None:
    net = models.diffusion_net
    resnet = net.down_blocks[0].resnets[0]
    seen: list[Tensor] = []
    handle = resnet.norm2.register_forward_hook(lambda _module, _inputs, output: seen.append(output))
    latents, context = random(2, 4, 3, 4, 4), make_context(models)
    net(latents, 500.0, context)
    handle.remove()
    temb = net.embed_timestep(500.0, 2, latents.dtype)
    assert torch.equal(net.modulated_input(net.stem(latents), temb), seen[0])


def test_answers_do_not_depend_on_what_was_asked_before(models: MemoModels) -> None:
    net, context, other = models.diffusion_net, make_context(models), make_context(models, seed=50)
    latents = random(1, 4, 3, 4, 4)
    first = net(latents, 900.0, context)
    net(random(1, 4, 3, 4, 4, seed=5), 10.0, other)
    assert torch.equal(net(latents, 900.0, context), first)


def test_inputs_are_left_alone(models: MemoModels) -> None:
    context, latents = make_context(models), random(1, 4, 3, 4, 4)
    kept = [latents.clone(), context.audio_tokens.clone(), context.memory.memories[0].kv.clone()]
    models.diffusion_net(latents, 900.0, context)
    after = [latents, context.audio_tokens, context.memory.memories[0].kv]
    assert all(torch.equal(a, b) for a, b in zip(kept, after, strict=True))


@pytest.mark.parametrize(
    "flags", [(False, True), (True, False), (True, True, False), (False,), (True,)], ids=str
)
def test_branches_apart_and_together_agree(models: MemoModels, flags: tuple[bool, ...]) -> None:
    net, context, latents = models.diffusion_net, make_context(models, flags=flags), random(1, 4, 3, 4, 4)
    together = net(latents, 400.0, context)
    apart = torch.cat([net(latents, 400.0, context.row(index)) for index in range(len(flags))])
    torch.testing.assert_close(together, apart, **CLOSE)


def test_join_contexts_reverses_row(models: MemoModels) -> None:
    net, context, latents = models.diffusion_net, make_context(models), random(1, 4, 3, 4, 4)
    swapped = join_contexts([context.row(1), context.row(0)])
    assert swapped.has_reference == (True, False)
    torch.testing.assert_close(net(latents, 400.0, swapped), net(latents, 400.0, context).flip(0), **CLOSE)


def test_reference_changes_only_the_branch_that_has_it(models: MemoModels) -> None:
    net, latents = models.diffusion_net, random(1, 4, 3, 4, 4)
    context = make_context(models)
    layers = tuple(
        type(layer)(layer.face, layer.reference and layer.reference.rows(slice(0, 0)))
        for layer in context.layers
    )
    without = ClipContext(context.audio_tokens, context.emotion, (False, False), None, layers, context.memory)
    plain, seen = net(latents, 400.0, without), net(latents, 400.0, context)
    torch.testing.assert_close(plain[0], seen[0], **CLOSE)
    assert (plain[1] - seen[1]).abs().max() > 1e-3


@pytest.mark.parametrize("frames", [1, 2, 32])
def test_clip_lengths(models: MemoModels, frames: int) -> None:
    context = make_context(models, frames=frames)
    assert models.diffusion_net(random(1, 4, frames, 4, 4), 500.0, context).shape == (2, 4, frames, 4, 4)


def test_clip_longer_than_the_position_table_is_refused(models: MemoModels) -> None:
    with pytest.raises(ValueError, match="a clip must have 1 to 32 frames but got 33"):
        make_context(models, frames=33)


def test_rows_that_do_not_fit_are_refused(models: MemoModels) -> None:
    context = make_context(models)
    with pytest.raises(ValueError, match=r"must have a row per branch \(2\) but got"):
        models.diffusion_net.prepare_context(
            random(3, 2, FACE_DIM),
            context.audio_tokens,
            context.emotion,
            None,
            (False, False),
            MemoryState(()),
        )


@pytest.mark.parametrize("size", [(1, 1), (3, 5), (8, 2), (7, 12)], ids=str)
def test_any_latent_size(models: MemoModels, size: tuple[int, int]) -> None:
    context = make_context(models, size=size)
    velocity = models.diffusion_net(random(1, 4, 3, *size), 500.0, context)
    assert velocity.shape == (2, 4, 3, *size)
    assert velocity.isfinite().all()


def test_linear_projections() -> None:
    models = double(tiny_memo(linear_projection=True))
    context, latents = make_context(models), random(1, 4, 3, 4, 4)
    together = models.diffusion_net(latents, 500.0, context)
    torch.testing.assert_close(together[1:], models.diffusion_net(latents, 500.0, context.row(1)), **CLOSE)


def test_gradients_flow_to_every_weight() -> None:
    models = double(tiny_memo())
    nets = (models.diffusion_net, models.reference_net)
    for net in nets:
        net.requires_grad_(True)
    context = make_context(models)
    models.diffusion_net(random(1, 4, 3, 4, 4), 500.0, context).square().mean().backward()
    missing = [name for name, weight in models.diffusion_net.named_parameters() if weight.grad is None]
    assert missing == []


def test_memory_is_faded_and_added(models: MemoModels) -> None:
    net, past = models.diffusion_net, features(models, 4, (4, 4), 20)
    rows = torch.arange(4).reshape(2, 2)
    once = net.update_memory(past, rows)
    twice = net.update_memory(past, rows, net.update_memory(past, rows))
    for a, b in zip(once.tensors().values(), twice.tensors().values(), strict=True):
        torch.testing.assert_close(b, a * (1 + DECAY**2))


def test_memory_repeats_distinct_frames(models: MemoModels) -> None:
    net, distinct = models.diffusion_net, features(models, 2, (4, 4), 30)
    repeated = net.update_memory(distinct.rows([0, 1, 0, 1]), torch.arange(4)[None])
    named = net.update_memory(distinct, torch.tensor([[0, 1, 0, 1]]))
    for a, b in zip(named.tensors().values(), repeated.tensors().values(), strict=True):
        torch.testing.assert_close(a, b)


def test_memory_survives_flattening(models: MemoModels) -> None:
    memory = models.diffusion_net.update_memory(features(models, 2, (4, 4), 40), torch.tensor([[0, 1]]))
    tensors = memory.tensors()
    again = MemoryState.from_tensors(tensors)
    assert len(again.memories) == len(memory.memories)
    assert all(torch.equal(tensor, again.tensors()[key]) for key, tensor in tensors.items())


def test_an_update_frees_the_old_memory_layer_by_layer(models: MemoModels) -> None:
    net, past, rows = models.diffusion_net, features(models, 2, (4, 4), 40), torch.tensor([[0, 1]])
    kept = net.update_memory(past, rows)
    old = [weakref.ref(memory.kv) for memory in kept.memories]
    alive: list[int] = []
    hooks = [
        motion.temporal_transformer.norm.register_forward_hook(
            lambda *_: alive.append(sum(tensor() is not None for tensor in old))
        )
        for _, motion in net.layer_modules()
    ]
    net.update_memory(past, rows, kept)
    for hook in hooks:
        hook.remove()
    assert alive == list(range(len(old), 0, -2))  # two linear attentions a layer
    assert not any(tensor() is not None for tensor in old)


def test_a_memory_that_went_into_the_next_one_says_so(models: MemoModels) -> None:
    net, past, rows = models.diffusion_net, features(models, 2, (4, 4), 40), torch.tensor([[0, 1]])
    memory = net.update_memory(past, rows)
    net.update_memory(past, rows, memory)
    with pytest.raises(RuntimeError, match="went into the next clip's"):
        memory.tensors()


def test_reading_a_memory_equals_adding_to_it_first() -> None:
    """The published code forms KV and Z and multiplies the queries by them."""
    attention = MemoryLinearAttention(32, 4, 32, operations=nn, dtype=torch.float64)
    nn.init.normal_(attention.pos_encoder.pe)
    x, memory = random(6, 3, 32), LayerMemory(random(2, 3, 4, 8, 8, seed=1), random(2, 3, 4, 8, seed=2).abs())
    moved = x + attention.pos_encoder.pe[:, :3]
    query, key, value = (
        layer(moved).unflatten(-1, (4, 8)).transpose(1, 2)
        for layer in (attention.to_q, attention.to_k, attention.to_v)
    )
    query, key = query.softmax(-1) * attention.scale, key.softmax(-2)
    kv = DECAY * memory.kv.flatten(0, 1) + key.transpose(-1, -2) @ value
    z = DECAY * memory.z.flatten(0, 1) + key.sum(-2)
    expected = (query @ kv) / (query @ z.unsqueeze(-1)).clamp(min=1e-10)
    expected = attention.to_out[0](expected.transpose(1, 2).flatten(2))
    torch.testing.assert_close(attention(x, memory), expected)


def test_branches_that_remember_the_same_share_one_memory(models: MemoModels) -> None:
    context, latents = make_context(models), random(1, 4, 3, 4, 4)
    net, past = models.diffusion_net, features(models, 2, (4, 4), 60)
    own, shared = (net.update_memory(past, torch.tensor([[0, 1]] * rows)) for rows in (2, 1))
    one, each = replace(context, memory=shared), replace(context, memory=own)
    torch.testing.assert_close(net(latents, 500.0, one), net(latents, 500.0, each), **CLOSE)
    apart = torch.cat([net(latents, 500.0, one.row(index)) for index in range(2)])
    torch.testing.assert_close(apart, net(latents, 500.0, each), **CLOSE)
    assert join_contexts([one.row(1), one.row(0)]).memory.memories[0].kv.shape[0] == 1


def test_features_of_parts_are_those_of_the_whole(models: MemoModels) -> None:
    whole = features(models, 5, (4, 4), 70)
    parts = (whole.rows(slice(start, start + 2)) for start in (0, 2, 4))
    joined = join_features(parts, 5)
    assert all(torch.equal(a, b) for a, b in zip(whole.layers, joined.layers, strict=True))


def test_audio_of_another_encoder_is_refused(models: MemoModels) -> None:
    with pytest.raises(ValueError, match=r"must hold 30 numbers .* but got 5 x 4 x 3"):
        models.audio_proj(random(1, 2, 5, 4, 3))
