"""The rows of `benchmarks.caching`: ways of sampling, and what other people's clips taught them."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import torch
from torch import Tensor

from benchmarks.forecast_rivals import (
    HiCache,
    MeanCache,
    Spectrum,
    TaylorSeer,
    Zeus,
    plan_meancache,
)
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
from teacache_core.calibration.rescale import count_computed

STEPS = 20
COSTS = (10, 8, 6, 5, 4, 13, 7)
"""Computed evaluations of 20, the most wanted first."""
THRESHOLDS = {13: 0.09, 10: 0.15, 8: 0.25}
"""TeaCache's published ones, by the evaluations that they stand for."""
DEFAULT = "this cache, same video 10"

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
    guidance_scale = None if calibration is None else calibration.guidance_scale
    euler = solver is sample_euler

    def start() -> tuple[Wrap, Callable[[], tuple[int, int]]]:
        cache = StepCache(config, calibration, guidance_scale=guidance_scale)

        def counted() -> tuple[int, int]:
            totals = cache.report.totals()
            return totals.evaluations, totals.computed

        return partial(cache.wrap, euler=euler), counted

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
    for group in (_main_rows, _forecasting_rivals, _reusing_rivals, _variants):
        for count in COSTS:
            rows += group(learned, count)
    return rows


def _main_rows(learned: Learned, count: int) -> list[Method]:
    """Our two targets, and plain sampling."""
    same = StepCacheConfig(target_speedup=STEPS / count)
    return [
        ours(f"this cache, same video {count}", same, learned.calibration),
        ours(f"this cache, converged video {count}", replace(same, target="converged"), learned.calibration),
        euler(count),
        plain("Adams-Bashforth", sample_adams_bashforth, count),
    ]


def _forecasting_rivals(learned: Learned, count: int) -> list[Method]:
    """Caches that forecast, as ours does."""
    mask = uniform_mask(count)
    return [
        rival(f"TaylorSeer, order 1 {count}", TaylorSeer, mask=mask, order=1),
        rival(f"TaylorSeer, order 2 {count}", TaylorSeer, mask=mask, order=2),
        rival(f"HiCache, order 2 {count}", HiCache, mask=mask, order=2),
        rival(f"ZEUS {count}", Zeus, mask=mask),
        rival(f"Spectrum {count}", Spectrum, mask=mask),
        rival(f"MeanCache {count}", MeanCache, windows=plan_meancache(learned.traces, count)),
    ]


def _reusing_rivals(learned: Learned, count: int) -> list[Method]:
    """Caches that answer with what they have stored."""
    fit = partial(fit_threshold, traces=learned.traces, computed=count)
    ratios = torch.tensor([trace.ratios() for trace in learned.traces]).mean(0).tolist()
    raw = StepCacheConfig.published(learned.raw_threshold(count, compute_last=True))
    return [
        ours(f"TeaCache as published {count}", raw, None),
        rival(f"EasyCache {count}", EasyCache, threshold=fit(play_easycache)),
        rival(f"MagCache {count}", MagCache, threshold=fit(play_magcache), ratios=ratios),
        rival(f"First-block cache {count}", FirstBlockCache, threshold=fit(play_first_block)),
    ]


def _variants(learned: Learned, count: int) -> list[Method]:
    """One thing changed at a time."""
    known, mask = learned.calibration, uniform_mask(count)
    line = StepCacheConfig(target_speedup=STEPS / count, on_skip="line")
    rows = [
        ours(f"line, same video {count}", line, known),
        ours(f"line, converged video {count}", replace(line, target="converged"), known),
        ours(f"line + Adams-Bashforth {count}", line, known, sample_adams_bashforth),
        ours(f"line of the residual {count}", replace(line, stored="residual"), known),
        ours(f"uniform, line {count}", StepCacheConfig(step_mask=mask, on_skip="line"), None),
        ours(f"uniform, reuse {count}", StepCacheConfig(step_mask=mask, on_skip="reuse"), None),
        plain("DPM++ 2M", sample_dpmpp_2m, count),
    ]
    if count in THRESHOLDS:
        tea = StepCacheConfig(rel_l1_thresh=THRESHOLDS[count])
        rows.append(ours(f"TeaCache's threshold, line {count}", tea, known))
    return rows
