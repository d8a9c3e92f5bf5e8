"""The temporal memory of the net: what the clips before left to the linear attentions.

At 512x512 it is gigabytes, so it has one owner: whoever conditions a clip refers to the :class:`MemoryState`
and keeps no tensor of it, and the update that makes the next memory takes the old one over piece by piece.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class LayerMemory:
    """Temporal memory of one linear attention: ``kv`` (M, L, N, D, D) and ``z`` (M, L, N, D).

    M is the number of branches, or 1 where all branches remember the same.
    """

    kv: Tensor
    z: Tensor

    def row(self, index: int) -> LayerMemory:
        """The memory of one branch, batch dimension kept."""
        if self.kv.shape[0] == 1:
            return self
        return LayerMemory(self.kv[index : index + 1], self.z[index : index + 1])

    def to(self, device: torch.device) -> LayerMemory:
        return LayerMemory(self.kv.to(device), self.z.to(device))


class MemoryState:
    """Temporal memory of the whole net: of every linear attention, in the order of the forward pass.

    It is a value until :meth:`hand_over`, and empty from then on: nobody can keep it alive by mistake.
    """

    def __init__(self, memories: Iterable[LayerMemory]) -> None:
        self._memories: list[LayerMemory] | None = list(memories)

    @property
    def is_handed_over(self) -> bool:
        return self._memories is None

    @property
    def memories(self) -> tuple[LayerMemory, ...]:
        """All of them; raises RuntimeError where they were handed over."""
        if self._memories is None:
            raise RuntimeError(
                "expected the memory of a clip but it went into the next clip's. "
                "Take what you need of a clip's state before you ask for the next clip."
            )
        return tuple(self._memories)

    def hand_over(self) -> Iterator[LayerMemory]:
        """Each memory in order, the last reference to it; this state is empty at once."""
        memories, self._memories = list(self.memories), None
        return _given_away(memories)

    def row(self, index: int) -> MemoryState:
        """The memory of one branch, batch dimension kept."""
        return MemoryState(memory.row(index) for memory in self.memories)

    def tensors(self) -> dict[str, Tensor]:
        """A flat dict, for saving; :meth:`from_tensors` reverses it."""
        return {
            f"{number}.{name}": tensor
            for number, memory in enumerate(self.memories)
            for name, tensor in (("kv", memory.kv), ("z", memory.z))
        }

    @classmethod
    def from_tensors(cls, tensors: Mapping[str, Tensor]) -> MemoryState:
        """Rebuild the state that :meth:`tensors` flattened."""
        count = len(tensors) // 2
        return cls(LayerMemory(tensors[f"{i}.kv"], tensors[f"{i}.z"]) for i in range(count))


def _given_away(memories: list[LayerMemory]) -> Iterator[LayerMemory]:
    memories.reverse()
    while memories:
        yield memories.pop()


def join_memories(states: Sequence[MemoryState]) -> MemoryState:
    """The memories of several branches as one, in the order given."""
    return MemoryState(_join(same) for same in zip(*(state.memories for state in states), strict=True))


def _join(memories: Sequence[LayerMemory]) -> LayerMemory:
    if all(memory.kv is memories[0].kv for memory in memories):  # branches that remember the same
        return memories[0]
    return LayerMemory(torch.cat([m.kv for m in memories]), torch.cat([m.z for m in memories]))
