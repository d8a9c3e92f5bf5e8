"""What a skipped evaluation returns: a weighted sum of the last two computed values.

The weights depend on noise levels only, so the schedule search prices a skip with the very same arithmetic.
"""

from __future__ import annotations

from torch import Tensor

from .config import OnSkip

# Past three times the known gap a line through two points says more about their noise than about the future.
MAX_HORIZON = 3.0


def replay_weights(
    on_skip: OnSkip, sigma: float, newest_sigma: float, previous_sigma: float | None
) -> tuple[float, float]:
    """Weights of (newest, previous) at noise level `sigma`; (1, 0) is plain reuse.

    First-order forecast, linear in sigma: v(sigma) = v1 + (v1 - v0) * (sigma - s1) / (s1 - s0).
    """
    if on_skip == "reuse" or previous_sigma is None or newest_sigma == previous_sigma:
        return 1.0, 0.0
    horizon = (sigma - newest_sigma) / (newest_sigma - previous_sigma)
    horizon = min(max(horizon, 0.0), MAX_HORIZON)
    return 1.0 + horizon, -horizon


def combine(newest: Tensor, previous: Tensor | None, weights: tuple[float, float]) -> Tensor:
    """A new tensor: weights[0] * newest + weights[1] * previous; the inputs stay as they are."""
    if previous is None or weights[1] == 0.0:
        return newest.clone()
    # In float32: the difference of two 16-bit neighbours is mostly rounding.
    return (newest.float() * weights[0]).add_(previous.float(), alpha=weights[1])
