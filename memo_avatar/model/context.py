"""The values that condition one clip: everything the diffusion net reads besides latents and timestep.

All of it is computed once per clip and constant over the clip's steps. Rows of the batch are branches
("uncond", "cond") or, in training, samples; :meth:`ClipContext.row` and :func:`join_contexts` take a batch
apart and put it together, so branches can be evaluated alone or jointly with the same numbers to rounding.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor


@dataclass(frozen=True)
class KeyValue:
    """Keys and values of one attention, each (rows, L, C)."""

    key: Tensor
    value: Tensor

    def rows(self, index: slice) -> KeyValue:
        return KeyValue(self.key[index], self.value[index])


@dataclass(frozen=True)
class LayerMemory:
    """Temporal memory of one linear attention: ``kv`` (B, L, N, D, D) and ``z`` (B, L, N, D)."""

    kv: Tensor
    z: Tensor


@dataclass(frozen=True)
class MemoryState:
    """Temporal memory of the whole net: per layer, one :class:`LayerMemory` per linear attention."""

    layers: tuple[tuple[LayerMemory, ...], ...]

    def row(self, index: int) -> MemoryState:
        """The memory of one branch, batch dimension kept."""
        one = slice(index, index + 1)
        return MemoryState(
            tuple(tuple(LayerMemory(m.kv[one], m.z[one]) for m in memories) for memories in self.layers)
        )

    def tensors(self) -> dict[str, Tensor]:
        """A flat dict, for saving; :meth:`from_tensors` reverses it."""
        return {
            f"{i}.{j}.{name}": tensor
            for i, memories in enumerate(self.layers)
            for j, memory in enumerate(memories)
            for name, tensor in (("kv", memory.kv), ("z", memory.z))
        }

    @classmethod
    def from_tensors(cls, tensors: Mapping[str, Tensor]) -> MemoryState:
        """Rebuild the state that :meth:`tensors` flattened."""
        found: dict[int, dict[int, dict[str, Tensor]]] = {}
        for key, tensor in tensors.items():
            layer, attention, name = key.split(".")
            found.setdefault(int(layer), {}).setdefault(int(attention), {})[name] = tensor
        layers = (found[i] for i in sorted(found))
        return cls(tuple(tuple(LayerMemory(**memories[j]) for j in sorted(memories)) for memories in layers))

    def nbytes(self) -> int:
        """Bytes held by all tensors of the state."""
        return sum(tensor.numel() * tensor.element_size() for tensor in self.tensors().values())


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


@dataclass(frozen=True)
class LayerContext:
    """What one layer (ResNet + attentions + motion) reads.

    ``face`` holds (B, T, C) keys and values; ``reference`` holds (U, L, C) ones for U runs of the reference
    image, or None; ``memory`` has one entry per linear attention.
    """

    face: KeyValue | None
    reference: KeyValue | None
    memory: tuple[LayerMemory, ...]


@dataclass(frozen=True)
class ClipContext:
    """Everything that conditions one clip (built by :meth:`UNet3D.prepare_context`).

    ``audio_tokens`` (B, F, n, d); ``emotion`` (B,) integer; ``has_reference`` one flag per row: uncond rows
    do not attend to the reference image. ``reference_rows`` (R, F) integer says which of the U runs of the
    reference image each frame of each flagged row attends to. ``attention_options`` is handed to the
    attention function at every call.
    """

    audio_tokens: Tensor
    emotion: Tensor
    has_reference: tuple[bool, ...]
    reference_rows: Tensor | None
    layers: tuple[LayerContext, ...]
    attention_options: Mapping[str, Any] = field(default_factory=dict)

    @property
    def batch(self) -> int:
        return self.audio_tokens.shape[0]

    @property
    def frames(self) -> int:
        return self.audio_tokens.shape[1]

    def with_options(self, **attention_options: Any) -> ClipContext:
        """The same context with other options for the attention function."""
        return replace(self, attention_options=attention_options)

    def row(self, index: int) -> ClipContext:
        """One branch of the batch, batch dimension kept."""
        one, flag = slice(index, index + 1), self.has_reference[index]
        rows = None
        if flag and self.reference_rows is not None:
            position = sum(self.has_reference[:index])
            rows = self.reference_rows[position : position + 1]
        layers = tuple(
            LayerContext(
                face=layer.face and layer.face.rows(one),
                reference=layer.reference if flag else None,
                memory=tuple(LayerMemory(m.kv[one], m.z[one]) for m in layer.memory),
            )
            for layer in self.layers
        )
        return ClipContext(
            self.audio_tokens[one], self.emotion[one], (flag,), rows, layers, self.attention_options
        )


def join_contexts(contexts: Sequence[ClipContext]) -> ClipContext:
    """Several contexts as one batch, in the order given; the attention options are those of the first."""
    if len(contexts) == 1:
        return contexts[0]
    layers = tuple(
        LayerContext(
            face=_join_key_values(layer.face for layer in group),
            reference=_join_key_values(layer.reference for layer in group),
            memory=tuple(
                LayerMemory(torch.cat([m.kv for m in same]), torch.cat([m.z for m in same]))
                for same in zip(*(layer.memory for layer in group), strict=True)
            ),
        )
        for group in zip(*(context.layers for context in contexts), strict=True)
    )
    return ClipContext(
        audio_tokens=torch.cat([context.audio_tokens for context in contexts]),
        emotion=torch.cat([context.emotion for context in contexts]),
        has_reference=tuple(flag for context in contexts for flag in context.has_reference),
        reference_rows=_join_rows(contexts),
        layers=layers,
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
