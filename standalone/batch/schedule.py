"""Which job is made when, and again how often: one loop over any pool of workers.

The longest job goes first, so that no worker ends long after the others. What a device or a lost machine
broke is tried again, at most twice, after a pause, and goes on where it was; bad input never is. Time passes
in the pool alone, so that the same loop runs on a card, on a cluster, and on the clock of a simulation.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from typing import Protocol

PAUSES = (5.0, 20.0)
"""Seconds before the second and the third attempt."""


@dataclass(frozen=True)
class Task:
    """A job by its number, what it costs in any unit, and which attempt this is.

    Jobs of one ``group`` share their models: the groups come one after the other.
    """

    number: int
    cost: float
    attempt: int = 1
    group: int = 0

    @property
    def rank(self) -> tuple[int, float, int]:
        """What begins first has the least."""
        return self.group, -self.cost, self.number


@dataclass(frozen=True)
class Progress:
    """``share`` of the job is finished, 0 to 1, and will not be lost."""

    task: Task
    share: float
    frames: int = 0


@dataclass(frozen=True)
class Finished:
    """A job is done."""

    task: Task
    result: object = None
    machine: str = ""


@dataclass(frozen=True)
class Failed:
    """An attempt came to nothing. ``retry``: the device or the machine is to blame, not the job."""

    task: Task
    message: str
    retry: bool
    machine: str = ""


Event = Progress | Finished | Failed


class Pool(Protocol):
    """Workers, however many there are at the moment."""

    def idle(self) -> int:
        """How many could begin a job now."""
        ...

    def start(self, task: Task) -> None:
        """Begin a job on an idle worker."""
        ...

    def wait(self, seconds: float | None) -> Sequence[Event]:
        """What has happened since; at the latest after ``seconds``, if given, also nothing.

        Raises:
            NoWorkersError: there is none, and none will come.
        """
        ...

    def now(self) -> float:
        """Seconds on the pool's clock."""
        ...


class NoWorkersError(RuntimeError):
    """Nothing is left to work on. The text is the whole message."""


@dataclass
class _Queue:
    """Tasks that may begin, the longest first, and those that have to wait until a moment."""

    ready: list[tuple[tuple[int, float, int], Task]] = field(default_factory=list)
    later: list[tuple[float, int, Task]] = field(default_factory=list)

    def add(self, task: Task) -> None:
        heapq.heappush(self.ready, (task.rank, task))

    def add_later(self, task: Task, moment: float) -> None:
        heapq.heappush(self.later, (moment, task.number, task))

    def wake(self, now: float) -> float | None:
        """What has waited long enough may begin; seconds until the next may, None: none waits."""
        while self.later and self.later[0][0] <= now:
            self.add(heapq.heappop(self.later)[2])
        return self.later[0][0] - now if self.later else None

    def next(self) -> Task:
        return heapq.heappop(self.ready)[1]


def run_tasks(
    tasks: Iterable[Task],
    pool: Pool,
    on_event: Callable[[Event], None],
    *,
    pauses: Sequence[float] = PAUSES,
) -> None:
    """Work until every task is finished or has failed for good; ``on_event`` hears of all that happens.

    A `Failed` with ``retry`` is for good when the attempts are used up: `is_final` says so.
    """
    queue, running, left = _Queue(), 0, {}
    for task in tasks:
        queue.add(task)
    while True:
        pause = queue.wake(pool.now())
        while queue.ready and pool.idle():
            pool.start(task := queue.next())
            running, left[task.number] = running + 1, task.cost
        if not running and not queue.ready and pause is None:
            return
        for event in pool.wait(pause):
            on_event(event)
            if isinstance(event, Progress):
                left[event.task.number] = event.task.cost * (1 - event.share)
                continue
            running -= 1
            if isinstance(event, Failed) and not is_final(event, pauses):
                number, attempt = event.task.number, event.task.attempt
                again = replace(event.task, cost=left[number], attempt=attempt + 1)
                queue.add_later(again, pool.now() + pauses[attempt - 1])


def is_final(failure: Failed, pauses: Sequence[float] = PAUSES) -> bool:
    """Whether this job is not tried again."""
    return not failure.retry or failure.task.attempt > len(pauses)
