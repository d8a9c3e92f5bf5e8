"""Workers of a batch that sleep on a clock of their own instead of rendering: machines come, break and go."""

from __future__ import annotations

import heapq
import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import count

from standalone.batch.schedule import Event, Failed, Finished, NoWorkersError, Progress, Task


@dataclass(frozen=True)
class Machine:
    """A worker that is there from one second to another."""

    since: float = 0.0
    until: float = math.inf


@dataclass
class SimulatedPool:
    """Machines on which a task takes its cost in seconds, and ``overhead`` more to begin.

    Every ``clip`` seconds of a task are safe once they are done: what a machine takes with it when it goes is
    the clip at hand. That it has gone is noticed ``blind`` seconds later.
    """

    machines: Sequence[Machine]
    clip: float = 4.0
    overhead: float = 0.0
    blind: float = 0.0
    starts: list[tuple[float, Task, int]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._clock, self._order = 0.0, count()
        self._events: list[tuple[float, int, Event | None, int]] = []  # moment, order, event, machine
        self._free: set[int] = set()
        for number, machine in enumerate(self.machines):
            self._push(machine.since, None, number)

    def now(self) -> float:
        return self._clock

    def idle(self) -> int:
        self._free = {n for n in self._free if self._clock < self.machines[n].until}
        return len(self._free)

    def start(self, task: Task) -> None:
        number = min(self._free)
        self._free.remove(number)
        self.starts.append((self._clock, task, number))
        begin, machine = self._clock + self.overhead, self.machines[number]
        clips = math.ceil(task.cost / self.clip)
        for clip in range(1, clips + 1):
            moment = begin + min(task.cost, clip * self.clip)
            if moment > machine.until:
                lost = Failed(task, "the machine is gone", retry=True, machine=str(number))
                self._push(machine.until + self.blind, lost, number)
                return
            if clip < clips:
                self._push(moment, Progress(task, clip * self.clip / task.cost), number)
        self._push(begin + task.cost, Finished(task), number)

    def wait(self, seconds: float | None) -> list[Event]:
        until = math.inf if seconds is None else self._clock + seconds
        if not self._events or self._events[0][0] > until:
            if seconds is None:
                raise NoWorkersError("no machine is left")
            self._clock = until
            return []
        moment, _, event, number = heapq.heappop(self._events)
        self._clock = moment
        if event is None or isinstance(event, Finished):
            self._free.add(number)
        return [] if event is None else [event]

    def _push(self, moment: float, event: Event | None, number: int) -> None:
        heapq.heappush(
            self._events, (moment, len(self.starts) * 1_000_000 + len(self._events), event, number)
        )


def ideal_seconds(costs: Sequence[float], machines: Sequence[Machine]) -> float:
    """When the work would be done if it could be cut at will: no schedule is faster."""
    left, clock = sum(costs), 0.0
    moments = sorted({m for machine in machines for m in (machine.since, machine.until) if m > 0})
    for moment in moments:
        there = sum(machine.since <= clock < machine.until for machine in machines)
        if there and clock + left / there <= moment:
            break
        left -= there * (moment - clock)
        clock = moment
    there = sum(machine.since <= clock < machine.until for machine in machines)
    return max(clock + left / there, max(costs))
