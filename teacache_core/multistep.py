"""Which steps to compute, and with which weights their values make up for the others.

With Euler's method the latents end at x_0 - sum_i w_i v_i, where w_i = |dsigma_i| and v_i is step i's value.
A target says what the latents should have moved by up to each level c, as weights t_c of all steps' values:
those of Euler's method ("same"), or those of the second-order Adams-Bashforth method ("converged").
From the computed steps S before c come the weights a_c (sum a_c = sum t_c) that make
|sum_i t_c,i v_i - sum_k a_c,k v_k| least. A recording of one full run knows the inner products of all its
steps' values, so this needs no tensor of a net's size, and every set of steps can be priced.

Every evaluation from one computed step b up to the next one c answers with the same value,
sum_k (a_c,k - a_b,k) v_k / sum_(b<=i<c) w_i, so that Euler's method lands on x_c. Each stretch aims at x_c
itself and so corrects what the earlier ones missed.

A computed value is not the recording's: where the latents are off by e, the net sees it and answers
v_k + J_k e, which pulls them back. Weights that ignore this correct the same miss twice. J_k is taken as a
number (`feedback`, times a strength that is learned), so that every computed value stays a weighted sum of
the recorded ones, and so does what the better solver of "converged" would have seen.

All weights of an error sum to zero, so the arithmetic is in differences u_i = v_i - v_0, and v_0 takes up
what is left. Orthogonalising the computed values in their order gives the weights stretch by stretch; many
sets S are priced together, as a batch.

Legend: N steps, K of them computed, B sets of steps.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import cast

import torch
from torch import Tensor

from .config import StepCacheConfig, Target
from .feedback import shape
from .metric import to_floats
from .schedule import forced_steps, step_weights

RIDGE = 0.12
"""Times the spread and the values' mean square: keeps weights near those of holding each value until the next
one, the more so the less the recordings agree."""

ON_THE_WAY, FEW = 25.0, 5.8
"""Times the spread: what the errors at computed steps count beside the one at the end; times (FEW / K)^3 too
where K < FEW steps are computed (tuned, so no whole number). The net is evaluated there, and the end's, a
small difference of large numbers, is the first thing that other clips spoil."""

ONE_CLIP, LEAST = 0.003, 0.001
"""The spread where a single recording cannot tell: that of one person's clips with the bundled model. And the
least that is believed: the same clip twice agrees, and knows nothing of others."""

_MOST_EXCHANGES, _MOST_SINGLE = 2000, 300  # priced at once: all pairs, and all single ones, of 20 steps


@dataclass(frozen=True)
class Multistep:
    """A schedule and its weights.

    steps: the K computed ones. answers: (N, K). guesses: (K, K), of each computed value by those before it.
    errors: (K,), what the guesses are expected to be off by, squared, with the ridge's part. loss: of the
    latents' end, without it.
    """

    steps: tuple[int, ...]
    answers: Tensor
    guesses: Tensor
    errors: Tensor
    loss: float


def target_weights(sigmas: Sequence[float], target: Target, feedback: Tensor | None = None) -> Tensor:
    """(N, N + 1) float64: column c holds the weights t_c. `sigmas` holds N + 1 levels; feedback: (N,), what
    values move by per latents that are off; none for values that are the recorded ones wherever those are. No
    step answers by more than it is long: the method would leave the run in place of returning to it.
    """
    lengths = torch.tensor(step_weights(sigmas), dtype=torch.float64)
    count = len(lengths)
    recorded = torch.cat([torch.zeros(count, 1, dtype=torch.float64), lengths.diag().cumsum(1)], dim=1)
    if target == "same":
        return recorded
    shares = torch.zeros_like(lengths) if feedback is None else torch.minimum(feedback, 1.0 / lengths)
    moved = torch.zeros_like(recorded)
    before = torch.zeros(count, dtype=torch.float64)
    for step in range(count):
        value = -shares[step] * (moved[:, step] - recorded[:, step])
        value[step] += 1.0
        turn = lengths[step] ** 2 / (2 * lengths[step - 1]) if step else 0.0
        moved[:, step + 1] = moved[:, step] + lengths[step] * value + turn * (value - before)
        before = value
    return moved


@dataclass(frozen=True)
class _Walks:
    """What B sets of steps come to. errors: (B, K), squared, of the stretches. factor: (B, K - 1, K - 1),
    Cholesky's of the computed values' differences; along: (B, K, K - 1), what each stretch takes of the
    directions that it makes orthogonal. held: (B, K), the weights of holding each value until the next one.
    moved: (B, N), in the end, of the recorded values.
    """

    errors: Tensor
    factor: Tensor
    along: Tensor
    held: Tensor
    moved: Tensor


class Search:
    """Prices sets of steps of one run, and finds a good one.

    gram: (N, N) float64, inner products of the steps' values; sigmas: N + 1 levels; spread: of `spread_of`;
    pull: how strongly the net answers latents that are off, beside `feedback.shape` at this guidance.
    """

    def __init__(
        self,
        gram: Tensor,
        sigmas: Sequence[float],
        config: StepCacheConfig,
        spread: float = ONE_CLIP,
        *,
        pull: float = 0.0,
        guidance_scale: float | None = None,
    ) -> None:
        self.count, self.spread = gram.shape[0], spread
        self.gram = _differences(gram)
        self.ridge = RIDGE * spread * self.gram.diagonal().mean() + 1e-30
        self.shape = shape(sigmas, guidance_scale)
        self.feedback = pull * self.shape
        self.recorded = target_weights(sigmas, "same").T.contiguous()  # (N + 1, N), as `target` is
        self.target = target_weights(sigmas, config.target, self.feedback).T.contiguous()
        lengths = torch.tensor([0.0, *step_weights(sigmas)], dtype=torch.float64)
        self.lengths, self.travelled = lengths[1:], lengths.cumsum(0)
        self.forced = {0, *forced_steps(sigmas, config)}
        self.longest = (
            self.count if config.max_consecutive_skips is None else config.max_consecutive_skips + 1
        )

    def plan(self, computed: int) -> Multistep:
        """A good schedule of `computed` steps, and its weights."""
        return self.weights(self.best(computed))

    def best(self, computed: int) -> list[int]:
        """A good set of `computed` steps, more only if the limits demand it.

        Steps are taken away one by one, always the least missed one; then, and from evenly spread steps,
        steps are exchanged while that helps.
        """
        steps = list(range(self.count))
        while len(steps) > computed:
            fewer = self._allowed([[*steps[:i], *steps[i + 1 :]] for i in range(1, len(steps))])
            if not fewer:
                break
            steps = fewer[int(self.prices(fewer).argmin())]
        even = sorted({round(index * self.count / len(steps)) for index in range(len(steps))})
        found = [self._exchange(start) for start in [steps, *self._allowed([even])]]
        return min(found)[1]

    def prices(self, sets: Sequence[Sequence[int]]) -> Tensor:
        """(B,): the squared error of the latents' end, and a share of those on the way."""
        errors = self._walk(torch.tensor(sets)).errors
        on_the_way = ON_THE_WAY * max(1.0, FEW / errors.shape[1]) ** 3
        return errors[:, -1] + on_the_way * self.spread * errors[:, :-1].sum(1)

    def weights(self, steps: Sequence[int]) -> Multistep:
        """The weights of a set of steps."""
        walks = self._walk(torch.tensor([steps]))
        factor, along, held = walks.factor[0], walks.along[0], walks.held[0]
        count, ends = len(steps), [*steps[1:], self.count]
        answers = torch.zeros(self.count, count, dtype=torch.float64)
        before = torch.zeros(count, dtype=torch.float64)
        for stretch, (b, c) in enumerate(zip(steps, ends, strict=True)):
            after = torch.zeros(count, dtype=torch.float64)
            after[: stretch + 1] = held[: stretch + 1]
            added = _back_substitute(factor, along[stretch], stretch)
            after[1 : stretch + 1] += added
            after[0] -= added.sum()
            answers[b:c] = (after - before) / (self.travelled[c] - self.travelled[b])
            before = after
        guesses = torch.zeros(count, count, dtype=torch.float64)
        for index in range(1, count):
            guesses[index, 1:index] = _back_substitute(factor, factor[index - 1], index - 1)
            guesses[index, 0] = 1.0 - guesses[index].sum()
        missed = torch.cat([torch.zeros(1, dtype=torch.float64), factor.diagonal().square()])
        left = self.target[-1] - walks.moved[0]
        return Multistep(tuple(steps), answers, guesses, missed, float(left @ self.gram @ left))

    def misses(self, planned: Multistep, pull: float, ridge: float = 1.0) -> Tensor:
        """(K,): what the guesses of `planned` are off by, squared, on a net of any pull, not only the plan's.
        ridge: the share of it that is added, for what clips differ by.
        """
        feedback = pull * self.shape
        values = torch.zeros(len(planned.steps), self.count, dtype=torch.float64)
        moved = torch.zeros(self.count, dtype=torch.float64)
        off = torch.zeros(len(planned.steps), dtype=torch.float64)
        for step in range(self.count):
            if step in planned.steps:
                k = planned.steps.index(step)
                values[k] = -feedback[step] * (moved - self.recorded[step])
                values[k, step] += 1.0
                missed, weights = values[k] - planned.guesses[k] @ values, planned.guesses[k, 1:]
                off[k] = missed @ self.gram @ missed + ridge * self.ridge * (1.0 + weights.square().sum())
            moved = moved + self.lengths[step] * (planned.answers[step] @ values)
        off[0] = 0.0
        return off

    def _allowed(self, sets: list[list[int]]) -> list[list[int]]:
        """Those that keep the user's limits."""
        return [
            steps
            for steps in sets
            if self.forced <= set(steps)
            and all(c - b <= self.longest for b, c in zip(steps, [*steps[1:], self.count], strict=True))
        ]

    def _exchange(self, steps: list[int]) -> tuple[float, list[int]]:
        """Exchange one step, or two where choices are few, while that lowers the price: price and steps."""
        price, together = float(self.prices([steps])[0]), 1
        while together <= 2:
            sets = self._exchanges(steps, together)
            prices = self.prices(sets) if sets else torch.tensor([math.inf])
            least = int(prices.argmin())
            if float(prices[least]) < price * (1 - 1e-9):
                price, steps, together = float(prices[least]), sets[least], 1
            else:
                together += 1
        return price, steps

    def _exchanges(self, steps: list[int], together: int) -> list[list[int]]:
        """All sets with so many other steps. Where they are too many, single steps move between their
        neighbours only, and pairs not at all.
        """
        others = sorted(set(range(self.count)) - set(steps))
        choices = math.comb(len(steps) - 1, together) * math.comb(len(others), together)
        if together == 1 and choices > _MOST_SINGLE:
            between = zip(steps, steps[1:], [*steps[2:], self.count], strict=False)
            moves = [(old, new) for a, old, c in between for new in others if a < new < c]
            return self._allowed([sorted({*steps, new} - {old}) for old, new in moves])
        if together > 1 and choices > _MOST_EXCHANGES:
            return []
        return self._allowed(
            [
                sorted({*steps, *new} - {*old})
                for old in combinations(steps[1:], together)
                for new in combinations(others, together)
            ]
        )

    def _walk(self, sets: Tensor) -> _Walks:
        """For (B, K) sets, stretch by stretch: what has moved decides what the next computed value is."""
        (batch, count), each = sets.shape, torch.arange(len(sets))
        ends = torch.cat([sets[:, 1:], torch.full((batch, 1), self.count)], dim=1)
        held = self.travelled[ends] - self.travelled[sets]
        directions = torch.zeros(batch, count - 1, self.count, dtype=torch.float64)
        seen = torch.zeros_like(directions)  # their inner products with the recorded values
        factor = torch.zeros(batch, count - 1, count - 1, dtype=torch.float64)
        along = torch.zeros(batch, count, count - 1, dtype=torch.float64)
        errors = torch.zeros(batch, count, dtype=torch.float64)
        moved = base = torch.zeros(batch, self.count, dtype=torch.float64)
        for k in range(count):
            step = sets[:, k]
            value = -self.feedback[step, None] * (moved - self.recorded[step])
            value[each, step] += 1.0
            if k:
                row = _product(seen[:, : k - 1], value)
                pivot = ((value @ self.gram * value).sum(1) + self.ridge - row.square().sum(1)).clamp_min(
                    self.ridge
                )
                factor[:, k - 1, : k - 1], factor[:, k - 1, k - 1] = row, pivot.sqrt()
                rest = value - _product(directions[:, : k - 1].mT, row)
                directions[:, k - 1] = rest / pivot.sqrt()[:, None]
                seen[:, k - 1] = directions[:, k - 1] @ self.gram
            base = base + held[:, k, None] * value
            rest = self.target[ends[:, k]] - base
            along[:, k, :k] = _product(seen[:, :k], rest)
            errors[:, k] = (rest @ self.gram * rest).sum(1) - along[:, k].square().sum(1)
            moved = base + _product(directions.mT, along[:, k])
        return _Walks(errors.clamp_min(0.0), factor, along, held, moved)


