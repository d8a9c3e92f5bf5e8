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

All weights of an error sum to zero, so the arithmetic is in differences u_i = v_i - v_0, and v_0 takes up
what is left. Orthogonalising u_k in the order of S gives the errors of all stretches at once; many sets S are
priced together by one batched Cholesky factorisation.

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
from .metric import to_floats
from .schedule import forced_steps, step_weights

RIDGE = 0.12
"""Times the spread and the values' mean square: keeps weights near those of holding each value until the next
one, the more so the less the recordings agree."""

ON_THE_WAY = 25.0
"""Times the spread: what the errors at computed steps count beside the one at the end. The net is evaluated
there, and the end's, a small difference of large numbers, is the first thing that other clips spoil."""

ONE_CLIP, LEAST = 0.003, 0.001
"""The spread where a single recording cannot tell: that of one person's clips with the bundled model. And the
least that is believed: the same clip twice agrees, and knows nothing of others."""

_MOST_EXCHANGES = 2000  # priced at once: all pairs of 20 steps


@dataclass(frozen=True)
class Multistep:
    """A schedule and its weights.

    steps: the K computed ones. answers: (N, K). guesses: (K, K), of each computed value by those before it.
    errors: (K,), what the guesses are expected to be off by, squared. loss: the same of the latents' end.
    """

    steps: tuple[int, ...]
    answers: Tensor
    guesses: Tensor
    errors: Tensor
    loss: float


def target_weights(sigmas: Sequence[float], target: Target) -> Tensor:
    """(N, N + 1) float64: column c holds the weights t_c. `sigmas` holds N + 1 levels."""
    lengths = torch.tensor(step_weights(sigmas), dtype=torch.float64)
    moves = lengths.diag()  # column i: what step i adds
    if target == "converged":
        for step in range(1, len(lengths)):
            turn = lengths[step] ** 2 / (2 * lengths[step - 1])
            moves[step, step] += turn
            moves[step - 1, step] -= turn
    return torch.cat([torch.zeros(len(lengths), 1, dtype=torch.float64), moves.cumsum(1)], dim=1)


class Search:
    """Prices sets of steps of one run, and finds a good one.

    gram: (N, N) float64, inner products of the steps' values; sigmas: N + 1 levels; spread: of `spread_of`.
    """

    def __init__(
        self, gram: Tensor, sigmas: Sequence[float], config: StepCacheConfig, spread: float = ONE_CLIP
    ) -> None:
        self.count, self.spread = gram.shape[0], spread
        self.gram = _differences(gram)
        self.target = target_weights(sigmas, config.target)
        lengths = torch.tensor([0.0, *step_weights(sigmas)], dtype=torch.float64)
        self.lengths, self.travelled = lengths[1:], lengths.cumsum(0)
        self.forced = {0, *forced_steps(sigmas, config)}
        self.longest = (
            self.count if config.max_consecutive_skips is None else config.max_consecutive_skips + 1
        )

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
        errors = self._solve(torch.tensor(sets))[0]
        return errors[:, -1] + ON_THE_WAY * self.spread * errors[:, :-1].sum(1)

    def weights(self, steps: Sequence[int]) -> Multistep:
        """The weights of a set of steps."""
        _, factor, along, held = (part[0] for part in self._solve(torch.tensor([steps])))
        count, ends = len(steps), [*steps[1:], self.count]
        answers = torch.zeros(self.count, count, dtype=torch.float64)
        before = torch.zeros(count, dtype=torch.float64)
        for stretch, (b, c) in enumerate(zip(steps, ends, strict=True)):
            after = torch.zeros(count, dtype=torch.float64)
            after[: stretch + 1] = held[: stretch + 1]
            after[1 : stretch + 1] += _back_substitute(factor, along[:, stretch], stretch)
            after[0] += self.target[:, c].sum() - after.sum()
            answers[b:c] = (after - before) / (self.travelled[c] - self.travelled[b])
            before = after
        guesses = torch.zeros(count, count, dtype=torch.float64)
        for index in range(1, count):
            guesses[index, 1:index] = _back_substitute(factor, factor[index - 1], index - 1)
            guesses[index, 0] = 1.0 - guesses[index].sum()
        missed = torch.cat([torch.zeros(1, dtype=torch.float64), factor.diagonal().square()])
        left = self.target[:, -1].clone()
        left[steps] -= before
        return Multistep(tuple(steps), answers, guesses, missed, float(left @ self.gram @ left))

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
        """All sets with so many other steps; none where they are too many."""
        others = sorted(set(range(self.count)) - set(steps))
        choices = math.comb(len(steps) - 1, together) * math.comb(len(others), together)
        if together > 1 and choices > _MOST_EXCHANGES:
            return []
        return self._allowed(
            [
                sorted({*steps, *new} - {*old})
                for old in combinations(steps[1:], together)
                for new in combinations(others, together)
            ]
        )

    def _solve(self, sets: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """For (B, K) sets: squared errors of the stretches (B, K), Cholesky factors (B, K - 1, K - 1) of the
        differences' gram, the targets along the orthogonal directions (B, K - 1, K), and the weights (B, K)
        of holding each value until the next one.
        """
        batch, count = sets.shape
        ends = torch.cat([sets[:, 1:], torch.full((batch, 1), self.count)], dim=1)
        held = self.travelled[ends] - self.travelled[sets]
        known = torch.ones(count, count, dtype=torch.float64).triu()  # [k, stretch]: is value k there?
        rest = self.target[:, ends].permute(1, 0, 2).clone()  # (B, N, K): what holding leaves to be done
        rest.scatter_add_(1, sets[:, :, None].expand(-1, -1, count), -held[:, :, None] * known)
        seen = self.gram @ rest
        left = (rest * seen).sum(1)
        pivots = sets[:, 1:]
        inner = self.gram[pivots[:, :, None], pivots[:, None, :]]
        ridge = RIDGE * self.spread * self.gram.diagonal().mean() + 1e-30
        factor = _cholesky(inner + ridge * torch.eye(count - 1, dtype=torch.float64))
        along = seen.gather(1, pivots[:, :, None].expand(-1, -1, count))
        along = _solve_triangular(factor, along) * known[1:]
        return (left - along.square().sum(1)).clamp_min(0.0), factor, along, held


def _back_substitute(factor: Tensor, along: Tensor, count: int) -> Tensor:
    """Weights of the first `count` differences from a target along their orthogonal directions."""
    triangle, part = factor[:count, :count].T, along[:count, None]
    return _solve_triangular(triangle, part, upper=True)[:, 0]


def _cholesky(inner: Tensor) -> Tensor:
    return cast("Tensor", torch.linalg.cholesky(inner))  # pyright: ignore[reportUnknownMemberType]


def _solve_triangular(factor: Tensor, right: Tensor, *, upper: bool = False) -> Tensor:
    solved = torch.linalg.solve_triangular(factor, right, upper=upper)  # pyright: ignore[reportUnknownMemberType, reportUnknownVariableType]
    return cast("Tensor", solved)


def plan_multistep(
    gram: Tensor, sigmas: Sequence[float], config: StepCacheConfig, computed: int, spread: float = ONE_CLIP
) -> Multistep:
    """The schedule of `computed` steps for a run over `sigmas` (N + 1 levels), and its weights."""
    search = Search(gram, sigmas, config, spread)
    return search.weights(search.best(computed))


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
