"""What an evaluation answers from values computed before it: weights of them, and nothing but arithmetic.

`Line` needs no calibration: v = v1 + damping * gaps * (v1 - v0), linear in sigma through the last two values.
`Table` holds the calibrated weights of every value that a schedule computes (`multistep`).

The schedule search prices a skip with the very same arithmetic.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from torch import Tensor

# Past three times the known gap a line through two points says more about their noise than about the future.
MAX_HORIZON = 3.0

Weights = tuple[float, ...]


class Forecaster(Protocol):
    """Asked for an evaluation at noise level `sigma`, in the schedule's step `step`.

    known: the noise levels of the values that are there, newest last; the weights are in their order.
    """

    @property
    def keeps(self) -> int:
        """How many values have to be kept."""
        ...

    @property
    def solves(self) -> bool:
        """Whether a computed evaluation's answer is another than its own value."""
        ...

    def answer(self, step: int, sigma: float, known: Sequence[float]) -> Weights:
        """What the evaluation answers. Its own value, if it was computed, is the newest."""
        ...

    def guess(self, step: int, sigma: float, known: Sequence[float]) -> Weights:
        """The evaluation's own value, foretold from those before it."""
        ...


def horizon(sigma: float, newest_sigma: float, previous_sigma: float | None) -> float:
    """How far `sigma` lies past the newest value, in gaps between the last two; 0 where there is no gap."""
    if previous_sigma is None or newest_sigma == previous_sigma:
        return 0.0
    gaps = (sigma - newest_sigma) / (newest_sigma - previous_sigma)
    return min(max(gaps, 0.0), MAX_HORIZON)


@dataclass(frozen=True)
class Line:
    """The line through the last two values, or the last one again (`reuse`).

    damping: a factor per step on the reach of its forecast; none is 1. ahead: the next level of each step, to
    ask for the middle of the step in place of its beginning. That makes a second-order solver
    (Adams-Bashforth) of Euler's method.
    """

    reuse: bool = False
    damping: Weights | None = None
    ahead: Weights | None = None

    @property
    def keeps(self) -> int:
        return 1 if self.reuse else 2

    @property
    def solves(self) -> bool:
        return self.ahead is not None

    def answer(self, step: int, sigma: float, known: Sequence[float]) -> Weights:
        middle = sigma if self.ahead is None else (sigma + self.ahead[step]) / 2
        return self.guess(step, middle, known)

    def guess(self, step: int, sigma: float, known: Sequence[float]) -> Weights:
        if self.reuse or len(known) < 2:
            return (*[0.0] * (len(known) - 1), 1.0)
        trust = 1.0 if self.damping is None else self.damping[step]
        reach = horizon(sigma, known[-1], known[-2]) * trust
        return (*[0.0] * (len(known) - 2), -reach, 1.0 + reach)


@dataclass(frozen=True)
class Table:
    """Weights of every value that a schedule computes.

    levels: the noise levels of its K computed steps. answers: K weights for each step of the clip. guesses: K
    weights for each computed step, of its value by those before it. line: asked where the values that are
    there are not the schedule's.
    """

    levels: Weights
    answers: tuple[Weights, ...]
    guesses: tuple[Weights, ...]
    line: Line

    @property
    def keeps(self) -> int:
        return len(self.levels)

    @property
    def solves(self) -> bool:
        return True

    def foretells(self, sigma: float, known: Sequence[float]) -> bool:
        """Whether the value at `sigma` is the schedule's next one after those that are there."""
        count = len(known)
        return 0 < count < len(self.levels) and self.levels[: count + 1] == (*known, sigma)

    def answer(self, step: int, sigma: float, known: Sequence[float]) -> Weights:
        due = sum(level >= sigma for level in self.levels)
        if tuple(known) != self.levels[:due]:
            return self.line.answer(step, sigma, known)
        return self.answers[step][:due]

    def guess(self, step: int, sigma: float, known: Sequence[float]) -> Weights:
        if not self.foretells(sigma, known):
            return self.line.guess(step, sigma, known)
        return self.guesses[len(known)][: len(known)]


def combine(values: Sequence[Tensor], weights: Weights) -> Tensor:
    """A new tensor: the weighted sum of values of one shape; the values stay as they are."""
    used = [(value, weight) for value, weight in zip(values, weights, strict=True) if weight != 0.0]
    if len(used) == 1 and used[0][1] == 1.0:
        return used[0][0].clone()
    total = used[-1][0].float() * used[-1][1]  # in float32: neighbours of 16 bits differ by rounding mostly
    for value, weight in reversed(used[:-1]):
        total.add_(value.float(), alpha=weight)
    return total
