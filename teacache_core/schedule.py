"""Which steps to compute: the set that loses least at a given cost, found by a dynamic programme.

A recording of one full run knows the inner products of the velocities of all its steps. Since a skipped step
returns
a weighted sum of two computed velocities, the error of any skip is a quadratic form in these products: no
tensor is needed here, and every schedule can be priced. The price of a window of skipped steps is the length
of the error it adds to the latents, |sum_i dsigma_i * (v_i - forecast_i)|; windows add up.

Legend: N steps; a <= b the last two computed steps (a == b: only one so far); c the next one (N: the end).
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import Tensor

from .config import OnSkip, StepCacheConfig
from .forecast import replay_weights


def step_weights(sigmas: Sequence[float]) -> list[float]:
    """|dsigma| of each step: how far its velocity moves the latents. `sigmas` holds N + 1 levels."""
    return [abs(here - there) for here, there in pairwise(sigmas)]


def window_costs(gram: Tensor, sigmas: Sequence[float], on_skip: OnSkip) -> Tensor:
    """costs[a, b, c]: error added to the latents by skipping every step strictly between b and c.

    gram: (N, N) float64, inner products of the steps' velocities; sigmas: N + 1 levels. Returns (N, N, N +
    1).
    """
    count = gram.shape[0]
    weights = step_weights(sigmas)
    costs = torch.full((count, count, count + 1), float("inf"), dtype=torch.float64)
    for b in range(count):
        for a in range(b + 1):
            previous = None if a == b else sigmas[a]
            rows = [[0.0] * count for _ in range(b, count)]  # row k: error of skipping step b+k
            for row, step in zip(rows[1:], range(b + 1, count), strict=True):
                newest_weight, previous_weight = replay_weights(on_skip, sigmas[step], sigmas[b], previous)
                row[step] += weights[step]
                row[b] -= weights[step] * newest_weight
                row[a] -= weights[step] * previous_weight
            errors = torch.tensor(rows, dtype=torch.float64).cumsum(0)  # row k: of skipping b+1 .. b+k
            costs[a, b, b + 1 :] = ((errors @ gram) * errors).sum(-1).clamp_min(0.0).sqrt()
    return costs


def forbid(costs: Tensor, sigmas: Sequence[float], config: StepCacheConfig) -> Tensor:
    """Price windows that the user's limits rule out at infinity."""
    count = costs.shape[0]
    first = sigmas[0]
    forced = [
        not config.start_percent <= 1.0 - sigmas[step] / first <= config.end_percent
        or (config.compute_last and step == count - 1)
        for step in range(count)
    ]
    costs = costs.clone()
    for b in range(count):
        for c in range(b + 1, count + 1):
            too_long = config.max_consecutive_skips is not None and c - b - 1 > config.max_consecutive_skips
            if too_long or any(forced[b + 1 : c]):
                costs[:, b, c] = float("inf")
    return costs


def cheapest_steps(costs: Tensor, computed: int) -> tuple[list[int], float]:
    """The `computed` steps of least total cost, always with step 0, and that cost. More only if limits demand
    it.
    """
    count = costs.shape[0]
    best = [costs[:, :, count]]  # best[k][a, b]: cost after b with k more steps to compute
    choices: list[Tensor] = []
    for left in range(1, count):
        total = costs[:, :, :count] + best[-1].unsqueeze(0)  # [a, b, c]
        least, choice = total.min(dim=-1)
        best.append(least)
        choices.append(choice)
        if left >= computed - 1 and torch.isfinite(least[0, 0]):
            break
    left = _first_feasible(best, computed - 1)
    steps, a, b = [0], 0, 0
    for remaining in range(left, 0, -1):
        a, b = b, int(choices[remaining - 1][a, b])
        steps.append(b)
    return steps, float(best[left][0, 0])


def _first_feasible(best: list[Tensor], least_steps: int) -> int:
    for left in range(min(least_steps, len(best) - 1), len(best)):
        if torch.isfinite(best[left][0, 0]):
            return left
    return len(best) - 1


def resample(gram: Tensor, known: Sequence[float], wanted: Sequence[float]) -> Tensor:
    """Inner products at other noise levels, velocities taken as linear in sigma between the known ones.

    known: N levels of `gram`'s rows, falling; wanted: M levels. Returns (M, M).
    """
    if len(known) == len(wanted) and all(abs(x - y) < 1e-6 for x, y in zip(known, wanted, strict=True)):
        return gram
    mix = torch.zeros(len(wanted), len(known), dtype=torch.float64)
    for row, sigma in enumerate(wanted):
        right = next((i for i, level in enumerate(known) if level <= sigma), len(known) - 1)
        left = max(right - 1, 0)
        gap = known[left] - known[right]
        share = min(max((known[left] - sigma) / gap, 0.0), 1.0) if gap > 0 else 1.0
        mix[row, left] += 1.0 - share
        mix[row, right] += share
    return mix @ gram @ mix.T


def as_mask(steps: Sequence[int], count: int) -> str:
    """Steps as the text of a mask: "1" computed, "0" skipped."""
    chosen = set(steps)
    return "".join("1" if step in chosen else "0" for step in range(count))


def plan_schedule(
    gram: Tensor, known: Sequence[float], sigmas: Sequence[float], config: StepCacheConfig
) -> str:
    """The mask for a run over `sigmas` (N + 1 levels) at `config.target_speedup`, from a recording at
    `known`.
    """
    count = len(sigmas) - 1
    computed = max(1, int(count / (config.target_speedup or 1.0) + 1e-9))
    costs = window_costs(resample(gram, known, sigmas[:-1]), sigmas, config.on_skip)
    steps, _ = cheapest_steps(forbid(costs, sigmas, config), computed)
    return as_mask(steps, count)
