"""What one sampling run remembers. Reset is construction: a new RunState knows nothing."""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import dataclass, field

import torch
from torch import Tensor

from .policy import PolicyState


@dataclass(frozen=True)
class Layout:
    """What must stay the same for stored tensors to be usable."""

    shape: tuple[int, ...]
    dtype: torch.dtype
    device: torch.device
    branches: frozenset[Hashable]


@dataclass(frozen=True)
class Stored:
    """A copy of one computed value, the noise level it was computed at, and where and how it was given."""

    sigma: float
    value: Tensor
    device: torch.device
    dtype: torch.dtype

    @classmethod
    def copy_of(
        cls, value: Tensor, sigma: float, device: torch.device | str | None, dtype: torch.dtype | None
    ) -> Stored:
        """Always a copy: what was given may be changed by its owner, what is kept may not."""
        copy = value.detach().to(device or value.device, dtype or value.dtype, copy=True)
        return cls(sigma, copy, value.device, value.dtype)


@dataclass(frozen=True)
class BranchState:
    """The last two computed values of one branch."""

    newest: Stored
    previous: Stored | None = None

    def advance(self, stored: Stored) -> BranchState:
        """The state after another computed value; a second one at the same noise level replaces the first."""
        if stored.sigma == self.newest.sigma:
            return BranchState(stored, self.previous)
        return BranchState(stored, self.newest)

    def tensors(self) -> list[Tensor]:
        """What this branch keeps alive."""
        return [self.newest.value] + ([] if self.previous is None else [self.previous.value])


@dataclass
class RunState:
    """Everything remembered between the evaluations of one run."""

    layout: Layout | None = None
    sigma: float | None = None
    policy: PolicyState = field(default_factory=PolicyState)
    signal: Tensor | None = None
    branches: dict[Hashable, BranchState] = field(default_factory=dict[Hashable, BranchState])

    def fits(self, layout: Layout, sigma: float) -> bool:
        """False when what is stored belongs to another shape, dtype, device, branch set, or pass over the
        noise.
        """
        if self.layout is None or self.sigma is None:
            return True
        return self.layout == layout and sigma <= self.sigma

    def memory_bytes(self) -> int:
        """Bytes of all stored tensors."""
        tensors = [tensor for branch in self.branches.values() for tensor in branch.tensors()]
        if self.signal is not None:
            tensors.append(self.signal)
        return sum(tensor.numel() * tensor.element_size() for tensor in tensors)
