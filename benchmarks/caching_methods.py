"""The rows of `benchmarks.caching`: ways of sampling, and what other people's clips taught them."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor

from benchmarks.rivals import (
    Counter,
    EasyCache,
    FirstBlockCache,
    MagCache,
    Trace,
    Tracer,
    fit_threshold,
    play_easycache,
    play_first_block,
    play_magcache,
    sample_dpmpp_2m,
    wrapper,
)
from memo_avatar.clips.solvers import Solver, sample_adams_bashforth, sample_euler
from teacache_core import Calibration, StepCache, StepCacheConfig
from teacache_core.calibration import count_computed

STEPS = 20
COSTS = {2.0: 10, 2.5: 8, 1.5: 13}
"""Times fewer -> computed evaluations of 20."""
THRESHOLDS = {1.5: 0.09, 2.0: 0.15, 2.5: 0.25}
DEFAULT = "schedule, forecast 2.0x"

Wrap = Any
"""`wrap_denoiser` of the clip loop."""


@dataclass(frozen=True)
class Method:
    """One row: how a video is sampled. `start` makes one video's wrapper, and what counts afterwards."""

    name: str
    start: Callable[[], tuple[Wrap, Callable[[], tuple[int, int]]]]
    steps: int = STEPS
    solver: Solver = sample_euler


def euler(steps: int) -> Method:
    """Plain sampling, no cache."""
    return plain("Euler", sample_euler, steps)


def plain(name: str, solver: Solver, steps: int) -> Method:
    """A solver without a cache."""

    def start() -> tuple[Wrap, Callable[[], tuple[int, int]]]:
        counter = Counter()

        @contextmanager
        def wrap(denoiser: Any, sigmas: Tensor, clip_index: int) -> Any:
            counter.masks.append("")

            def call(latents: Tensor, timestep: Tensor) -> dict[str, Tensor]:
                counter.count(True)
                return denoiser(latents, timestep)

            yield call

        return wrap, lambda: (counter.asked, counter.computed)

    return Method(f"{name} {steps} steps", start, steps, solver)


def ours(
    name: str, config: StepCacheConfig, calibration: Calibration | None, solver: Solver = sample_euler
) -> Method:
    """`teacache_core` with these settings."""

    def start() -> tuple[Wrap, Callable[[], tuple[int, int]]]:
        cache = StepCache(config, calibration)

        def counted() -> tuple[int, int]:
            totals = cache.report.totals()
            return totals.evaluations, totals.computed

        return cache.wrap, counted

    return Method(name, start, solver=solver)


def rival(name: str, kind: Any, **settings: Any) -> Method:
    """A cache of others."""

    def start() -> tuple[Wrap, Callable[[], tuple[int, int]]]:
        counter = Counter()
        return wrapper(partial(kind, **settings), counter), lambda: (counter.asked, counter.computed)

    return Method(name, start)


def uniform_mask(computed: int) -> str:
    """Evenly spread computed steps, the first one among them."""
    chosen = {round(index * STEPS / computed) for index in range(computed)}
    return "".join("1" if step in chosen else "0" for step in range(STEPS))


