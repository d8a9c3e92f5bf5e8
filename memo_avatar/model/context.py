"""The values that condition one clip: everything the diffusion net reads besides latents and timestep.

All of it is computed once per clip and constant over the clip's steps. Rows of the batch are branches
("uncond", "cond") or, in training, samples; :meth:`ClipContext.row` and :func:`join_contexts` take a batch
apart and put it together, so branches can be evaluated alone or jointly with the same numbers to rounding.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor

from .memory import LayerMemory, MemoryState, join_memories
from .offload import Offload


@dataclass(frozen=True)
class KeyValue:
    """Keys and values of one attention, each (rows, L, C)."""

    key: Tensor
    value: Tensor

    def rows(self, index: slice) -> KeyValue:
        return KeyValue(self.key[index], self.value[index])

    def to(self, device: torch.device) -> KeyValue:
        return KeyValue(self.key.to(device), self.value.to(device))


@dataclass(frozen=True)
class ReferenceFeatures:
    """What the reference net keeps: one (R, L, C) tensor per layer of the diffusion net, in block order.

    Where the layer has spatial attention it is the normalised input of that self-attention, else the ResNet's
    output.
    """

    layers: tuple[Tensor, ...]

    def rows(self, index: slice | Sequence[int]) -> ReferenceFeatures:
        """The features of some of the R images."""
        return ReferenceFeatures(tuple(layer[index] for layer in self.layers))


def join_features(parts: Iterable[ReferenceFeatures], images: int) -> ReferenceFeatures:
    """The features of all images from those of a few at a time, each part gone before the next is made."""
    whole: list[Tensor] = []
    done = 0
    for part in parts:
        rows = part.layers[0].shape[0]
        if rows == images:
            return part
        whole = whole or [layer.new_empty(images, *layer.shape[1:]) for layer in part.layers]
        for layer, piece in zip(whole, part.layers, strict=True):
            layer[done : done + rows] = piece
        done += rows
        del part
    return ReferenceFeatures(tuple(whole))


@dataclass(frozen=True)
class LayerContext:
    """What one layer (ResNet + attentions + motion) reads besides its memory.

    ``face`` holds (B, T, C) keys and values; ``reference`` holds (U, L, C) ones for U runs of the reference
    image, or None.
    """

    face: KeyValue | None
    reference: KeyValue | None

    def to(self, device: torch.device) -> LayerContext:
        return LayerContext(self.face and self.face.to(device), self.reference and self.reference.to(device))


@dataclass(frozen=True)
class ClipContext:
    """Everything that conditions one clip (built by :meth:`UNet3D.prepare_context`).

    ``audio_tokens`` (B, F, n, d); ``emotion`` (B,) integer; ``has_reference`` one flag per row: uncond rows
    do not attend to the reference image. ``reference_rows`` (R, F) integer says which of the U runs of the
    reference image each frame of each flagged row attends to. ``memory`` is the video's, referred to and not
    held; ``offload`` brings what of it lives in RAM. ``attention_options`` is handed to the attention
    function at every call.
    """

    audio_tokens: Tensor
    emotion: Tensor
    has_reference: tuple[bool, ...]
    reference_rows: Tensor | None
    layers: tuple[LayerContext, ...]
    memory: MemoryState
    offload: Offload | None = None
    attention_options: Mapping[str, Any] = field(default_factory=dict)

    @property
    def batch(self) -> int:
        return self.audio_tokens.shape[0]

    @property
    def frames(self) -> int:
        return self.audio_tokens.shape[1]

    def memories(self) -> Iterator[LayerMemory]:
        """The temporal memory for one evaluation, where the net is: of each linear attention when it runs."""
        if self.offload is None:
            return iter(self.memory.memories)
        return self.offload.bring(self.memory.memories)

    def with_options(self, **attention_options: Any) -> ClipContext:
        """The same context with other options for the attention function."""
        return replace(self, attention_options=attention_options)

    def to(self, device: torch.device) -> ClipContext:
        """The same on another device; memory that lives in RAM stays there and is brought to that one."""
        offload = None if self.offload is None else self.offload.on(device)
        stays = (False,) * len(self.memory.memories) if offload is None else offload.in_ram
        pairs = zip(self.memory.memories, stays, strict=True)
        return replace(
            self,
            audio_tokens=self.audio_tokens.to(device),
            emotion=self.emotion.to(device),
            reference_rows=None if self.reference_rows is None else self.reference_rows.to(device),
            layers=tuple(layer.to(device) for layer in self.layers),
            memory=MemoryState(memory if in_ram else memory.to(device) for memory, in_ram in pairs),
            offload=offload,
        )

    def row(self, index: int) -> ClipContext:
        """One branch of the batch, batch dimension kept."""
        one, flag = slice(index, index + 1), self.has_reference[index]
        rows = None
        if flag and self.reference_rows is not None:
            position = sum(self.has_reference[:index])
            rows = self.reference_rows[position : position + 1]
        layers = tuple(
            LayerContext(layer.face and layer.face.rows(one), layer.reference if flag else None)
            for layer in self.layers
        )
        return ClipContext(
            audio_tokens=self.audio_tokens[one],
            emotion=self.emotion[one],
            has_reference=(flag,),
            reference_rows=rows,
            layers=layers,
            memory=self.memory.row(index),
            offload=self.offload,
            attention_options=self.attention_options,
        )


def join_contexts(contexts: Sequence[ClipContext]) -> ClipContext:
    """Several contexts as one batch, in the order given; the attention options are those of the first."""
    if len(contexts) == 1:
        return contexts[0]
    layers = tuple(
        LayerContext(
            face=_join_key_values(layer.face for layer in group),
            reference=_join_key_values(layer.reference for layer in group),
        )
        for group in zip(*(context.layers for context in contexts), strict=True)
    )
    return ClipContext(
        audio_tokens=torch.cat([context.audio_tokens for context in contexts]),
        emotion=torch.cat([context.emotion for context in contexts]),
        has_reference=tuple(flag for context in contexts for flag in context.has_reference),
        reference_rows=_join_rows(contexts),
        layers=layers,
        memory=join_memories([context.memory for context in contexts]),
        offload=contexts[0].offload,
        attention_options=contexts[0].attention_options,
    )


def _join_key_values(parts: Iterable[KeyValue | None]) -> KeyValue | None:
    present = [part for part in parts if part is not None]
    if not present:
        return None
    return KeyValue(torch.cat([part.key for part in present]), torch.cat([part.value for part in present]))


def _join_rows(contexts: Sequence[ClipContext]) -> Tensor | None:
    """The contexts' reference rows, shifted as :func:`_join_key_values` stacks what they point at."""
    joined, offset = [], 0
    for context in contexts:
        if context.reference_rows is not None:
            joined.append(context.reference_rows + offset)
            offset += next(layer.reference.key.shape[0] for layer in context.layers if layer.reference)
    return torch.cat(joined) if joined else None
