"""Forecasting caches of 2025 and 2026, each from its paper, on the clip's velocities.

All compute evenly spread steps, as their papers do at a fixed interval, but MeanCache, which brings its own
schedule. They forecast what our cache forecasts, the velocity of each branch, and not every block's output.
"""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import Tensor

from benchmarks.rivals import Counter, Rival, Trace, Velocities
from memo_avatar.clips.denoiser import ClipDenoiser
from memo_avatar.clips.solvers import flow_sigmas


class Forecasting(Rival):
    """Computes the steps of a mask and forecasts the others from what was computed.

    known: (step, velocities) of the computed steps, oldest first.
    """

    def __init__(self, denoiser: ClipDenoiser, counter: Counter, steps: int, mask: str) -> None:
        super().__init__(denoiser, counter, steps)
        self.mask = mask
        self.known: list[tuple[int, Velocities]] = []

    def call(self, latents: Tensor, timestep: Tensor) -> tuple[Velocities, bool]:
        if self.mask[self.step] == "1":
            velocities = self.denoiser(latents, timestep)
            self.known.append((self.step, velocities))
            return self.solved(velocities), True
        return self.forecast(), False

    def solved(self, velocities: Velocities) -> Velocities:
        """What a computed step answers."""
        return velocities

    @abstractmethod
    def forecast(self) -> Velocities:
        """What a skipped step answers."""

    def weighted(self, weights: Sequence[float]) -> Velocities:
        """The known velocities, newest last, weighted."""
        found: Velocities = {}
        for branch in self.known[-1][1]:
            pairs = zip(weights, self.known[-len(weights) :], strict=True)
            found[branch] = sum((w * v[branch] for w, (_, v) in pairs), start=torch.zeros(()))
        return found


class TaylorSeer(Forecasting):
    """TaylorSeer (arXiv 2503.06923): a Taylor series whose derivatives are differences of computed steps.

    Derivative i is the difference of derivatives i - 1 at the last two computed steps, over their gap.
    """

    def __init__(self, denoiser: ClipDenoiser, counter: Counter, steps: int, mask: str, order: int) -> None:
        super().__init__(denoiser, counter, steps, mask)
        self.order = order

    def basis(self, ahead: float, degree: int) -> float:
        """What stands for ahead^degree."""
        return ahead**degree

    def forecast(self) -> Velocities:
        steps = [step for step, _ in self.known]
        ahead, weights = self.step - steps[-1], [0.0] * len(steps)
        for degree in range(min(self.order, len(steps) - 1) + 1):
            for index, weight in enumerate(self.difference(steps, degree)):
                weights[index] += weight * self.basis(ahead, degree) / math.factorial(degree)
        return self.weighted(weights)

    def difference(self, steps: Sequence[int], degree: int) -> list[float]:
        """Weights of the known velocities in the newest derivative of this degree."""
        if degree == 0:
            return [0.0] * (len(steps) - 1) + [1.0]
        newer, older = self.difference(steps, degree - 1), [*self.difference(steps[:-1], degree - 1), 0.0]
        gap = steps[-1] - steps[-2]
        return [(a - b) / gap for a, b in zip(newer, older, strict=True)]


class HiCache(TaylorSeer):
    """HiCache (arXiv 2508.16984): TaylorSeer with scaled Hermite polynomials s^n H_n(s x) in place of x^n."""

    scale = 0.5

    def basis(self, ahead: float, degree: int) -> float:
        before, here = 0.0, 1.0
        for n in range(degree):
            before, here = here, 2 * self.scale * ahead * here - 2 * n * before
        return self.scale**degree * here


class Zeus(Forecasting):
    """ZEUS (arXiv 2604.01552): v_n + (v_n - v_(n-1)) in a row's first skipped step, from the last two
    computed ones; the rest of the row reuses it, so that no extrapolation follows another.
    """

    def forecast(self) -> Velocities:
        return self.weighted([1.0] if len(self.known) < 2 else [-1.0, 2.0])


