"""One sampling run: decide each evaluation, store what was computed, replay what was not.

Knows evaluations, branches and noise levels. Knows no model, no sampler, no host. Its tensors die with it.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Generator, Hashable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor

from .clock import Stopwatch
from .config import StepCacheConfig
from .forecast import combine, horizon, replay_weights
from .metric import rel_l1, to_floats
from .plan import RunPlan
from .policy import Decision, Observation, decide
from .recording import Recorder, Recording
from .report import StepRecord
from .state import BranchState, Layout, RunState, Stored


@dataclass
class _Evaluation:
    """One evaluation: its record so far, and numbers that are still on the device."""

    record: StepRecord
    decision: Decision
    watch: Stopwatch
    signal_change: Tensor | None = None
    output_changes: list[Tensor] = field(default_factory=list[Tensor])
    replay_errors: list[Tensor] = field(default_factory=list[Tensor])

    def outstanding(self) -> list[Tensor]:
        """Numbers to fetch, in the order in which `settle` takes them."""
        return (
            self.output_changes
            + self.replay_errors
            + ([] if self.signal_change is None else [self.signal_change])
        )

    def settle(self, numbers: Iterator[float]) -> StepRecord:
        """The full record, once the numbers are here."""
        output_change = _mean([next(numbers) for _ in self.output_changes])
        replay_error = _mean([next(numbers) for _ in self.replay_errors])
        rel_l1 = self.record.rel_l1 if self.signal_change is None else next(numbers)
        if not self.decision.compute:
            output_change = self.record.accumulated_rel_l1
        return replace(
            self.record,
            rel_l1=rel_l1,
            output_change=output_change,
            replay_error=replay_error,
            seconds=self.watch.seconds(),
        )


def _fetch(numbers: list[Tensor]) -> list[float]:
    return to_floats(torch.stack([number.to(numbers[0].device) for number in numbers]))


def _mean(numbers: list[float]) -> float | None:
    return sum(numbers) / len(numbers) if numbers else None


class CacheRun:
    """Made by `StepCache.run`. Call `evaluation` once per model evaluation."""

    def __init__(
        self, config: StepCacheConfig, plan: RunPlan, sigmas: Sequence[float], clip_index: int
    ) -> None:
        self.config = config
        self.plan = plan
        self.sigmas = tuple(sigmas)
        self.clip_index = clip_index
        self.peak_bytes = 0
        self.recorder = Recorder(self.sigmas[:-1]) if plan.record else None
        self._state = RunState()
        self._current: _Evaluation | None = None
        self._computed: dict[Hashable, Tensor] = {}
        self._finished: list[_Evaluation] = []
        self._closed = False

    @contextmanager
    def evaluation(
        self,
        sigma: float,
        *,
        like: Tensor,
        branches: Collection[Hashable],
        signal: Callable[[], Tensor] | None = None,
    ) -> Generator[Decision]:
        """Decide one evaluation at noise level `sigma`; all branches obey.

        like: the latents, for shape, dtype and device. signal: makes the watched tensor; called only if
        needed. Inside the block `store` every branch if the decision says compute, else `replay` every
        branch.
        """
        if self._closed:
            raise RuntimeError(
                "Expected an evaluation inside a run but got one after its end (CacheRun). "
                "Call the wrapped denoiser inside its `with` block only."
            )
        current = self._current = self._begin(sigma, like, branches, signal)
        try:
            yield current.decision
            self._end(current)
        except BaseException:
            self._state = RunState()
            raise
        finally:
            self._current = None
            self._computed = {}

    def store(self, branch: Hashable, value: Tensor) -> None:
        """Keep a copy of what was computed for `branch`."""
        current = self._expect_evaluation()
        stored = Stored.copy_of(
            value, current.record.sigma, self.config.cache_device, self.config.cache_dtype
        )
        state = self._state.branches.get(branch)
        if state is None or state.newest.value.shape != stored.value.shape:
            self._state.branches[branch] = BranchState(stored)
        else:
            current.output_changes.append(rel_l1(stored.value, state.newest.value))
            current.replay_errors.append(rel_l1(self._replayed(state), stored.value))
            self._state.branches[branch] = state.advance(stored)
        if self.recorder is not None:
            self._computed[branch] = stored.value
        self.peak_bytes = max(self.peak_bytes, self._state.memory_bytes())

    def replay(self, branch: Hashable) -> Tensor:
        """A new tensor in place of a computed one, on the device and in the dtype of what was stored."""
        state = self._state.branches[branch]
        return self._replayed(state).to(state.newest.device, state.newest.dtype)

    def has(self, branch: Hashable) -> bool:
        """Whether something is stored for `branch`."""
        return branch in self._state.branches

    def finish(self) -> tuple[list[StepRecord], Recording | None]:
        """Hand over what was seen; fetches all outstanding numbers from the device at once."""
        outstanding = [number for evaluation in self._finished for number in evaluation.outstanding()]
        numbers = iter(_fetch(outstanding) if outstanding else [])
        records = [evaluation.settle(numbers) for evaluation in self._finished]
        return records, None if self.recorder is None else self.recorder.finish()

    def close(self) -> None:
        """Forget every tensor, for good."""
        self._closed = True
        self._state, self._computed = RunState(), {}
        self._current, self._finished, self.recorder = None, [], None

    def _begin(
        self,
        sigma: float,
        like: Tensor,
        branches: Collection[Hashable],
        signal: Callable[[], Tensor] | None,
    ) -> _Evaluation:
        watch = Stopwatch(like.device)
        layout = Layout(tuple(like.shape), like.dtype, like.device, frozenset(branches))
        if not self._state.fits(layout, sigma):
            self._state = RunState()
        state = self._state
        evaluation, step = len(self._finished), self._step_of(sigma)
        change = self._signal_change(signal)
        measured = None if change is None or self.plan.record else float(change.item())  # the step's one wait
        expected = None if measured is None else self.plan.expected_change(measured)
        accumulated = None if expected is None else state.policy.accumulated + expected
        seen = Observation(
            progress=1.0 - sigma / self.sigmas[0],
            is_last_step=step == len(self.sigmas) - 2,
            replayable=bool(branches) and all(branch in state.branches for branch in branches),
            planned=self.plan.planned(evaluation, step),
            calibrating=self.plan.record,
            change=expected,
        )
        decision, policy = decide(self.config, self.plan.threshold, state.policy, seen)
        state.layout, state.sigma, state.policy = layout, sigma, policy
        record = StepRecord(
            clip_index=self.clip_index,
            evaluation=evaluation,
            step=step,
            sigma=sigma,
            computed=decision.compute,
            reason=decision.reason.value,
            rel_l1=measured,
            expected_change=expected,
            accumulated_rel_l1=accumulated,
        )
        return _Evaluation(record, decision, watch, change if self.plan.record else None)

    def _end(self, current: _Evaluation) -> None:
        if self.recorder is not None:
            output = torch.stack(current.output_changes).mean() if current.output_changes else None
            self.recorder.add(current.record.step, self._computed, current.signal_change, output)
        current.watch.stop()
        self._finished.append(current)

    def _signal_change(self, signal: Callable[[], Tensor] | None) -> Tensor | None:
        """Change of the watched signal since the last evaluation, still on the device; None when unknown."""
        if signal is None or not self.plan.needs_signal:
            return None
        current = signal().detach().clone()
        previous, self._state.signal = self._state.signal, current
        return None if previous is None or previous.shape != current.shape else rel_l1(current, previous)

    def _replayed(self, state: BranchState) -> Tensor:
        record, previous = self._expect_evaluation().record, state.previous
        gaps = horizon(record.sigma, state.newest.sigma, None if previous is None else previous.sigma)
        weights = replay_weights(self.config.on_skip, gaps, self.plan.trust(record.step))
        return combine(state.newest.value, None if previous is None else previous.value, weights)

    def _step_of(self, sigma: float) -> int:
        levels = self.sigmas[:-1]
        return min(range(len(levels)), key=lambda index: abs(levels[index] - sigma))

    def _expect_evaluation(self) -> _Evaluation:
        if self._current is None:
            raise RuntimeError(
                "Expected store and replay inside an evaluation but got a call outside one (CacheRun). "
                "Put the model call into `with run.evaluation(...)`."
            )
        return self._current
