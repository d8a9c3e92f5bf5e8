"""A pool of one: the device of this process, row after row."""

from __future__ import annotations

import platform
import time
from collections.abc import Iterator, Sequence

from ..video.making import Studio
from .check import Job
from .schedule import Event, Failed, Finished, NoWorkersError, Task
from .worker import Broken, Report, event_of, work


class LocalPool:
    """Works while it is waited for: every `wait` is a clip."""

    def __init__(self, studio: Studio, jobs: Sequence[Job]) -> None:
        self._studio, self._jobs = studio, jobs
        self._running: tuple[Task, Iterator[Report]] | None = None
        self._broken = ""

    def now(self) -> float:
        return time.monotonic()

    def idle(self) -> int:
        return 0 if self._running or self._broken else 1

    def start(self, task: Task) -> None:
        self._running = task, work(self._studio, self._jobs[task.number])

    def wait(self, seconds: float | None) -> list[Event]:
        if self._running is None:
            if self._broken:
                raise NoWorkersError(self._broken)
            time.sleep(seconds or 0)
            return []
        task, reports = self._running
        report = next(reports)
        if isinstance(report, Broken) and report.fault == "device":
            self._broken = report.message  # a driver's error stays with its process
        event = event_of(task, self._jobs[task.number], report, platform.node())
        if isinstance(event, Finished | Failed):
            self._running = None
        return [event]
