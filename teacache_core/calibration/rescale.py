"""From a signal's change to an output's, and from a public threshold to this checkpoint's: fits."""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import partial

import torch

from ..metric import polynomial, to_floats

PUBLISHED_TABLE = ((0.09, 1.5), (0.15, 2.0), (0.25, 2.5))
"""The original project's table: this threshold gives this many times fewer computed evaluations."""

DEGREE = 4


def fit_polynomial(
    x: Sequence[float], y: Sequence[float], weights: Sequence[float] | None = None, degree: int = DEGREE
) -> tuple[tuple[float, ...], float]:
    """Weighted least squares, highest power first, and R squared; few points lower the degree."""
    degree = min(degree, len(set(x)) - 1)
    scale = max(map(abs, x)) or 1.0  # x / scale keeps the system well conditioned
    points = torch.tensor(x, dtype=torch.float64) / scale
    values = torch.tensor(y, dtype=torch.float64)
    powers = torch.arange(degree, -1, -1, dtype=torch.float64)
    trust = torch.tensor(weights or [1.0] * len(x), dtype=torch.float64)
    rows = trust.sqrt()
    terms = points[:, None] ** powers
    solution = torch.pinverse(terms * rows[:, None]) @ (values * rows)
    coefficients = tuple(to_floats(solution / scale**powers))
    residual = values - torch.tensor([polynomial(coefficients, value) for value in x], dtype=torch.float64)
    spread = (trust * (values - (trust * values).sum() / trust.sum()).square()).sum()
    return coefficients, float(1.0 - (trust * residual.square()).sum() / spread.clamp_min(1e-30))


def count_computed(increments: Sequence[float], threshold: float, *, compute_last: bool = False) -> int:
    """Evaluations that TeaCache computes in a run with these changes; the first one always."""
    computed, accumulated = 1, 0.0
    for step, increment in enumerate(increments, start=1):
        accumulated += increment
        if accumulated >= threshold or (compute_last and step == len(increments)):
            computed, accumulated = computed + 1, 0.0
    return computed


def fit_thresholds(
    increments: Sequence[Sequence[float]], *, compute_last: bool = False
) -> tuple[tuple[float, float], ...]:
    """Effective thresholds that make the published table hold on the recorded runs; increasing."""
    largest = max((sum(run) for run in increments), default=0.0)
    if largest <= 0:
        return PUBLISHED_TABLE
    grid = to_floats(torch.logspace(-3, 0, 1200, dtype=torch.float64) * largest)
    evaluations = sum(len(run) + 1 for run in increments)

    count = partial(count_computed, compute_last=compute_last)
    speedups = [evaluations / sum(count(run, threshold) for run in increments) for threshold in grid]
    pairs: list[tuple[float, float]] = []
    for public, wanted in PUBLISHED_TABLE:
        miss = [abs(math.log(speedup / wanted)) for speedup in speedups]
        best = [threshold for threshold, value in zip(grid, miss, strict=True) if value <= min(miss) + 1e-12]
        effective = best[len(best) // 2]  # the middle of the plateau is the safest for other videos
        floor = pairs[-1][1] if pairs else 0.0
        pairs.append((public, max(effective, floor)))
    return tuple(pairs)
