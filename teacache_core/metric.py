"""How much a tensor changed, and what that change is worth: pure functions.

`rel_l1` stays on the tensor's device, so that the caller decides when (and whether) to wait for the number.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import cast

import torch
from torch import Tensor

_SMALLEST = 1e-12


def rel_l1(current: Tensor, previous: Tensor) -> Tensor:
    """mean|current - previous| / mean|previous| as a 0-d float32 tensor on their device (TeaCache, eq. 4)."""
    change = (current - previous).abs().mean(dtype=torch.float32)
    return change / previous.abs().mean(dtype=torch.float32).clamp_min(_SMALLEST)


def to_floats(values: Tensor) -> list[float]:
    """A 1-D tensor as Python numbers; on an accelerator this is the one place that waits for it."""
    return cast("list[float]", values.tolist())  # pyright: ignore[reportUnknownMemberType]


def same_levels(known: Sequence[float], wanted: Sequence[float]) -> bool:
    """Whether two lists of noise levels are the same but for rounding."""
    return len(known) == len(wanted) and all(abs(x - y) < 1e-6 for x, y in zip(known, wanted, strict=True))


def is_gram(rows: Sequence[Sequence[float]]) -> bool:
    """Whether a square of numbers can be the inner products of some vectors, but for rounding."""
    gram = torch.tensor(rows, dtype=torch.float64)
    slack = 1e-6 * gram.abs().max()
    least = cast("Tensor", torch.linalg.eigvalsh(gram))[0]  # pyright: ignore[reportUnknownMemberType]
    return bool((gram - gram.T).abs().max() <= slack) and bool(least >= -slack)


def polynomial(coefficients: Sequence[float], value: float) -> float:
    """Value of a polynomial given highest power first (Horner)."""
    result = 0.0
    for coefficient in coefficients:
        result = result * value + coefficient
    return result


@dataclass(frozen=True)
class Rescale:
    """Signal change -> expected output change: a polynomial, trusted only where it was fitted."""

    coefficients: tuple[float, ...]
    low: float = 0.0
    high: float = float("inf")

    def __call__(self, change: float) -> float:
        """Never negative: a fit may dip below zero, an output change cannot."""
        return max(0.0, polynomial(self.coefficients, min(max(change, self.low), self.high)))
