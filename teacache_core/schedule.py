"""Which steps to compute under a line, and how far to trust each forecast: the plan that loses least.

What a clip is planned with where a calibration's weights (`multistep`) do not fit.

A recording of one full run knows the inner products of the velocities of all its steps. A skipped step
returns v_b + damping * gaps * (v_b - v_a), so the length of its error follows from these products: no tensor
is needed here, and every schedule can be priced. The best damping of each forecast has a closed form.

What the skipped steps between two computed ones add to the latents, sum_i dsigma_i * |error_i|, is one
window's error. Errors of one window point the same way, those of different windows do not, so windows are
squared and added. A dynamic programme finds the cheapest set; shifts of single steps and a joint fit of the
dampings then shorten the error of the run as a whole.

Legend: N steps; a <= b the last two computed steps (a == b: only one so far); c the next one (N: the end).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import torch
from torch import Tensor

from .config import OnSkip, StepCacheConfig
from .forecast import horizon
from .metric import same_levels, to_floats

MAX_DAMPING = 2.0
BALANCE_RIDGE = 0.2
_SMALLEST = 1e-30


def step_weights(sigmas: Sequence[float]) -> list[float]:
    """|dsigma| of each step: how far its velocity moves the latents. `sigmas` holds N + 1 levels."""
    return [abs(here - there) for here, there in pairwise(sigmas)]


def fit_forecast(
    gram: Tensor, sigmas: Sequence[float], on_skip: OnSkip, a: int, b: int
) -> tuple[Tensor, Tensor]:
    """(damping, squared error) of forecasting each step after b from a and b: two (N - b - 1,) tensors."""
    gaps = _gaps(sigmas, on_skip, a, b, gram.shape[0])
    moved = gram.diagonal()[b + 1 :] - 2 * gram[b + 1 :, b] + gram[b, b]  # |v_i - v_b|^2
    slope = gram[b, b] - 2 * gram[a, b] + gram[a, a]  # |v_b - v_a|^2
    along = gram[b + 1 :, b] - gram[b + 1 :, a] - gram[b, b] + gram[a, b]  # (v_i - v_b) . (v_b - v_a)
    damping = (along / (gaps * slope).clamp_min(_SMALLEST)).clamp(0.0, MAX_DAMPING)
    reach = damping * gaps
    return damping, (moved - 2 * reach * along + reach.square() * slope).clamp_min(0.0)


def _gaps(sigmas: Sequence[float], on_skip: OnSkip, a: int, b: int, count: int) -> Tensor:
    """Horizon of each step after b."""
    if on_skip == "reuse" or a == b:
        return torch.zeros(count - b - 1, dtype=torch.float64)
    gaps = [horizon(sigmas[step], sigmas[b], sigmas[a]) for step in range(b + 1, count)]
    return torch.tensor(gaps, dtype=torch.float64)


def window_costs(gram: Tensor, sigmas: Sequence[float], on_skip: OnSkip) -> Tensor:
    """costs[a, b, c]: price of skipping every step strictly between b and c.

    gram: (N, N) float64, inner products of the steps' velocities; sigmas: N + 1 levels; gives (N, N, N + 1).
    """
    count = gram.shape[0]
    weights = torch.tensor(step_weights(sigmas), dtype=torch.float64)
    costs = torch.full((count, count, count + 1), float("inf"), dtype=torch.float64)
    for b in range(count):
        for a in range(b + 1):
            _, squared = fit_forecast(gram, sigmas, on_skip, a, b)
            costs[a, b, b + 1] = 0.0
            costs[a, b, b + 2 :] = (weights[b + 1 :] * squared.sqrt()).cumsum(0).square()
    return costs


def forced_steps(sigmas: Sequence[float], config: StepCacheConfig) -> list[int]:
    """Steps that the user's limits do not let be skipped, of those over `sigmas` (N + 1 levels)."""
    last = len(sigmas) - 2
    return [
        step
        for step in range(last + 1)
        if not config.start_percent <= 1.0 - sigmas[step] / sigmas[0] <= config.end_percent
        or (config.compute_last and step == last)
    ]


def forbid(costs: Tensor, sigmas: Sequence[float], config: StepCacheConfig) -> Tensor:
    """Price windows that the user's limits rule out at infinity."""
    count, forced = costs.shape[0], set(forced_steps(sigmas, config))
    costs = costs.clone()
    for b in range(count):
        for c in range(b + 1, count + 1):
            too_long = config.max_consecutive_skips is not None and c - b - 1 > config.max_consecutive_skips
            if too_long or not forced.isdisjoint(range(b + 1, c)):
                costs[:, b, c] = float("inf")
    return costs


def cheapest_steps(costs: Tensor, computed: int) -> tuple[list[int], float]:
    """The `computed` steps of least total cost, always with step 0, and that cost; more if limits demand."""
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