class Spectrum(Forecasting):
    """Spectrum (arXiv 2603.01623): ridge regression on Chebyshev polynomials T0..T4 of all computed steps.

    Of a lower degree while fewer than five are known: the paper's own warm-up would take most of ten. The
    ridge is the best of 1 to 1e-6 on the calibration's clips.
    """

    degree, ridge = 4, 1e-3

    def forecast(self) -> Velocities:
        steps = [step for step, _ in self.known]
        degree = min(self.degree, len(steps) - 1)
        fitted, wanted = self.basis(steps, degree), self.basis([self.step], degree)
        normal = fitted.T @ fitted + self.ridge * torch.eye(degree + 1, dtype=torch.float64)
        weights: list[float] = (wanted @ torch.linalg.solve(normal, fitted.T))[0].tolist()
        return self.weighted(weights)

    def basis(self, steps: Sequence[int], degree: int) -> Tensor:
        """(len(steps), degree + 1); time runs from -1 to 1."""
        time = torch.tensor(steps, dtype=torch.float64) * 2 / (self.steps - 1) - 1
        return torch.cos(torch.arange(degree + 1, dtype=torch.float64) * torch.acos(time)[:, None])


class MeanCache(Forecasting):
    """MeanCache (arXiv 2601.19961): a stretch moves by its average velocity, u = v + (v - mean) * ratio.

    mean: the average velocity of the steps of a window before the stretch; ratio: the stretch's length over
    the window's. windows: computed step -> steps in its window.
    """

    def __init__(self, denoiser: ClipDenoiser, counter: Counter, steps: int, windows: dict[int, int]) -> None:
        mask = "".join("1" if step in windows else "0" for step in range(steps))
        super().__init__(denoiser, counter, steps, mask)
        self.windows, self.lengths = windows, step_lengths(steps)
        self.answered: list[Velocities] = []

    def solved(self, velocities: Velocities) -> Velocities:
        start = self.step
        end = next((step for step in range(start + 1, self.steps) if step in self.windows), self.steps)
        first = start - self.windows[start]
        self.answer = velocities
        if first < start:
            weights, ratio = stretch(self.lengths, first, start, end)
            self.answer = {
                branch: value
                + ratio
                * (value - sum(w * v[branch] for w, v in zip(weights, self.answered[first:], strict=True)))
                for branch, value in velocities.items()
            }
        return self.forecast()

    def forecast(self) -> Velocities:
        self.answered.append(self.answer)
        return self.answer


def step_lengths(steps: int) -> list[float]:
    """|dsigma| of each step."""
    return [here - there for here, there in pairwise(flow_sigmas(steps).tolist())]


def stretch(lengths: Sequence[float], first: int, start: int, end: int) -> tuple[list[float], float]:
    """(weights of a window's steps in its mean velocity, the stretch's length over the window's)."""
    window = sum(lengths[first:start])
    return [length / window for length in lengths[first:start]], sum(lengths[start:end]) / window


def plan_meancache(
    traces: Sequence[Trace], computed: int, most: int = 5, power: float = 4.0
) -> dict[int, int]:
    """MeanCache's schedule: computed step -> its window.

    A stretch costs the error of its average velocity along full runs, with the best window; a power of it
    suppresses peaks. The path of `computed` stretches that costs least wins.
    """
    steps = len(traces[0].velocities)
    lengths = step_lengths(steps)
    values = torch.stack(
        [torch.stack([v["cond"].flatten() for v in trace.velocities], 1) for trace in traces]
    )

    def price(start: int, end: int) -> tuple[float, int]:
        length, found = sum(lengths[start:end]), []
        mean = values[..., start:end] @ torch.tensor(lengths[start:end]) / length
        for window in range(min(most, start) + 1):
            guess = values[..., start]
            if window:
                weights, ratio = stretch(lengths, start - window, start, end)
                guess = guess + ratio * (guess - values[..., start - window : start] @ torch.tensor(weights))
            found.append((length * float((guess - mean).norm()), window))
        return min(found)

    edges = {(a, b): price(a, b) for a in range(steps) for b in range(a + 1, steps + 1)}
    paths: dict[int, tuple[float, tuple[int, ...]]] = {0: (0.0, ())}
    for _ in range(computed):
        longer: dict[int, tuple[float, tuple[int, ...]]] = {}
        for (a, b), (cost, _window) in edges.items():
            if a in paths:
                choice = (paths[a][0] + cost**power, (*paths[a][1], a))
                longer[b] = min(longer.get(b, choice), choice)
        paths = longer
    return {a: edges[a, b][1] for a, b in pairwise([*paths[steps][1], steps])}
