"""Which job is made when: on simulated machines that sleep on a clock of their own."""

import random
from itertools import pairwise

import pytest

from benchmarks.batch_simulation import Machine, SimulatedPool, ideal_seconds
from standalone.batch.schedule import (
    PAUSES,
    Event,
    Failed,
    Finished,
    NoWorkersError,
    Progress,
    Task,
    is_final,
    run_tasks,
)


def run(costs: list[float], pool: SimulatedPool) -> list[Event]:
    events: list[Event] = []
    run_tasks([Task(number, cost) for number, cost in enumerate(costs)], pool, events.append)
    return events


def done(events: list[Event]) -> list[int]:
    return sorted(event.task.number for event in events if isinstance(event, Finished))


def test_the_longest_goes_first_and_equals_in_order() -> None:
    pool = SimulatedPool([Machine()])
    events = run([1.0, 5.0, 3.0, 5.0], pool)
    assert [task.number for _, task, _ in pool.starts] == [1, 3, 2, 0]
    assert done(events) == [0, 1, 2, 3] and pool.now() == 14.0


def test_two_machines_share_the_work() -> None:
    pool = SimulatedPool([Machine(), Machine()])
    run([4.0, 3.0, 3.0, 2.0], pool)
    assert pool.now() == 6.0


def test_a_machine_that_comes_later_helps() -> None:
    pool = SimulatedPool([Machine(), Machine(since=2.0)])
    run([2.0] * 3, pool)
    assert pool.now() == 4.0


def test_nothing_to_do_takes_no_worker() -> None:
    assert run([], SimulatedPool([])) == []


def test_a_lost_machine_costs_a_clip_and_a_pause() -> None:
    pool = SimulatedPool([Machine(until=9.0), Machine(since=10.0)], clip=4.0)
    events = run([20.0], pool)
    (lost,) = [event for event in events if isinstance(event, Failed)]
    assert lost.task.attempt == 1 and not is_final(lost)
    begun = [(moment, task.cost, task.attempt) for moment, task, _ in pool.starts]
    assert begun == [(0.0, 20.0, 1), (9.0 + PAUSES[0], 12.0, 2)]  # two of its five clips were safe
    assert done(events) == [0]


def test_others_are_made_while_one_waits_to_be_tried_again() -> None:
    pool = SimulatedPool([Machine(until=1.0), Machine()])
    events = run([3.0, 2.0, 1.0], pool)
    assert done(events) == [0, 1, 2]
    assert [task.number for _, task, _ in pool.starts] == [0, 1, 2, 0]
    assert pool.starts[-1][0] == 1.0 + PAUSES[0]


def test_the_third_loss_is_for_good_and_stops_nobody_else() -> None:
    moments = [1.0, 1.0 + PAUSES[0] + 1.0, 1.0 + sum(PAUSES) + 2.0]
    unlucky = [Machine(until=moments[0])]
    unlucky += [Machine(since=before + 0.5, until=after) for before, after in pairwise(moments)]
    pool = SimulatedPool([*unlucky, Machine(since=moments[-1] + 1)])
    events = run([100.0, 2.0], pool)
    failures = [event for event in events if isinstance(event, Failed) and event.task.number == 0]
    assert [is_final(failure) for failure in failures] == [False, False, True]
    assert done(events) == [1]


def test_bad_input_is_never_tried_again() -> None:
    class Refusing(SimulatedPool):
        def wait(self, seconds: float | None) -> list[Event]:
            events = super().wait(seconds)
            return [Failed(event.task, "expected sound but got none", retry=False) for event in events]

    pool = Refusing([Machine()])
    events = run([1.0, 2.0], pool)
    assert [type(event) for event in events] == [Failed, Failed]
    assert len(pool.starts) == 2


def test_no_worker_left_is_told() -> None:
    with pytest.raises(NoWorkersError):
        run([10.0] * 3, SimulatedPool([Machine(until=5.0)]))


def test_progress_is_heard_of_before_the_end() -> None:
    events = run([12.0], SimulatedPool([Machine()], clip=4.0))
    shares = [event.share for event in events if isinstance(event, Progress)]
    assert shares == pytest.approx([1 / 3, 2 / 3])


@pytest.mark.parametrize("seed", range(5))
def test_a_large_batch_with_lost_machines_is_near_the_ideal(seed: int) -> None:
    draw = random.Random(seed)
    costs = [draw.lognormvariate(4.5, 0.8) for _ in range(1000)]
    machines = [Machine() for _ in range(56)]
    for _ in range(8):  # eight of them break at some moment, and another comes a while later
        broken = draw.uniform(100, 1500)
        machines += [Machine(until=broken), Machine(since=broken + draw.uniform(30, 300))]
    pool = SimulatedPool(machines, clip=4.0, overhead=0.5, blind=5.0)
    events = run(costs, pool)
    assert done(events) == list(range(1000))
    assert pool.now() <= 1.05 * ideal_seconds(costs, machines)
