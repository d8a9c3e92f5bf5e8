"""What a worker does, wherever it lives: the models of one device, loaded once, and row after row."""

from __future__ import annotations

import gc
import logging
from collections.abc import Iterator
from dataclasses import dataclass

import torch

from ..failures import Fault, fault_of, message_of
from ..video.making import Made, Studio, render_video
from .check import Job
from .schedule import Event, Failed, Finished, Progress, Task

RETRIED: tuple[Fault, ...] = ("memory", "device", "disk")
"""Faults of the machine, which another attempt may not meet. Bad input stays bad."""

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Broken:
    """An attempt that failed: whose fault, and what to tell."""

    fault: Fault
    message: str


Report = int | Made | Broken
"""Finished frames of the video so far, and at the end what came of it."""


def work(studio: Studio, job: Job) -> Iterator[Report]:
    """Make a row's video; the last report is what came of it. Only a stop by the user is raised."""
    try:
        yield from render_video(studio, job.options, job.key)
        return
    except Exception as error:
        fault = fault_of(error)
        if fault == "ours":
            logger.exception("%s failed", job.row.id)
        broken = Broken(fault, message_of(error))
    # Out of the handler, whose traceback holds the tensors of the attempt.
    gc.collect()
    if torch.cuda.is_available() and broken.fault == "memory":
        torch.cuda.empty_cache()
    yield broken


def event_of(task: Task, job: Job, report: Report, machine: str) -> Event:
    """A worker's report as the schedule knows it."""
    if isinstance(report, int):
        return Progress(task, report / job.price.frames, report)
    if isinstance(report, Broken):
        return Failed(task, report.message, report.fault in RETRIED, machine)
    return Finished(task, report, machine)
