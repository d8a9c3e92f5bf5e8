"""How near a batch's schedule comes to the ideal: 1,000 rows on 64 workers that sleep, some of them lost.

    python -m benchmarks.batch            # prints the table of benchmarks/results/batch_schedule.md

The loop is the batch's own (`standalone/batch/schedule.py`); time passes on a simulated clock. The ideal is
work that could be cut at will, on all machines that are there at each moment.
"""

from __future__ import annotations

import random

from standalone.batch.schedule import Failed, Finished, Task, run_tasks

from .batch_simulation import Machine, SimulatedPool, ideal_seconds

ROWS, WORKERS, LOST = 1000, 64, 8
CLIP, OVERHEAD, BLIND = 4.0, 0.5, 5.0  # seconds: of a clip, to begin a row, until a lost machine is noticed


def simulate(seed: int) -> tuple[float, float, int]:
    """Seconds of the schedule, of the ideal, and how many rows were begun again."""
    draw = random.Random(seed)  # nosec B311  of a benchmark, no secret
    costs = [draw.lognormvariate(4.5, 0.8) for _ in range(ROWS)]
    machines = [Machine() for _ in range(WORKERS - LOST)]
    for _ in range(LOST):  # each breaks at some moment, and another comes a while later
        broken = draw.uniform(100, 1500)
        machines += [Machine(until=broken), Machine(since=broken + draw.uniform(30, 300))]
    pool, again = SimulatedPool(machines, clip=CLIP, overhead=OVERHEAD, blind=BLIND), 0
    done: set[int] = set()

    def on_event(event: object) -> None:
        nonlocal again
        again += isinstance(event, Failed)
        if isinstance(event, Finished):
            done.add(event.task.number)

    run_tasks([Task(number, cost) for number, cost in enumerate(costs)], pool, on_event)
    assert len(done) == ROWS, "a row was lost"
    return pool.now(), ideal_seconds(costs, machines), again


def main() -> None:
    print(f"{ROWS} rows on {WORKERS} workers, {LOST} of them lost and replaced\n")
    print("| seed | schedule, s | ideal, s | over | rows begun again |")
    print("|---|---|---|---|---|")
    for seed in range(10):
        schedule, ideal, again = simulate(seed)
        print(f"| {seed} | {schedule:.0f} | {ideal:.0f} | {schedule / ideal - 1:.1%} | {again} |")


if __name__ == "__main__":
    main()