def window_errors(gram: Tensor, sigmas: Sequence[float], on_skip: OnSkip, a: int, b: int) -> Tensor:
    """(N - b, N), row k: what skipping the k steps after b adds to the latents, as weights of velocities."""
    count = gram.shape[0]
    damping, _ = fit_forecast(gram, sigmas, on_skip, a, b)
    reach = damping * _gaps(sigmas, on_skip, a, b, count)
    rows = torch.zeros(count - b, count, dtype=torch.float64)
    skipped = torch.arange(1, count - b)
    rows[skipped, b + skipped] = 1.0
    rows[1:, b] -= 1.0 + reach
    rows[1:, a] += reach
    weights = torch.tensor(step_weights(sigmas)[b:], dtype=torch.float64)
    return (rows * weights[:, None]).cumsum(0)


def refine(
    gram: Tensor, sigmas: Sequence[float], on_skip: OnSkip, costs: Tensor, steps: list[int]
) -> list[int]:
    """Shift computed steps one by one while that shortens the whole run's error and no limit forbids it.

    The dynamic programme cannot see that errors of different windows may add up or cancel; this does.
    """
    known: dict[tuple[int, int], Tensor] = {}

    def price(steps: Sequence[int]) -> float:
        total = torch.zeros(gram.shape[0], dtype=torch.float64)
        for a, b, c in zip((steps[0], *steps), steps, (*steps[1:], gram.shape[0]), strict=False):
            if not math.isfinite(costs[a, b, c]):
                return math.inf
            if (a, b) not in known:
                known[a, b] = window_errors(gram, sigmas, on_skip, a, b)
            total += known[a, b][c - b - 1]
        return float(total @ gram @ total)

    best = price(steps)
    while True:
        shifted = [
            [*steps[:index], step + shift, *steps[index + 1 :]]
            for index, step in enumerate(steps)
            for shift in (-2, -1, 1, 2)
            if index and (*steps, gram.shape[0])[index + 1] > step + shift > steps[index - 1]
        ]
        least, choice = min(((price(candidate), candidate) for candidate in shifted), default=(best, steps))
        if least >= best * (1 - 1e-9):
            return steps
        best, steps = least, choice


def balance(gram: Tensor, sigmas: Sequence[float], on_skip: OnSkip, steps: Sequence[int]) -> list[float]:
    """One damping per step, such that the errors of a run cancel best; computed steps have 1.

    Each starts from what suits its own forecast; a ridge keeps them near, since the latents have to be right
    on the way, too.
    """
    count = gram.shape[0]
    weights, damping = step_weights(sigmas), [1.0] * count
    total = torch.zeros(count, dtype=torch.float64)
    slopes: dict[int, Tensor] = {}  # of a skipped step: what one more unit of damping adds to the latents
    for a, b, c in zip((steps[0], *steps), steps, (*steps[1:], count), strict=False):
        fitted, _ = fit_forecast(gram, sigmas, on_skip, a, b)
        gaps = _gaps(sigmas, on_skip, a, b, count)
        total += window_errors(gram, sigmas, on_skip, a, b)[c - b - 1]
        for step in range(b + 1, c):
            damping[step], gap = float(fitted[step - b - 1]), float(gaps[step - b - 1])
            if gap > 0:
                slopes[step] = torch.zeros(count, dtype=torch.float64)
                slopes[step][b], slopes[step][a] = weights[step] * gap, -weights[step] * gap
    if slopes:
        basis = torch.stack(list(slopes.values()))
        inner = basis @ gram @ basis.T
        inner += BALANCE_RIDGE * inner.diagonal().mean() * torch.eye(len(slopes), dtype=torch.float64)
        change = torch.pinverse(inner) @ (basis @ gram @ total)
        for step, value in zip(slopes, to_floats(change), strict=True):
            damping[step] = min(max(damping[step] + value, 0.0), MAX_DAMPING)
    return damping


def resample(gram: Tensor, known: Sequence[float], wanted: Sequence[float]) -> Tensor:
    """Inner products at other noise levels, velocities taken as linear in sigma between the known ones.

    known: N levels of `gram`'s rows, falling; wanted: M levels. Returns (M, M).
    """
    if same_levels(known, wanted):
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


@dataclass(frozen=True)
class Schedule:
    """mask: "1" computed, "0" skipped. damping: one factor per step, how far to trust its forecast."""

    mask: str
    damping: tuple[float, ...]


def computed_steps(count: int, config: StepCacheConfig) -> int:
    """How many of `count` steps `config.target_speedup` asks for."""
    return max(1, int(count / (config.target_speedup or 1.0) + 1e-9))


def plan_schedule(
    gram: Tensor, known: Sequence[float], sigmas: Sequence[float], config: StepCacheConfig
) -> Schedule:
    """For a run over `sigmas` (N + 1 levels) at `config.target_speedup`, from a recording at `known`."""
    count = len(sigmas) - 1
    gram = resample(gram, known, sigmas[:-1])
    costs = forbid(window_costs(gram, sigmas, config.on_skip), sigmas, config)
    steps, _ = cheapest_steps(costs, computed_steps(count, config))
    steps = refine(gram, sigmas, config.on_skip, costs, steps)
    damping = balance(gram, sigmas, config.on_skip, steps)
    return Schedule(as_mask(steps, count), tuple(damping))
