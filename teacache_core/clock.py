"""Seconds of device work, without making the device wait."""

from __future__ import annotations

import time
from dataclasses import dataclass

import torch


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
