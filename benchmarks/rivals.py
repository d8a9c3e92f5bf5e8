"""Step caches of others, each from its paper, as wrappers of a clip's denoiser like `StepCache.wrap`.

Nothing is added to what their authors describe but one thing: `fit_threshold` sets each threshold so that the
rival computes as many evaluations as the row it is compared with.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor

from memo_avatar.clips.denoiser import ClipDenoiser

Velocities = dict[str, Tensor]


@dataclass
class Counter:
    """Evaluations asked for and computed over all clips of a video."""

    asked: int = 0
    computed: int = 0
    masks: list[str] = field(default_factory=list)

    def count(self, computed: bool) -> None:
        self.asked += 1
        self.computed += computed
        self.masks[-1] += "1" if computed else "0"


class Rival(ABC):
    """One clip at a time: `call` decides and answers. A subclass holds the state of one clip."""

    def __init__(self, denoiser: ClipDenoiser, counter: Counter, steps: int) -> None:
        self.denoiser, self.counter, self.steps, self.step = denoiser, counter, steps, 0
        counter.masks.append("")

    def __call__(self, latents: Tensor, timestep: Tensor) -> Velocities:
        velocities, computed = self.call(latents, timestep)
        self.counter.count(computed)
        self.step += 1
        return velocities

    @abstractmethod
    def call(self, latents: Tensor, timestep: Tensor) -> tuple[Velocities, bool]:
        """Velocities by branch, and whether the net computed them."""

    def split_call(self, latents: Tensor, timestep: Tensor) -> tuple[Tensor, Tensor, Velocities]:
        """(input of the body, its output, velocities)."""
        net = self.denoiser
        hidden = net.stem(latents)
        output = net.body(hidden, net.temb(timestep))
        return hidden, output, net.head(output)


def wrapper(make: Callable[[ClipDenoiser, Counter, int], Rival], counter: Counter) -> Any:
    """`wrap_denoiser` for the clip loop."""

    @contextmanager
    def wrap(denoiser: ClipDenoiser, sigmas: Tensor, clip_index: int) -> Iterator[Rival]:
        yield make(denoiser, counter, len(sigmas) - 1)

    return wrap


def easycache_skips(change: float, rate: float | None, size: float) -> float:
    """Expected relative change of the output: the input's change times the last rate |dv| / |dx|."""
    return float("inf") if rate is None else rate * change / size


class EasyCache(Rival):
    """EasyCache (arXiv 2507.02860): accumulated k |dx| / |v|, reuse of output minus input; the ends run."""

    def __init__(self, denoiser: ClipDenoiser, counter: Counter, steps: int, threshold: float) -> None:
        super().__init__(denoiser, counter, steps)
        self.threshold = threshold
        self.previous: Tensor | None = None  # input of the step before, computed or not
        self.last: tuple[Tensor, Velocities] | None = None  # of the last computed step
        self.rate: float | None = None
        self.accumulated = 0.0

    def call(self, latents: Tensor, timestep: Tensor) -> tuple[Velocities, bool]:
        previous, self.previous = self.previous, latents
        ends = self.step in (0, 1, self.steps - 1)
        if self.last is not None and previous is not None and not ends:
            size = float(self.last[1]["cond"].abs().mean())
            change = float((latents - previous).abs().mean())
            self.accumulated += easycache_skips(change, self.rate, size)
            if self.accumulated < self.threshold:
                before, velocities = self.last
                return {branch: latents + (value - before) for branch, value in velocities.items()}, False
        velocities = self.denoiser(latents, timestep)
        if self.last is not None:
            moved = float((velocities["cond"] - self.last[1]["cond"]).abs().mean())
            self.rate = moved / max(float((latents - self.last[0]).abs().mean()), 1e-12)
        self.last, self.accumulated = (latents, velocities), 0.0
        return velocities, True


class MagCache(Rival):
    """MagCache (arXiv 2506.09045): skip while |1 - prod(ratio)| sums to little; reuse of the body's residual.

    ratios: mean |r_t| / |r_(t-1)| of a calibration run, one per step. The first fifth always runs; at most
    `most` skips in a row.
    """

    def __init__(
        self,
        denoiser: ClipDenoiser,
        counter: Counter,
        steps: int,
        threshold: float,
        ratios: Sequence[float],
        most: int = 4,
    ) -> None:
        super().__init__(denoiser, counter, steps)
        self.threshold, self.ratios, self.most = threshold, ratios, most
        self.residual: Tensor | None = None
        self.ratio, self.error, self.skips = 1.0, 0.0, 0

    def call(self, latents: Tensor, timestep: Tensor) -> tuple[Velocities, bool]:
        if self.residual is not None and self.step >= self.steps // 5:
            self.ratio *= self.ratios[self.step]
            self.error += abs(1.0 - self.ratio)
            if self.error < self.threshold and self.skips < self.most:
                self.skips += 1
                return self.denoiser.head(self.denoiser.stem(latents) + self.residual), False
        hidden, output, velocities = self.split_call(latents, timestep)
        self.residual = output - hidden
        self.ratio, self.error, self.skips = 1.0, 0.0, 0
        return velocities, True


