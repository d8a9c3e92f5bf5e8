"""What was skipped, where, why, and what it saved: values that print, serialise and draw themselves."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from .config import StepCacheConfig


@dataclass(frozen=True)
class StepRecord:
    """One evaluation of the net.

    sigma: noise level. rel_l1: change of the watched signal, expected_change: the same after the rescale,
    accumulated_rel_l1: its sum since the last computed evaluation. output_change: relative L1 of the output
    against the last computed one: measured when computed, expected when skipped. replay_error: how far off a
    replay would have been, known only where the truth was computed. The last two are measured only for those
    who ask (`StepCache(observe=True)`).
    """

    clip_index: int
    evaluation: int
    step: int
    sigma: float
    computed: bool
    reason: str
    rel_l1: float | None = None
    expected_change: float | None = None
    accumulated_rel_l1: float | None = None
    output_change: float | None = None
    replay_error: float | None = None
    seconds: float = 0.0


@dataclass(frozen=True)
class Totals:
    """Sums over some evaluations."""

    evaluations: int
    computed: int
    seconds: float
    seconds_saved: float

    @property
    def skipped(self) -> int:
        """Evaluations that were replayed."""
        return self.evaluations - self.computed

    @property
    def speedup(self) -> float:
        """How many times fewer evaluations were computed."""
        return self.evaluations / self.computed if self.computed else 1.0


@dataclass
class CacheReport:
    """All evaluations of a video, in order, and what they were decided with."""

    config: StepCacheConfig
    calibration: str = "none"
    notes: list[str] = field(default_factory=list[str])
    records: list[StepRecord] = field(default_factory=list[StepRecord])
    cache_bytes: int = 0

    def note(self, text: str) -> None:
        """A sentence for people; said once."""
        if text and text not in self.notes:
            self.notes.append(text)

    def clips(self) -> dict[int, list[StepRecord]]:
        """Records by clip."""
        grouped: dict[int, list[StepRecord]] = {}
        for record in self.records:
            grouped.setdefault(record.clip_index, []).append(record)
        return grouped

    def totals(self, records: Sequence[StepRecord] | None = None) -> Totals:
        """Sums over `records`, or over everything."""
        records = self.records if records is None else records
        computed = [record.seconds for record in records if record.computed]
        skipped = [record.seconds for record in records if not record.computed]
        usual = sum(computed) / len(computed) if computed else 0.0
        return Totals(
            evaluations=len(records),
            computed=len(computed),
            seconds=sum(computed) + sum(skipped),
            seconds_saved=max(0.0, usual * len(skipped) - sum(skipped)),
        )

    def masks(self) -> tuple[str, ...]:
        """Every clip's decisions as `StepCacheConfig.step_mask` takes them, to replay a run exactly."""
        return tuple(
            "".join("1" if record.computed else "0" for record in clip) for clip in self.clips().values()
        )

    def percentiles(self, name: str, points: Iterable[int] = (0, 25, 50, 75, 95, 100)) -> dict[int, float]:
        """Percentiles of one numeric field over the evaluations where it is known."""
        values = sorted(value for record in self.records if (value := getattr(record, name)) is not None)
        if not values:
            return {}
        last = len(values) - 1
        return {point: values[min(last, round(last * point / 100))] for point in points}

    def to_json(self) -> dict[str, Any]:
        """JSON values, with the totals spelled out for readers that do not know this class."""
        totals = self.totals()
        return {
            "mode": self.config.mode,
            "config": self.config.to_json(),
            "calibration": self.calibration,
            "notes": list(self.notes),
            "totals": {**asdict(totals), "skipped": totals.skipped, "speedup": totals.speedup},
            "cache_bytes": self.cache_bytes,
            "step_mask": list(self.masks()),
            "percentiles": {
                name: self.percentiles(name) for name in ("rel_l1", "output_change", "replay_error")
            },
            "records": [asdict(record) for record in self.records],
        }

    def summary(self) -> str:
        """One line for a log."""
        totals = self.totals()
        if self.config.mode == "off":
            return "TeaCache is off: every step was computed."
        return (
            f"TeaCache ({self.config.mode}): computed {totals.computed} of "
            f"{counted(totals.evaluations, 'step')} ({totals.speedup:.2f}x fewer), saved about "
            f"{totals.seconds_saved:.1f} s of {totals.seconds + totals.seconds_saved:.1f} s."
        )

    def headline(self) -> str:
        """What was saved, in a few words."""
        totals = self.totals()
        if self.config.mode == "off":
            return "TeaCache is off: every step was computed."
        whole = totals.seconds + totals.seconds_saved
        half = 2 * totals.skipped == totals.evaluations > 0
        steps = "Half the steps" if half else f"{totals.skipped} of {counted(totals.evaluations, 'step')}"
        return f"{steps} skipped, about {totals.seconds_saved:.1f} s saved of {whole:.1f} s"

    def whole(self, seconds: float) -> str:
        """One line: what the skipped steps made of a video that took `seconds` in all; empty without any."""
        totals = self.totals()
        if not totals.skipped or seconds <= 0:
            return ""
        return (
            f"Steps: {totals.speedup:.2f} times fewer. Whole clips, with all that is done beside the steps: "
            f"about {(seconds + totals.seconds_saved) / seconds:.2f} times faster."
        )

    def to_text(self, details: bool = False) -> str:
        """For people: what happened in each clip; with `details`, every evaluation and its reason."""
        lines = [self.summary(), f"Calibration: {self.calibration}."]
        lines += self.notes
        for clip_index, records in self.clips().items():
            totals = self.totals(records)
            pattern = "".join("#" if record.computed else "." for record in records)
            lines.append(
                f"clip {clip_index:4d}  {pattern}  {totals.computed} of {totals.evaluations} computed, "
                f"{totals.seconds:.2f} s"
            )
        lines += self._percentile_lines()
        if self.cache_bytes:
            lines.append(f"Cache memory: {self.cache_bytes / 2**20:.2f} MiB at most.")
        if details:
            lines += [_detail(record) for record in self.records]
        return "\n".join(lines)

    def _percentile_lines(self) -> list[str]:
        lines: list[str] = []
        for name, text in (
            ("rel_l1", "Signal change per step"),
            ("replay_error", "A replay would have been off by (measured on computed steps)"),
        ):
            found = self.percentiles(name)
            if found:
                spread = ", ".join(f"{_rank(point)} {100 * value:.2f} %" for point, value in found.items())
                lines.append(f"{text}: {spread}.")
        return lines


def counted(count: int, noun: str) -> str:
    """`1 clip`, `2 clips`."""
    return f"{count} {noun}" if count == 1 else f"{count} {noun}s"


def _rank(point: int) -> str:
    return {0: "least", 50: "median", 100: "most"}.get(point, f"p{point}")


def _detail(record: StepRecord) -> str:
    def show(value: float | None) -> str:
        return "      -" if value is None else f"{value:7.4f}"

    verdict = "compute" if record.computed else "skip   "
    return (
        f"clip {record.clip_index:4d} evaluation {record.evaluation:3d} sigma {record.sigma:6.4f} {verdict} "
        f"change {show(record.rel_l1)} accumulated {show(record.accumulated_rel_l1)} "
        f"output {show(record.output_change)} replay {show(record.replay_error)}  {record.reason}"
    )
