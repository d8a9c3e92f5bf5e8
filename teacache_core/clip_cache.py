"""One clip: decide each evaluation, store what was computed, replay what was not.

Knows evaluations, branches and noise levels. Knows no model, no sampler, no host. Its tensors die with it.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Generator, Hashable, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor

from .calibration.recording import Recorder, Recording, guided
from .config import StepCacheConfig
from .forecast import Table, Weights, combine
from .metric import rel_l1, to_floats
from .observer import Measured, Observer, Stopwatch
from .plan import ClipPlan
from .policy import Decision, Observation, decide
from .report import StepRecord
from .state import BranchState, CacheState, Layout


@dataclass
class _Evaluation:
    """The evaluation at hand."""

    record: StepRecord
    decision: Decision
    watch: Stopwatch
    measured: Measured | None
    signal_change: Tensor | None = None
    computed: dict[Hashable, Tensor] = field(default_factory=dict[Hashable, Tensor])
    misses: dict[Hashable, Tensor] = field(default_factory=dict[Hashable, Tensor])


@dataclass(frozen=True)
class Finished:
    """What a clip hands over.

    recording: of a clip computed in full. misses: what the guesses of computed values were off by, squared,
    by the plan's computed steps, where it foretells them.
    """

    records: list[StepRecord]
    recording: Recording | None
    misses: dict[int, float]
    peak_bytes: int


class ClipCache:
    """Made by `StepCache.clip`. Call `evaluation` once per model evaluation.

    observer: measures for the report; without one, records hold the decisions and their reasons.
    """

    def __init__(
        self,
        config: StepCacheConfig,
        plan: ClipPlan,
        sigmas: Sequence[float],
        clip_index: int = 0,
        *,
        guidance_scale: float | None = None,
        observer: Observer | None = None,
    ) -> None:
        self.config = config
        self.plan = plan
        self.sigmas = tuple(sigmas)
        self.clip_index = clip_index
        self._guidance_scale = guidance_scale
        self._observer = observer
        self._recorder = Recorder(self.sigmas[:-1], guidance_scale) if plan.record else None
        self._state = CacheState()
        self._current: _Evaluation | None = None
        self._records: list[StepRecord] = []
        self._watches: list[Stopwatch] = []
        self._misses: list[tuple[int, Tensor]] = []
        self._peak_bytes = 0
        self._closed = False

    @contextmanager
    def evaluation(
        self,
        sigma: float | Tensor,
        *,
        like: Tensor,
        branches: Collection[Hashable],
        signal: Callable[[], Tensor] | None = None,
    ) -> Generator[Decision]:
        """Decide one evaluation at noise level `sigma`; all branches obey.

        A sigma that lies on the device is fetched from there, together with the signal's change where that
        is needed. like: the latents, for shape, dtype and device. signal: makes the watched tensor; called
        only if needed. Inside the block `store` every branch if the decision says compute, else `replay`
        every branch.
        """
        if self._closed:
            raise RuntimeError(
                "expected an evaluation inside a clip but got one after its end (ClipCache). "
                "Call the wrapped denoiser inside its `with` block only."
            )
        current = self._current = self._begin(sigma, like, branches, signal)
        try:
            yield current.decision
            self._end(current)
        except BaseException:
            self._state = CacheState()
            if self._observer is not None:
                self._observer.drop()
            raise
        finally:
            self._current = None

    def store(self, branch: Hashable, value: Tensor) -> Tensor:
        """Keep a copy of what was computed for `branch`; what the evaluation answers, mostly `value`."""
        current, forecaster = self._expect_evaluation(), self.plan.forecaster
        copy = value.detach().clone()  # what was given may be changed by its owner
        state = self._state.branches.get(branch)
        if state is not None and state.values[-1].shape == copy.shape:
            self._compare(branch, state, copy)
            self._state.branches[branch] = state.advance(current.record.sigma, copy, forecaster.keeps)
        else:
            self._state.branches[branch] = BranchState((current.record.sigma,), (copy,))
        if self._recorder is not None:
            current.computed[branch] = copy
        self._peak_bytes = max(self._peak_bytes, self._state.memory_bytes())
        return self.replay(branch) if forecaster.solves else value

    def replay(self, branch: Hashable) -> Tensor:
        """A new tensor in place of a computed one, on the device and in the dtype of what was stored."""
        record, state = self._expect_evaluation().record, self._state.branches[branch]
        return _weigh(state, self.plan.forecaster.answer(record.step, record.sigma, state.levels))

    def has(self, branch: Hashable) -> bool:
        """Whether something is stored for `branch`."""
        return branch in self._state.branches

    def finish(self, *, complete: bool = True) -> Finished:
        """Hand over what was seen, and forget every tensor, for good. Only a complete clip teaches.

        Fetches all outstanding numbers from the device at once.
        """
        observer, recorder = self._observer, self._recorder if complete else None
        misses, records, watches = self._misses, self._records, self._watches
        self.close()
        outstanding = [miss for _, miss in misses] + ([] if observer is None else observer.outstanding())
        numbers = iter(_fetch(outstanding) if outstanding else [])
        found = [next(numbers) for _ in misses]
        if observer is not None:
            records = observer.settle(records, numbers)
        pairs = zip(records, watches, strict=True)
        return Finished(
            records=[replace(record, seconds=watch.seconds()) for record, watch in pairs],
            recording=None if recorder is None else recorder.finish(),
            misses={index: miss for (index, _), miss in zip(misses, found, strict=True)} if complete else {},
            peak_bytes=self._peak_bytes,
        )

    def close(self) -> None:
        """Forget every tensor, for good."""
        self._closed = True
        self._state, self._current, self._observer, self._recorder = CacheState(), None, None, None
        self._records, self._watches, self._misses = [], [], []

    def _begin(
        self,
        sigma: float | Tensor,
        like: Tensor,
        branches: Collection[Hashable],
        signal: Callable[[], Tensor] | None,
    ) -> _Evaluation:
        watch = Stopwatch(like.device)
        layout = Layout(tuple(like.shape), like.dtype, like.device, frozenset(branches))
        watched = signal().detach().clone() if signal is not None and self.plan.needs_signal else None
        change = self._signal_change(layout, watched)
        sigma, measured = _read(sigma, None if self.plan.record else change)
        if not self._state.fits(layout, sigma):
            self._state, change, measured = CacheState(), None, None
        state, step = self._state, self._step_of(sigma)
        expected = None if measured is None else self.plan.expected_change(measured)
        accumulated = None if expected is None else state.policy.accumulated + expected
        seen = Observation(
            progress=1.0 - sigma / self.sigmas[0],
            is_last_step=step == len(self.sigmas) - 2,
            replayable=bool(branches) and all(branch in state.branches for branch in branches),
            planned=self.plan.planned(len(self._records), step),
            calibrating=self.plan.record,
            change=expected,
        )
        decision, policy = decide(self.config, self.plan.threshold, state.policy, seen)
        state.layout, state.sigma, state.policy, state.signal = layout, sigma, policy, watched
        record = StepRecord(
            clip_index=self.clip_index,
            evaluation=len(self._records),
            step=step,
            sigma=sigma,
            computed=decision.compute,
            reason=decision.reason.value,
            rel_l1=measured,
            expected_change=expected,
            accumulated_rel_l1=accumulated,
        )
        entry = None if self._observer is None else self._observer.evaluation()
        if entry is not None and self.plan.record:
            entry.signal_change = change
        return _Evaluation(record, decision, watch, entry, change if self.plan.record else None)

    def _end(self, current: _Evaluation) -> None:
        if self._recorder is not None:
            self._recorder.add(current.record.step, current.computed, current.signal_change)
        if current.misses and isinstance(self.plan.forecaster, Table):
            parts = guided(current.misses, self._guidance_scale)
            found = torch.stack([part.float().square().mean() for part in parts]).sum()
            index = self.plan.forecaster.levels.index(current.record.sigma)
            self._misses.append((index, found))
        current.watch.stop()
        self._watches.append(current.watch)
        self._records.append(current.record)

    def _compare(self, branch: Hashable, state: BranchState, value: Tensor) -> None:
        """Hold a computed value against what a replay would have been, where somebody wants to know."""
        current, forecaster = self._expect_evaluation(), self.plan.forecaster
        record = current.record
        surprises = isinstance(forecaster, Table) and forecaster.foretells(record.sigma, state.levels)
        if current.measured is None and not surprises:
            return
        guess = _weigh(state, forecaster.guess(record.step, record.sigma, state.levels))
        if current.measured is not None:
            current.measured.add(value, state.values[-1], guess)
        if surprises:
            current.misses[branch] = guess - value

    def _signal_change(self, layout: Layout, watched: Tensor | None) -> Tensor | None:
        """Change of the watched signal since the last evaluation, still on the device; None when unknown."""
        before = self._state.signal
        if watched is None or before is None or self._state.layout != layout:
            return None
        return None if before.shape != watched.shape else rel_l1(watched, before)

    def _step_of(self, sigma: float) -> int:
        levels = self.sigmas[:-1]
        return min(range(len(levels)), key=lambda index: abs(levels[index] - sigma))

    def _expect_evaluation(self) -> _Evaluation:
        if self._current is None:
            raise RuntimeError(
                "expected store and replay inside an evaluation but got a call outside one (ClipCache). "
                "Put the model call into `with clip.evaluation(...)`."
            )
        return self._current


def _weigh(state: BranchState, weights: Weights) -> Tensor:
    return combine(state.values, weights).to(state.values[-1].dtype)


def _read(sigma: float | Tensor, change: Tensor | None) -> tuple[float, float | None]:
    """Both as Python numbers, in one wait at most."""
    if isinstance(sigma, Tensor):
        if change is None:
            return float(sigma.item()), None
        level, moved = to_floats(torch.stack([sigma.reshape(()).to(change), change]))
        return level, moved
    return sigma, None if change is None else float(change.item())


def _fetch(numbers: list[Tensor]) -> list[float]:
    return to_floats(torch.stack([number.to(numbers[0].device) for number in numbers]))