class FirstBlockCache(Rival):
    """First-block cache (ParaAttention, WaveSpeed): the first layer's residual against the last computed one.

    The probe is the first ResNet and spatial transformer, as in WaveSpeed's UNet port; it runs on every step.
    """

    def __init__(self, denoiser: ClipDenoiser, counter: Counter, steps: int, threshold: float) -> None:
        super().__init__(denoiser, counter, steps)
        self.threshold = threshold
        self.probe: Tensor | None = None
        self.rest: Tensor | None = None

    def call(self, latents: Tensor, timestep: Tensor) -> tuple[Velocities, bool]:
        hidden = self.denoiser.stem(latents)
        first = first_layer(self.denoiser, hidden, timestep)
        probe = first - hidden
        if self.probe is not None and self.rest is not None:
            change = (probe - self.probe).abs().mean() / self.probe.abs().mean()
            if float(change) < self.threshold:
                return self.denoiser.head(first + self.rest), False
        output = self.denoiser.body(hidden, self.denoiser.temb(timestep))
        self.probe, self.rest = probe, output - first
        return self.denoiser.head(output), True


def first_layer(denoiser: ClipDenoiser, hidden: Tensor, timestep: Tensor) -> Tensor:
    """(B*F, C, h, w) after the first ResNet and spatial transformer."""
    block: Any = denoiser.net.down_blocks[0]
    hidden = block.resnets[0](hidden, denoiser.temb(timestep))
    return block.attentions[0](hidden, denoiser.context.layers[0], denoiser.context)


@dataclass
class Trace:
    """What rivals watch, step by step, along one clip computed in full; their thresholds are fitted on it."""

    latents: list[Tensor] = field(default_factory=list)
    velocities: list[Velocities] = field(default_factory=list)
    residual_sizes: list[float] = field(default_factory=list)
    probes: list[Tensor] = field(default_factory=list)

    def ratios(self) -> list[float]:
        """MagCache's, one per step; the first is 1."""
        sizes = self.residual_sizes
        return [1.0] + [sizes[step] / sizes[step - 1] for step in range(1, len(sizes))]


class Tracer(Rival):
    """Computes everything and fills a trace."""

    def __init__(self, denoiser: ClipDenoiser, counter: Counter, steps: int, trace: Trace) -> None:
        super().__init__(denoiser, counter, steps)
        self.trace = trace

    def call(self, latents: Tensor, timestep: Tensor) -> tuple[Velocities, bool]:
        hidden, output, velocities = self.split_call(latents, timestep)
        self.trace.latents.append(latents)
        self.trace.velocities.append(velocities)
        self.trace.residual_sizes.append(float((output - hidden).norm()))
        self.trace.probes.append(first_layer(self.denoiser, hidden, timestep) - hidden)
        return velocities, True


class _Played:
    """Stands in for a clip's denoiser and answers from a trace, so that a rival's decisions cost nothing."""

    def __init__(self, trace: Trace) -> None:
        self.trace, self.step = trace, 0

    def __call__(self, latents: Tensor, timestep: Tensor) -> Velocities:
        return self.trace.velocities[self.step]


def play_easycache(trace: Trace, threshold: float) -> int:
    """Evaluations that EasyCache computes along a trace."""
    counter, net = Counter(), _Played(trace)
    rival = EasyCache(net, counter, len(trace.latents), threshold)  # type: ignore[arg-type]
    for step, latents in enumerate(trace.latents):
        net.step = step
        rival(latents, latents)
    return counter.computed


def play_magcache(trace: Trace, threshold: float) -> int:
    """Evaluations that MagCache computes; its decisions never look at a tensor."""
    ratios, steps = trace.ratios(), len(trace.latents)
    computed, ratio, error, skips = 0, 1.0, 0.0, 0
    for step in range(steps):
        if step and step >= steps // 5:
            ratio *= ratios[step]
            error += abs(1.0 - ratio)
            if error < threshold and skips < 4:
                skips += 1
                continue
        computed, ratio, error, skips = computed + 1, 1.0, 0.0, 0
    return computed


def play_first_block(trace: Trace, threshold: float) -> int:
    """Evaluations that the first-block cache computes along a trace."""
    computed, last = 0, None
    for probe in trace.probes:
        if last is None or float((probe - last).abs().mean() / last.abs().mean()) >= threshold:
            computed, last = computed + 1, probe
    return computed


def fit_threshold(play: Callable[[Trace, float], int], traces: Sequence[Trace], computed: int) -> float:
    """The threshold (the middle one) with which a rival comes nearest to `computed` evaluations a clip."""
    grid = torch.logspace(-4, 1, 120).tolist()
    counts = [sum(play(trace, value) for trace in traces) / len(traces) for value in grid]
    best = min(abs(count - computed) for count in counts)
    nearest = [value for value, count in zip(grid, counts, strict=True) if abs(count - computed) == best]
    return nearest[len(nearest) // 2]


def sample_dpmpp_2m(velocity: Callable[[Tensor, Tensor], Tensor], latents: Tensor, sigmas: Tensor) -> Tensor:
    """DPM-Solver++(2M) (arXiv 2211.01095, algorithm 2) for the flow schedule, alpha = 1 - sigma."""
    known: tuple[Tensor, Tensor] | None = None  # data prediction and half log-SNR of the step before
    for sigma, sigma_next in pairwise(sigmas):
        data = latents - sigma * velocity(latents, sigma)
        if sigma_next == 0:
            return data
        here, there = torch.log((1 - sigma) / sigma), torch.log((1 - sigma_next) / sigma_next)
        mixed = data
        if known is not None and torch.isfinite(known[1]):
            ratio = (here - known[1]) / (there - here)
            mixed = data + (data - known[0]) / (2 * ratio)
        shrink = sigma_next / sigma
        latents = shrink * latents + (1 - sigma_next - shrink * (1 - sigma)) * mixed
        known = (data, here)
    return latents
