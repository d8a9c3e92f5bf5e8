"""`teacache_memo.py batch`: checked, made, told."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from memo_avatar.files.disk import make_folder, try_place
from memo_avatar.files.foreign import counted

from ..arguments import VideoOptions
from ..models import select_device
from ..progress import count_progress
from ..video.making import Studio, holds_job
from .arguments import BatchOptions, RowParser
from .check import Checked, Job, check_rows
from .ledger import Ledger
from .local import LocalPool
from .manifest import Problem, Row, read_manifest
from .results import RESULTS, Result, Results, locked
from .schedule import NoWorkersError, Pool, Task, run_tasks

DONE, SOME_FAILED, BAD_MANIFEST, STOPPED = 0, 1, 2, 130
_MOST_TOLD = 50  # problems that are printed


def batch(options: BatchOptions) -> int:
    """Make what is missing; the exit status."""
    rows, problems = read_manifest(options.jobs)
    folder = options.output_folder
    with count_progress("checking", len(rows), "row") as on_row:
        checked = check_rows(rows, RowParser(options.given), folder, on_row)
    problems += checked.problems
    _tell([*problems, *checked.unusable])
    if problems:
        print(f"Error: expected a manifest without mistakes but got {len(problems)} ({options.jobs}). "
              "Nothing was made.", file=sys.stderr)  # fmt: skip
        return BAD_MANIFEST
    todo = [job for job in checked.jobs if _is_wanted(job)]
    for line in _price_lines(checked, todo):
        print(line)
    if options.dry_run:
        return SOME_FAILED if checked.unusable else DONE
    try_place(make_folder(folder) / RESULTS, nbytes=sum(job.price.nbytes for job in todo))
    with locked(folder):
        return _make(options, rows, checked, todo)


def _make(options: BatchOptions, rows: Sequence[Row], checked: Checked, todo: Sequence[Job]) -> int:
    results, status = Results(options.output_folder), DONE
    wanted = {job.row.id for job in todo}
    try:
        for problem in checked.unusable:
            results.record(Result(problem.id, "failed", problem.message))
        for job in checked.jobs:
            if job.row.id not in wanted:
                results.record(Result(job.row.id, "skipped", "made before", frames=job.price.frames))
        with Ledger(results, todo) as ledger:
            try:
                if todo:
                    with _pool(options, todo) as pool:
                        run_tasks(_tasks(todo), pool, ledger.on_event)
            except KeyboardInterrupt:
                status = STOPPED
            except NoWorkersError as error:
                print(f"Error: {error}", file=sys.stderr)
    finally:
        results.close(rows)
    for line in ledger.table(skipped=len(checked.jobs) - len(todo), unusable=len(checked.unusable)):
        print(line)
    if status == STOPPED:
        print("Stopped. The same line again goes on after the last finished clips.")
        return STOPPED
    return DONE if ledger.done == len(todo) and not checked.unusable else SOME_FAILED


@contextmanager
def _pool(options: BatchOptions, jobs: Sequence[Job]) -> Iterator[Pool]:
    """Where the work is done."""
    if options.ray is None:
        device = options.given.get("device")
        yield LocalPool(Studio(select_device(None if device is None else str(device))), jobs)
        return
    from .cluster import RayPool, connect

    with RayPool(connect(options.ray), jobs, options) as pool:
        yield pool


def _tasks(jobs: Sequence[Job]) -> list[Task]:
    """The jobs by number; those with the same models in a group."""
    groups: dict[tuple[object, ...], int] = {}
    names = [_models_of(job.options) for job in jobs]
    return [
        Task(number, job.price.cost, group=groups.setdefault(name, len(groups)))
        for number, (job, name) in enumerate(zip(jobs, names, strict=True))
    ]


def _models_of(options: VideoOptions) -> tuple[object, ...]:
    return options.checkpoint, options.vae, options.wav2vec2, options.dtype


def _is_wanted(job: Job) -> bool:
    """Whether the video is missing, or was made with other settings or from other files."""
    return job.options.restart or not holds_job(job.options.output, job.key, job.price.frames)


def _price_lines(checked: Checked, todo: Sequence[Job]) -> list[str]:
    """What there is to do."""
    prices = [job.price for job in todo]
    seconds = sum(job.price.frames / job.options.fps for job in todo)
    clips, evaluations = (sum(getattr(price, name) for price in prices) for name in ("clips", "evaluations"))
    frames, nbytes = sum(price.frames for price in prices), sum(price.nbytes for price in prices)
    made = len(checked.jobs) - len(todo)
    return [
        f"Rows: {len(checked.jobs) + len(checked.unusable)}, of which {len(todo)} are to be made, {made} are "
        f"made already, {len(checked.unusable)} can't be made",
        f"To be made: {counted(frames, 'frame')} ({seconds:.1f} s), {counted(clips, 'clip')}, "
        f"{counted(evaluations, 'evaluation')}, at most {nbytes / 1e6:.0f} MB",
    ]


def _tell(problems: Sequence[Problem]) -> None:
    for problem in problems[:_MOST_TOLD]:
        print(f"Error: {problem}", file=sys.stderr)
    if len(problems) > _MOST_TOLD:
        print(f"... and {len(problems) - _MOST_TOLD} more.", file=sys.stderr)