@dataclass(frozen=True)
class Learned:
    """What other people's videos taught."""

    calibration: Calibration
    traces: list[Trace]

    def raw_threshold(self, computed: int, *, compute_last: bool) -> float:
        """Threshold on the bare signal with which TeaCache computes this many steps of a recorded clip."""
        runs = [recording.signal_change for recording in self.calibration.recordings]
        grid = torch.logspace(-3, 0.5, 400).tolist()
        count = partial(count_computed, compute_last=compute_last)
        counts = [sum(count(run, value) for run in runs) / len(runs) for value in grid]
        best = min(abs(count - computed) for count in counts)
        nearest = [v for v, count in zip(grid, counts, strict=True) if abs(count - computed) == best]
        return nearest[len(nearest) // 2]


class Lessons:
    """Records clips in full: a calibration for `cache`, a trace per clip for the rivals' thresholds."""

    def __init__(self, cache: StepCache) -> None:
        self.cache = cache
        self.traces: list[Trace] = []

    def wrap(self, denoiser: Any, sigmas: Tensor, clip_index: int) -> Any:
        """`wrap_denoiser` for a clip to learn from."""
        self.traces.append(Trace())
        return self.cache.wrap(_Traced(denoiser, len(sigmas) - 1, self.traces[-1]), sigmas, clip_index)

    def learned(self) -> Learned:
        """After the clips."""
        return Learned(self.cache.make_calibration(), self.traces)


class _Traced:
    """A denoiser that fills a trace while the cache records it."""

    def __init__(self, denoiser: Any, steps: int, trace: Trace) -> None:
        self.branches, self.modulated_input = denoiser.branches, denoiser.modulated_input
        self.call = Tracer(denoiser, Counter(), steps, trace)

    def __call__(self, latents: Tensor, timestep: Tensor) -> dict[str, Tensor]:
        return self.call(latents, timestep)


def methods(learned: Learned) -> list[Method]:
    """Every row, the most wanted first."""
    rows = [euler(STEPS)]
    for group in (_main_rows, _rivals, _variants):
        for speedup in COSTS:
            rows += group(learned, speedup)
    return rows


def _main_rows(learned: Learned, speedup: float) -> list[Method]:
    """Our presets, plain solvers, TeaCache as published, uniform skipping."""
    count, times, known = COSTS[speedup], f"{speedup}x", learned.calibration
    target = StepCacheConfig(target_speedup=speedup)
    raw = StepCacheConfig.published(learned.raw_threshold(count, compute_last=True))
    scaled = StepCacheConfig.published(THRESHOLDS[speedup])
    return [
        ours(f"schedule, forecast {times}", target, known),
        ours(f"schedule, forecast + Adams-Bashforth {times}", target, known, sample_adams_bashforth),
        euler(count),
        plain("Adams-Bashforth", sample_adams_bashforth, count),
        ours(f"TeaCache as published, uncalibrated {times}", raw, None),
        ours(f"TeaCache as published, calibrated {times}", scaled, known),
        ours(f"uniform, forecast {times}", StepCacheConfig(step_mask=uniform_mask(count)), None),
    ]


def _rivals(learned: Learned, speedup: float) -> list[Method]:
    """The caches of others."""
    count, times = COSTS[speedup], f"{speedup}x"
    fit = partial(fit_threshold, traces=learned.traces, computed=count)
    ratios = torch.tensor([trace.ratios() for trace in learned.traces]).mean(0).tolist()
    return [
        rival(f"EasyCache {times}", EasyCache, threshold=fit(play_easycache)),
        rival(f"MagCache {times}", MagCache, threshold=fit(play_magcache), ratios=ratios),
        rival(f"First-block cache {times}", FirstBlockCache, threshold=fit(play_first_block)),
    ]


def _variants(learned: Learned, speedup: float) -> list[Method]:
    """One thing changed at a time."""
    count, times, known = COSTS[speedup], f"{speedup}x", learned.calibration
    raw = StepCacheConfig(rel_l1_thresh=learned.raw_threshold(count, compute_last=False))
    residual = StepCacheConfig(target_speedup=speedup, target="residual")
    return [
        ours(
            f"TeaCache, calibrated, forecast {times}",
            StepCacheConfig(rel_l1_thresh=THRESHOLDS[speedup]),
            known,
        ),
        ours(f"TeaCache, uncalibrated, forecast {times}", raw, None),
        ours(f"schedule, forecast of the residual {times}", residual, known),
        ours(
            f"schedule, forecast of the residual + Adams-Bashforth {times}",
            residual,
            known,
            sample_adams_bashforth,
        ),
        ours(
            f"uniform, reuse velocity {times}",
            StepCacheConfig(step_mask=uniform_mask(count), on_skip="reuse"),
            None,
        ),
        plain("DPM++ 2M", sample_dpmpp_2m, count),
    ]
