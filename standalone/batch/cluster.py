"""A pool of workers on Ray: every card of this machine, or of a cluster whose machines come and go.

A worker is an actor that holds a card and its models. It reports every finished clip; if it is lost, with or
without its machine, its row is tried again elsewhere and goes on from the shared folder.
"""

from __future__ import annotations

import logging
import os
import platform
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from ..arguments import ROOT, CommandError
from ..progress import note
from ..video.making import Studio
from .arguments import LOCAL, BatchOptions
from .check import Job
from .schedule import Event, Failed, Finished, NoWorkersError, Task
from .worker import Broken, Report, event_of, work

LOST = "expected the worker to finish but its process or its machine was lost."
_TICK = 2.0  # seconds after which somebody looks whether machines have come
_MOST_START_FAILURES = 3
_SETTINGS = {"RAY_USAGE_STATS_ENABLED": "0", "RAY_DEDUP_LOGS": "0"}
_LOOPBACK = {"RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0"}
"""Ray's switch for a Ray that listens on the loopback interface alone; its name is older than its use."""


def connect(address: str) -> Any:
    """Ray, on this machine alone or in the cluster at an address; the module.

    Raises:
        CommandError: there is no Ray here, or none at the address.
    """
    if address.startswith("ray://"):
        raise CommandError(
            f"expected the address of a cluster that this machine belongs to but got {address} (--ray). "
            "Run the batch on a machine of the cluster, with --ray auto."
        )
    os.environ.update(_SETTINGS)
    if address == LOCAL:
        os.environ.update(_LOOPBACK)
    try:
        import ray
    except ImportError as error:
        raise CommandError(
            "expected the package ray for --ray but it is not installed. Run: python -m pip install -e "
            "'.[cluster]' (where it has no wheel for this system, leave --ray out)"
        ) from error
    try:
        ray.init(
            address=address,
            include_dashboard=None if address != LOCAL else False,
            log_to_driver=False,
            logging_level=logging.ERROR,
            runtime_env={"env_vars": {"PYTHONPATH": str(ROOT)}},
        )
    except (ConnectionError, RuntimeError, ValueError, TimeoutError) as error:
        raise CommandError(
            f"expected a Ray cluster at {address} but got: {str(error).splitlines()[0]} (--ray). "
            "Start one with ray start, or leave the address out."
        ) from error
    return ray


class Actor:
    """What Ray runs on a card."""

    def __init__(self, device: str | None) -> None:
        import ray

        from ..models import select_device

        self._studio = Studio(select_device(device))
        node = ray.get_runtime_context().get_node_id()[:8]
        self._name = f"{platform.node()} (node {node}, process {os.getpid()})"

    def name(self) -> str:
        """Where it is; asking is how its start is waited for."""
        return self._name

    def make(self, job: Job) -> Iterator[Report]:
        """A row's reports."""
        yield from work(self._studio, job)


@dataclass
class _Worker:
    """An actor, the row it is at, and the stream of its reports."""

    actor: Any
    name: str
    task: Task | None = None
    reports: Any = None


class RayPool:
    """As many actors as there are cards for, at any moment. Use `with`: at the end all of it is gone."""

    def __init__(self, ray: Any, jobs: Sequence[Job], options: BatchOptions) -> None:
        self._ray, self._jobs, self._options = ray, jobs, options
        self._workers: list[_Worker] = []
        self._starting: dict[Any, Any] = {}  # the name that is waited for -> its actor
        self._start_failures = 0
        self._looked = -_TICK

    def __enter__(self) -> RayPool:
        return self

    def __exit__(self, *_error: object) -> None:
        for actor in [*self._starting.values(), *(worker.actor for worker in self._workers)]:
            self._ray.kill(actor)
        self._ray.shutdown()

    def now(self) -> float:
        return time.monotonic()

    def idle(self) -> int:
        return sum(worker.task is None for worker in self._workers)

    def start(self, task: Task) -> None:
        worker = next(worker for worker in self._workers if worker.task is None)
        worker.task = task
        worker.reports = worker.actor.make.options(num_returns="streaming").remote(self._jobs[task.number])

    def wait(self, seconds: float | None) -> list[Event]:
        self._look_for_cards()
        busy = {worker.reports: worker for worker in self._workers if worker.task is not None}
        waited = [*busy, *self._starting]
        timeout = _TICK if seconds is None else min(seconds, _TICK)
        if not waited:
            time.sleep(timeout)
            return []
        ready, _ = self._ray.wait(waited, num_returns=1, timeout=timeout)
        events = [self._next(busy[found]) for found in ready if found in busy]
        for found in ready:
            if found in self._starting:
                self._began(found)
        return [event for event in events if event is not None]

    def _look_for_cards(self) -> None:
        """Another actor for every card that has none."""
        if self.now() < self._looked + _TICK:
            return
        self._looked = self.now()
        there = self._ray.cluster_resources()
        kind = "GPU" if there.get("GPU") and self._options.given.get("device") != "cpu" else "CPU"
        share = self._options.cards_per_worker or 1.0
        wanted = self._options.workers or int(there.get(kind, 0) / share)
        missing = min(wanted, len(self._jobs)) - len(self._workers) - len(self._starting)
        needs = {"num_gpus": share, "num_cpus": 0} if kind == "GPU" else {"num_cpus": share}
        for _ in range(missing):
            remote = self._ray.remote(**needs)(Actor)
            actor = remote.remote("cpu" if kind == "CPU" else self._options.given.get("device"))
            self._starting[actor.name.remote()] = actor
        if not wanted and self._options.ray == LOCAL:
            raise NoWorkersError("expected cards or CPUs for a worker but Ray found none here.")

    def _began(self, reference: Any) -> None:
        actor = self._starting.pop(reference)
        try:
            self._workers.append(_Worker(actor, self._ray.get(reference)))
            self._start_failures = 0
        except Exception as error:
            self._start_failures += 1
            text = " ".join(str(error).split())[-300:]
            note(f"Warning: a worker could not be started: {text}")
            if self._start_failures >= _MOST_START_FAILURES and not self._workers:
                raise NoWorkersError(f"expected workers but none could be started: {text}") from error

    def _next(self, worker: _Worker) -> Event | None:
        """A worker's next report as an event; a worker that can't go on is replaced."""
        task, job = worker.task, self._jobs[worker.task.number] if worker.task else None
        if task is None or job is None:
            return None
        try:
            report = self._ray.get(next(worker.reports))
        except self._ray.exceptions.RayTaskError as error:
            report = Broken("ours", " ".join(str(error).split())[-300:])
        except self._ray.exceptions.RayError:
            report = Broken("device", LOST)
        event = event_of(task, job, report, worker.name)
        if isinstance(event, Finished | Failed):
            worker.task, worker.reports = None, None
        if isinstance(report, Broken) and report.fault == "device":
            self._workers.remove(worker)
            self._ray.kill(worker.actor)
        return event
