"""What a skipped evaluation returns: a weighted sum of the last two computed values.

The weights depend on noise levels only, so the schedule search prices a skip with the very same arithmetic.
"""

from __future__ import annotations

from torch import Tensor

from .config import OnSkip

# Past three times the known gap a line through two points says more about their noise than about the future.
MAX_HORIZON = 3.0


def horizon(sigma: float, newest_sigma: float, previous_sigma: float | None) -> float:
    """How far `sigma` lies past the newest value, in gaps between the last two; 0 where there is no gap."""
    if previous_sigma is None or newest_sigma == previous_sigma:
        return 0.0
    gaps = (sigma - newest_sigma) / (newest_sigma - previous_sigma)
    return min(max(gaps, 0.0), MAX_HORIZON)


def replay_weights(on_skip: OnSkip, gaps: float, damping: float = 1.0) -> tuple[float, float]:
    """Weights of (newest, previous) at a horizon of `gaps`; (1, 0) is plain reuse.

    First-order forecast, linear in sigma: v = v1 + damping * gaps * (v1 - v0); damping 1 is the line itself.
    """
    reach = 0.0 if on_skip == "reuse" else gaps * damping
    return 1.0 + reach, -reach


def combine(newest: Tensor, previous: Tensor | None, weights: tuple[float, float]) -> Tensor:
    """A new tensor: weights[0] * newest + weights[1] * previous; the inputs stay as they are."""
    if previous is None or weights[1] == 0.0:
        return newest.clone()
    # In float32: the difference of two 16-bit neighbours is mostly rounding.
    return (newest.float() * weights[0]).add_(previous.float(), alpha=weights[1])
