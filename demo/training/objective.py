"""Flow matching on MEMO's clips, conditioned as inference conditions them."""

import torch
from torch import Tensor

from memo_avatar.model.context import ClipContext, ReferenceFeatures
from memo_avatar.model.memory import LayerMemory, MemoryState
from memo_avatar.model.nets import MemoModels

from .dataset import PAST, PAST_STRIDE, Batch, degrade

NULL_EMOTION = 9


def loss_weights(height: int, width: int) -> Tensor:
    """Where an error costs more, (h, w) of mean one: the mouth by 3, eyes and brows by 2."""
    weights = torch.ones(height, width)
    rows = torch.arange(height) / height
    columns = torch.arange(width) / width
    middle = (columns >= 0.24) & (columns <= 0.76)
    weights[((rows >= 0.6) & (rows <= 0.84))[:, None] & middle] = 3.0
    weights[((rows >= 0.24) & (rows <= 0.56))[:, None] & middle] = 2.0
    return weights / weights.mean()


def clip_context(models: MemoModels, batch: Batch) -> ClipContext:
    """All that conditions a batch; its first `batch.uncond` rows go without."""
    net, size = models.diffusion_net, batch.reference.shape[0]
    device = batch.reference.device
    face = models.image_proj(torch.zeros(1, models.config.image_proj.embedding_dim, device=device))
    reference = models.reference_net(batch.reference, face.expand(size, -1, -1))
    memory = _memory(models, batch, reference, face)
    audio = models.audio_proj(batch.audio)
    emotion = batch.emotion.clone()
    has_reference = torch.ones(size, dtype=torch.bool, device=device)
    has_reference[: batch.uncond] = False
    emotion[: batch.uncond] = NULL_EMOTION
    audio = audio * has_reference.to(audio)[:, None, None, None]
    return net.prepare_context(
        face_tokens=face.expand(size, -1, -1),
        audio_tokens=audio,
        emotion=emotion,
        reference=reference.rows(slice(batch.uncond, None)) if batch.uncond < size else None,
        has_reference=tuple(has_reference.tolist()),
        memory=memory,
    )


def _memory(models: MemoModels, batch: Batch, reference: ReferenceFeatures, face: Tensor) -> MemoryState:
    """First clips remember the reference image; later ones their own past on top of that memory, faded."""
    net, size = models.diffusion_net, batch.reference.shape[0]
    device = batch.reference.device
    copies = torch.arange(size, device=device)[:, None].expand(-1, PAST)
    memory = net.update_memory(reference, copies)
    later = (~batch.first).nonzero()[:, 0]
    if not len(later):
        return memory
    with torch.no_grad():
        past = degrade(batch.past[later]).flatten(0, 1)
        seen = models.reference_net(past, face.expand(past.shape[0], -1, -1))
    features = ReferenceFeatures(
        tuple(torch.cat([a, b]) for a, b in zip(reference.layers, seen.layers, strict=True))
    )
    rows = copies.clone()
    steps = torch.arange(PAST, device=device) // PAST_STRIDE
    rows[later] = size + torch.arange(len(later), device=device)[:, None] * (PAST // PAST_STRIDE) + steps
    carried = _masked(memory, ~batch.first)
    return net.update_memory(features, rows, carried)


def _masked(memory: MemoryState, keep: Tensor) -> MemoryState:
    """The memory with the rows not kept set to zero."""

    def mask(value: Tensor) -> Tensor:
        return value * keep.to(value).view(-1, *[1] * (value.ndim - 1))

    return MemoryState(LayerMemory(mask(m.kv), mask(m.z)) for m in memory.memories)


def flow_matching_loss(models: MemoModels, batch: Batch, weights: Tensor) -> Tensor:
    """Mean squared error of the velocity (noise - data) at one random noise level per example."""
    data = batch.frames.transpose(1, 2)  # (B, 4, F, h, w)
    noise = torch.randn_like(data)
    sigma = torch.sigmoid(0.2 + 1.2 * torch.randn(data.shape[0], device=data.device))
    level = sigma.view(-1, 1, 1, 1, 1)
    noisy = (1 - level) * data + level * noise
    velocity = models.diffusion_net(noisy, 1000 * sigma, clip_context(models, batch))
    return ((velocity - (noise - data)).square() * weights).mean()