def _product(matrices: Tensor, vectors: Tensor) -> Tensor:
    """(B, M, N) times (B, N) -> (B, M)."""
    return (matrices @ vectors[:, :, None])[:, :, 0]


def _back_substitute(factor: Tensor, along: Tensor, count: int) -> Tensor:
    """Weights of the first `count` differences from a target along their orthogonal directions."""
    triangle, part = factor[:count, :count].T, along[:count, None]
    return _solve_triangular(triangle, part, upper=True)[:, 0]


def _solve_triangular(factor: Tensor, right: Tensor, *, upper: bool = False) -> Tensor:
    solved = torch.linalg.solve_triangular(factor, right, upper=upper)  # pyright: ignore[reportUnknownMemberType, reportUnknownVariableType]
    return cast("Tensor", solved)


def spread_of(grams: Tensor) -> float:
    """How little recordings agree: the variance of their grams (R, N, N) beside the mean gram's square, of
    the differences to the first value and whatever their size.
    """
    count = len(grams)
    if count < 2:
        return ONE_CLIP
    inner = _differences(grams)
    inner = inner / inner.diagonal(dim1=1, dim2=2).mean(1).clamp_min(1e-30)[:, None, None]
    mean = inner.mean(0)
    found = (inner - mean).square().sum() / ((count - 1) * mean.square().sum().clamp_min(1e-30))
    return max(LEAST, float(found))


def _differences(gram: Tensor) -> Tensor:
    """Inner products (..., N, N) of values -> of their differences to the first one."""
    first = gram[..., :1, :]
    return gram - first - gram[..., :, :1] + first[..., :1]


def as_rows(weights: Tensor) -> tuple[tuple[float, ...], ...]:
    """A table of weights as Python numbers."""
    return tuple(tuple(to_floats(row)) for row in weights)
