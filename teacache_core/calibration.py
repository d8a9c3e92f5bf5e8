"""What full runs on a checkpoint taught: a rescale, a meaning for thresholds, and the material for schedules.

Small, shareable, checked against the checkpoint it was made on. Holds numbers only.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from itertools import pairwise
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from .fingerprint import Fingerprint
from .metric import Rescale, polynomial, to_floats
from .recording import Recording
from .schedule import step_weights

# The original project's table: this threshold gives this many times fewer computed evaluations.
PUBLISHED_TABLE = ((0.09, 1.5), (0.15, 2.0), (0.25, 2.5))
DEGREE = 4
FORMAT = "teacache-calibration"
VERSION = 1


class CalibrationError(ValueError):
    """A calibration that cannot be made, read, or used on this checkpoint."""


@dataclass(frozen=True)
class Calibration:
    """Fitted from recordings of full runs.

    coefficients: degree-4 polynomial from signal change to output change, highest power first, trusted
    between low and high.
    """

    recordings: tuple[Recording, ...]
    coefficients: tuple[float, ...]
    low: float
    high: float
    r_squared: float
    fingerprint: Fingerprint | None = None

    @classmethod
    def fit(cls, recordings: Sequence[Recording], fingerprint: Fingerprint | None = None) -> Calibration:
        """From one or more full runs over the same noise levels; without a watched signal, for schedules
        only.
        """
        _check_recordings(recordings)
        if not all(recording.signal_change for recording in recordings):
            return cls(tuple(recordings), (1.0, 0.0), 0.0, math.inf, 0.0, fingerprint)
        signal = [value for recording in recordings for value in recording.signal_change]
        output = [value for recording in recordings for value in recording.output_change]
        weights = [value for recording in recordings for value in _step_lengths(recording)]
        coefficients, r_squared = fit_polynomial(signal, output, weights)
        return cls(
            recordings=tuple(recordings),
            coefficients=coefficients,
            low=min(signal),
            high=max(signal),
            r_squared=r_squared,
            fingerprint=fingerprint,
        )

    @property
    def sigmas(self) -> tuple[float, ...]:
        """Noise levels of the recorded steps."""
        return self.recordings[0].sigmas

    @property
    def rescale(self) -> Rescale:
        """Signal change -> expected output change."""
        return Rescale(self.coefficients, self.low, self.high)

    @cached_property
    def increments(self) -> list[list[float]]:
        """The rescaled changes of each recorded run; none where no signal was watched."""
        runs = (recording.signal_change for recording in self.recordings)
        return [[self.rescale(value) for value in run] for run in runs if run]

    @cached_property
    def thresholds(self) -> dict[bool, tuple[tuple[float, float], ...]]:
        """(public, effective) pairs without and with the last step always computed: on so few steps one
        more or less is a tenth of the speed-up.
        """
        return {last: fit_thresholds(self.increments, compute_last=last) for last in (False, True)}

    def effective_threshold(self, rel_l1_thresh: float, *, compute_last: bool = False) -> float:
        """The accumulated rescaled change at which a public threshold computes: monotone, linear between
        knots.
        """
        knots = ((0.0, 0.0), *self.thresholds[compute_last])
        for (x0, y0), (x1, y1) in pairwise(knots):
            if rel_l1_thresh <= x1:
                return y0 + (y1 - y0) * (rel_l1_thresh - x0) / (x1 - x0)
        return knots[-1][1] * rel_l1_thresh / knots[-1][0]

    def gram(self) -> Tensor:
        """(N, N) inner products of velocities, averaged over the recordings."""
        return torch.stack([recording.gram_tensor() for recording in self.recordings]).mean(0)

    def check(self, fingerprint: Fingerprint | None) -> None:
        """Raise unless this calibration was made on the checkpoint with `fingerprint`."""
        if fingerprint is None or self.fingerprint is None or self.fingerprint.matches(fingerprint):
            return
        raise CalibrationError(
            f"Expected a calibration of this checkpoint ({fingerprint.layout}) but got one of another "
            "checkpoint "
            f"({self.fingerprint.layout}) (calibration). Calibrate again with this checkpoint, or load the "
            "other one."
        )

    def to_json(self) -> dict[str, Any]:
        """JSON values."""
        return {
            "format": FORMAT,
            "version": VERSION,
            "fingerprint": None if self.fingerprint is None else self.fingerprint.to_json(),
            "coefficients": list(self.coefficients),
            "range": [self.low, self.high if math.isfinite(self.high) else None],
            "r_squared": self.r_squared,
            "recordings": [recording.to_json() for recording in self.recordings],
        }

    @classmethod
    def from_json(cls, values: Mapping[str, Any], where: str = "calibration") -> Calibration:
        """The inverse of `to_json`."""
        found = (values.get("format"), values.get("version"))
        if found != (FORMAT, VERSION):
            raise CalibrationError(
                f"Expected a calibration file ({FORMAT} version {VERSION}) but got {found[0]} version "
                f"{found[1]} "
                f"({where}). Give the file that calibrating wrote."
            )
        try:
            fingerprint = values["fingerprint"]
            return cls(
                recordings=tuple(Recording.from_json(recording) for recording in values["recordings"]),
                coefficients=tuple(map(float, values["coefficients"])),
                low=float(values["range"][0]),
                high=math.inf if values["range"][1] is None else float(values["range"][1]),
                r_squared=float(values["r_squared"]),
                fingerprint=None if fingerprint is None else Fingerprint.from_json(fingerprint),
            )
        except (KeyError, TypeError, IndexError, ValueError) as error:
            raise CalibrationError(
                f"Expected a complete calibration file but got one without a usable {error} ({where}). "
                "Calibrate again."
            ) from error

    def save(self, path: str | Path) -> None:
        """Write as JSON; a reader never sees half a file."""
        path = Path(path)
        unfinished = path.with_name(path.name + ".part")
        unfinished.write_text(json.dumps(self.to_json()) + "\n", encoding="utf-8")
        unfinished.replace(path)

    @classmethod
    def load(cls, path: str | Path) -> Calibration:
        """Read what `save` wrote."""
        try:
            values = json.loads(Path(path).read_text(encoding="utf-8"))
        except OSError as error:
            raise CalibrationError(
                f"Expected a readable calibration file but got {error.strerror or error} ({path}). Check the "
                "path."
            ) from error
        except ValueError as error:
            raise CalibrationError(
                f"Expected a calibration file in JSON but got something else: {error} ({path}). "
                "Give the file that calibrating wrote."
            ) from error
        if not isinstance(values, dict):
            raise CalibrationError(
                f"Expected a JSON object but got {type(values).__name__} ({path}). Give the file that "
                "calibrating wrote."
            )
        return cls.from_json(values, str(path))  # pyright: ignore[reportUnknownArgumentType]


def _check_recordings(recordings: Sequence[Recording]) -> None:
    if not recordings:
        raise CalibrationError(
            "Expected at least one recording of a full run but got none (calibration). "
            "Let at least one clip finish while calibrating."
        )
    counts = sorted({len(recording.sigmas) for recording in recordings})
    if len(counts) > 1:
        raise CalibrationError(
            f"Expected recordings of equally many steps but got {counts} (calibration). Calibrate with one "
            "step count."
        )
    if not all(math.isfinite(value) for recording in recordings for row in recording.gram for value in row):
        raise CalibrationError(
            "Expected finite velocities but got NaN or infinity (calibration). Check the checkpoint and its "
            "dtype."
        )


def fit_polynomial(
    x: Sequence[float], y: Sequence[float], weights: Sequence[float] | None = None, degree: int = DEGREE
) -> tuple[tuple[float, ...], float]:
    """Weighted least squares, highest power first, and R squared; few points lower the degree."""
    degree = min(degree, len(set(x)) - 1)
    scale = max(map(abs, x)) or 1.0  # x / scale keeps the system well conditioned
    points = torch.tensor(x, dtype=torch.float64) / scale
    values = torch.tensor(y, dtype=torch.float64)
    powers = torch.arange(degree, -1, -1, dtype=torch.float64)
    trust = torch.tensor(weights or [1.0] * len(x), dtype=torch.float64)
    rows = trust.sqrt()
    terms = points[:, None] ** powers
    solution = torch.pinverse(terms * rows[:, None]) @ (values * rows)
    coefficients = tuple(to_floats(solution / scale**powers))
    residual = values - torch.tensor([polynomial(coefficients, value) for value in x], dtype=torch.float64)
    spread = (trust * (values - (trust * values).sum() / trust.sum()).square()).sum()
    return coefficients, float(1.0 - (trust * residual.square()).sum() / spread.clamp_min(1e-30))


def _step_lengths(recording: Recording) -> list[float]:
    """|dsigma| after each recorded change: how much it matters.

    MEMO's last step hardly moves the latents but changes the output most; it would rule the fit.
    """
    lengths = step_weights([*recording.sigmas, 0.0])[1:]
    return lengths if len(lengths) == len(recording.signal_change) else [1.0] * len(recording.signal_change)


def count_computed(increments: Sequence[float], threshold: float, *, compute_last: bool = False) -> int:
    """Evaluations that TeaCache computes in a run with these changes; the first one always."""
    computed, accumulated = 1, 0.0
    for step, increment in enumerate(increments, start=1):
        accumulated += increment
        if accumulated >= threshold or (compute_last and step == len(increments)):
            computed, accumulated = computed + 1, 0.0
    return computed


def fit_thresholds(
    increments: Sequence[Sequence[float]], *, compute_last: bool = False
) -> tuple[tuple[float, float], ...]:
    """Effective thresholds that make the published table hold on the recorded runs; increasing."""
    largest = max((sum(run) for run in increments), default=0.0)
    if largest <= 0:
        return PUBLISHED_TABLE
    grid = to_floats(torch.logspace(-3, 0, 1200, dtype=torch.float64) * largest)
    evaluations = sum(len(run) + 1 for run in increments)

    count = partial(count_computed, compute_last=compute_last)
    speedups = [evaluations / sum(count(run, threshold) for run in increments) for threshold in grid]
    pairs: list[tuple[float, float]] = []
    for public, wanted in PUBLISHED_TABLE:
        miss = [abs(math.log(speedup / wanted)) for speedup in speedups]
        best = [threshold for threshold, value in zip(grid, miss, strict=True) if value <= min(miss) + 1e-12]
        effective = best[len(best) // 2]  # the middle of the plateau is the safest for other videos
        floor = pairs[-1][1] if pairs else 0.0
        pairs.append((public, max(effective, floor)))
    return tuple(pairs)
