"""What one clip's cache remembers. Reset is construction: a new state knows nothing."""

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
class BranchState:
    """The computed values of one branch and their noise levels, newest last."""

    levels: tuple[float, ...]
    values: tuple[Tensor, ...]

    def advance(self, sigma: float, value: Tensor, keeps: int) -> BranchState:
        """The state after another value, with the last `keeps` of them.

        A second value at the same noise level replaces the first; one of another shape starts afresh.
        """
        if value.shape != self.values[-1].shape:
            return BranchState((sigma,), (value,))
        kept = -1 if sigma == self.levels[-1] else len(self.levels)
        levels, values = (*self.levels[:kept], sigma), (*self.values[:kept], value)
        return BranchState(levels[-keeps:], values[-keeps:])


@dataclass
class CacheState:
    """Everything remembered between the evaluations of one clip."""

    layout: Layout | None = None
    sigma: float | None = None
    policy: PolicyState = field(default_factory=PolicyState)
    signal: Tensor | None = None
    branches: dict[Hashable, BranchState] = field(default_factory=dict[Hashable, BranchState])

    def fits(self, layout: Layout, sigma: float) -> bool:
        """Whether what is stored is of this shape, dtype, device, branch set, and pass over the noise."""
        if self.layout is None or self.sigma is None:
            return True
        return self.layout == layout and sigma <= self.sigma

    def memory_bytes(self) -> int:
        """Bytes of all stored tensors."""
        tensors = [tensor for branch in self.branches.values() for tensor in branch.values]
        if self.signal is not None:
            tensors.append(self.signal)
        return sum(tensor.numel() * tensor.element_size() for tensor in tensors)
