"""Measures a clip's evaluations for a report: how much outputs change, how far off replays are, seconds.

Only looks: a clip's decisions and answers are the same without it. No number is fetched from the device
before the clip is over.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor

from .metric import rel_l1
from .report import StepRecord


@dataclass
class Stopwatch:
    """Started when made. On CUDA it marks the stream with events, so only `seconds` waits for the device."""

    device: torch.device

    def __post_init__(self) -> None:
        self._events = [self._event()] if self.device.type == "cuda" else None
        self._start = self._end = time.perf_counter()

    def _event(self) -> torch.cuda.Event:
        event = torch.cuda.Event(enable_timing=True)
        event.record(torch.cuda.current_stream(self.device))
        return event

    def stop(self) -> None:
        """End of the work to be timed."""
        self._end = time.perf_counter()
        if self._events is not None:
            self._events.append(self._event())

    def seconds(self) -> float:
        """Time between start and stop; zero if never stopped."""
        if self._events is None or len(self._events) < 2:
            return self._end - self._start
        start, end = self._events
        end.synchronize()
        return start.elapsed_time(end) / 1000.0


@dataclass
class Measured:
    """Numbers of one evaluation that are still on the device, one per branch."""

    signal_change: Tensor | None = None
    output_changes: list[Tensor] = field(default_factory=list[Tensor])
    replay_errors: list[Tensor] = field(default_factory=list[Tensor])

    def add(self, value: Tensor, before: Tensor, guess: Tensor) -> None:
        """A computed value, the one computed before it, and what a replay would have been."""
        self.output_changes.append(rel_l1(value, before))
        self.replay_errors.append(rel_l1(guess, value))

    def outstanding(self) -> list[Tensor]:
        """What to fetch, in the order in which `settle` takes it."""
        signal = [] if self.signal_change is None else [self.signal_change]
        return [*self.output_changes, *self.replay_errors, *signal]

    def settle(self, record: StepRecord, numbers: Iterator[float]) -> StepRecord:
        """The full record, once the numbers are here."""
        output_change = _mean([next(numbers) for _ in self.output_changes])
        replay_error = _mean([next(numbers) for _ in self.replay_errors])
        return replace(
            record,
            rel_l1=record.rel_l1 if self.signal_change is None else next(numbers),
            output_change=output_change if record.computed else record.accumulated_rel_l1,
            replay_error=replay_error,
        )


class Observer:
    """One clip's measurements, an entry per evaluation."""

    def __init__(self) -> None:
        self._measured: list[Measured] = []

    def evaluation(self) -> Measured:
        """The entry of the evaluation that begins now."""
        self._measured.append(Measured())
        return self._measured[-1]

    def drop(self) -> None:
        """Forget the evaluation at hand: it failed."""
        self._measured.pop()

    def outstanding(self) -> list[Tensor]:
        """What to fetch, in the order in which `settle` takes it."""
        return [number for measured in self._measured for number in measured.outstanding()]

    def settle(self, records: Sequence[StepRecord], numbers: Iterator[float]) -> list[StepRecord]:
        """The records with what was measured."""
        pairs = zip(self._measured, records, strict=True)
        return [measured.settle(record, numbers) for measured, record in pairs]


def _mean(numbers: Sequence[float]) -> float | None:
    return sum(numbers) / len(numbers) if numbers else None
