"""What a batch's events add up to: the bar, the rows' lines, the table at the end."""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field
from types import TracebackType

from tqdm import tqdm

from memo_avatar.files.foreign import counted

from ..progress import note
from ..video.making import Made
from .check import Job
from .results import Attempt, Result, Results
from .schedule import Event, Failed, Finished, Progress, is_final


@dataclass
class _Share:
    """What one worker has made."""

    frames: int = 0
    seconds: float = 0.0


@dataclass
class _Row:
    """Where a row is: its finished frames, how many of them this run found, and what was tried before."""

    frames: int = 0
    found: int | None = None
    earlier: list[Attempt] = field(default_factory=list[Attempt])


class Ledger:
    """Hears of every event. Use `with`: it owns the bar."""

    def __init__(self, results: Results, jobs: Sequence[Job]) -> None:
        self._results, self._jobs = results, jobs
        self._rows = [_Row() for _ in jobs]
        self._shares: dict[str, _Share] = defaultdict(_Share)
        self.done = self.failed = 0
        self._started = time.monotonic()
        frames = sum(job.price.frames for job in jobs)
        self._bar = tqdm(total=frames, unit="frame", desc="making", dynamic_ncols=True, disable=not jobs)

    def __enter__(self) -> Ledger:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._seconds = time.monotonic() - self._started
        self._bar.close()

    def on_event(self, event: Event) -> None:
        row, job = self._rows[event.task.number], self._jobs[event.task.number]
        if isinstance(event, Progress):
            self._advance(row, event.frames)
        elif isinstance(event, Finished):
            assert isinstance(event.result, Made)
            self._finished(row, job, event, event.result)
        else:
            self._failed(row, job, event)
        self._bar.set_postfix_str(f"{self.done} of {counted(len(self._jobs), 'row')}, {self.failed} failed")

    def table(self, *, skipped: int, unusable: int) -> list[str]:
        """How it ended: rows by state, and frames a second by worker and in all."""
        failed, frames = self.failed + unusable, sum(share.frames for share in self._shares.values())
        open_rows = len(self._jobs) - self.done - self.failed
        counts = f"{self.done} done, {skipped} skipped, {failed} failed"
        lines = [f"Rows: {counts}, {open_rows} not finished" if open_rows else f"Rows: {counts}"]
        for name, share in sorted(self._shares.items()):
            pace = share.frames / max(share.seconds, 1e-9)
            lines.append(f"  {name}: {counted(share.frames, 'frame')}, {pace:.2f} a second")
        pace = frames / self._seconds
        lines.append(f"In all: {counted(frames, 'frame')} in {self._seconds:.1f} s, {pace:.2f} a second")
        return lines

    def _advance(self, row: _Row, frames: int) -> None:
        if row.found is None:  # what an earlier run left is no work of this one
            row.found = row.frames = frames
            self._bar.total -= frames
            self._bar.refresh()
        self._bar.update(max(0, frames - row.frames))
        row.frames = max(row.frames, frames)

    def _finished(self, row: _Row, job: Job, event: Finished, made: Made) -> None:
        self._advance(row, made.frames)
        self.done += 1
        share = self._shares[event.machine]
        share.frames += made.frames - made.continued_from
        share.seconds += made.seconds
        self._results.record(
            Result(
                id=job.row.id,
                state="done",
                seconds=round(made.seconds, 3),
                frames=made.frames,
                continued_from=made.continued_from,
                evaluations=made.evaluations,
                machine=event.machine,
                attempt=event.task.attempt,
                earlier=row.earlier,
            )
        )

    def _failed(self, row: _Row, job: Job, event: Failed) -> None:
        attempt = event.task.attempt
        if not is_final(event):
            note(f"{job.row.id}: {event.message} Attempt {attempt + 1} goes on after frame {row.frames}.")
            row.earlier.append(Attempt(event.machine, row.frames, event.message))
            return
        self.failed += 1
        self._bar.total -= job.price.frames - row.frames
        note(f"Error: {job.row.id}: {event.message}")
        self._results.record(
            Result(
                id=job.row.id,
                state="failed",
                message=event.message,
                machine=event.machine,
                attempt=attempt,
                earlier=row.earlier,
            )
        )
