"""What full runs on a checkpoint taught: a rescale, a meaning for thresholds, and the material for schedules.

Small, shareable, checked against the checkpoint it was made on. Holds numbers only.
"""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ..metric import Rescale
from ..multistep import spread_of
from ..schedule import step_weights
from .fingerprint import Fingerprint
from .reading import (
    CalibrationError,
    read_list,
    read_number,
    read_numbers,
    read_object,
    read_strength,
    refuse,
)
from .recording import Recording
from .rescale import fit_polynomial, fit_thresholds

FORMAT = "teacache-calibration"
LARGEST_FILE = 64 * 2**20
VERSION, READ = 3, (1, 2, 3)
"""Version 1 has no guidance_scale; it is read as one whose guidance is not known. Before version 3 there is
no pull, which is not known then."""


@dataclass(frozen=True)
class Calibration:
    """Fitted from recordings of full runs.

    coefficients: degree-4 polynomial from signal change to output change, highest power first, trusted
    between low and high. guidance_scale: what weighed cond against uncond in the recordings; None: nothing
    did, or nobody knows. pull: how strongly the net answers latents that are off (`feedback`), which only
    clips with skipped steps show; None: nobody knows, and the clips of each video have to.
    """

    recordings: tuple[Recording, ...]
    coefficients: tuple[float, ...]
    low: float
    high: float
    r_squared: float
    fingerprint: Fingerprint | None = None
    guidance_scale: float | None = None
    pull: float | None = None

    @classmethod
    def fit(
        cls,
        recordings: Sequence[Recording],
        fingerprint: Fingerprint | None = None,
        guidance_scale: float | None = None,
    ) -> Calibration:
        """From full runs over the same noise levels; without a watched signal, for schedules only."""
        _check_recordings(recordings)
        if not all(recording.signal_change for recording in recordings):
            return cls(tuple(recordings), (1.0, 0.0), 0.0, math.inf, 0.0, fingerprint, guidance_scale)
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
            guidance_scale=guidance_scale,
        )

    @property
    def sigmas(self) -> tuple[float, ...]:
        """Noise levels of the recorded steps."""
        return self.recordings[0].sigmas

    @property
    def rescale(self) -> Rescale:
        """Signal change -> expected output change."""
        return Rescale(self.coefficients, self.low, self.high)

    @property
    def size(self) -> float:
        """Mean square of a centred velocity's elements: what turns `gram` into the recordings' own unit."""
        return sum(recording.size for recording in self.recordings) / len(self.recordings)

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
        """The accumulated rescaled change at which a public threshold computes; linear between knots."""
        knots = ((0.0, 0.0), *self.thresholds[compute_last])
        for (x0, y0), (x1, y1) in pairwise(knots):
            if rel_l1_thresh <= x1:
                return y0 + (y1 - y0) * (rel_l1_thresh - x0) / (x1 - x0)
        return knots[-1][1] * rel_l1_thresh / knots[-1][0]

    def gram(self) -> Tensor:
        """(N, N) inner products of velocities, averaged over the recordings at mean diagonal 1."""
        return self._grams().mean(0)

    @cached_property
    def spread(self) -> float:
        """How little the recordings agree (`teacache_core.multistep.spread_of`)."""
        return spread_of(self._grams())

    def _grams(self) -> Tensor:
        return torch.stack([recording.gram_tensor() for recording in self.recordings])

    def check(self, fingerprint: Fingerprint | None) -> None:
        """Raise unless this calibration was made on the checkpoint with `fingerprint`."""
        if fingerprint is None or self.fingerprint is None or self.fingerprint.matches(fingerprint):
            return
        raise CalibrationError(
            f"expected a calibration of this checkpoint ({fingerprint.layout}) but got one of another "
            f"checkpoint ({self.fingerprint.layout}) (calibration). Calibrate again with this checkpoint, or "
            "load the other one."
        )

    def to_json(self) -> dict[str, Any]:
        """JSON values."""
        return {
            "format": FORMAT,
            "version": VERSION,
            "fingerprint": None if self.fingerprint is None else self.fingerprint.to_json(),
            "guidance_scale": self.guidance_scale,
            "pull": self.pull,
            "coefficients": list(self.coefficients),
            "range": [self.low, self.high if math.isfinite(self.high) else None],
            "r_squared": self.r_squared,
            "recordings": [recording.to_json() for recording in self.recordings],
        }

    def to_text(self) -> str:
        """The text of a calibration file."""
        return json.dumps(self.to_json()) + "\n"

    @classmethod
    def from_json(cls, values: object, where: str = "calibration") -> Calibration:
        """The inverse of `to_json`. Whatever is not a whole calibration raises CalibrationError."""
        fields = read_object(values, where)
        found = fields.get("format"), fields.get("version")
        if found not in [(FORMAT, version) for version in READ]:
            raise CalibrationError(
                f"expected a calibration file ({FORMAT} version {READ[0]} to {VERSION}) but got "
                f"{found[0]!a:.40} version {found[1]!a:.40} ({where}). Give the file that calibrating wrote."
            )
        entries = read_list(fields.get("recordings"), f"{where}: recordings")
        recordings = [
            Recording.from_json(entry, f"{where}: recordings[{index}]") for index, entry in enumerate(entries)
        ]
        _check_recordings(recordings, where)
        coefficients = read_numbers(fields.get("coefficients"), f"{where}: coefficients")
        if not 1 <= len(coefficients) <= 16:
            raise refuse("1 to 16 coefficients", str(len(coefficients)), where)
        low, high = read_list(fields.get("range"), f"{where}: range", 2)
        print_of, guidance = fields.get("fingerprint"), fields.get("guidance_scale")
        pull = fields.get("pull")
        return cls(
            recordings=tuple(recordings),
            coefficients=coefficients,
            low=read_number(low, f"{where}: range"),
            high=math.inf if high is None else read_number(high, f"{where}: range"),
            r_squared=read_number(fields.get("r_squared"), f"{where}: r_squared"),
            fingerprint=None
            if print_of is None
            else Fingerprint.from_json(print_of, f"{where}: fingerprint"),
            guidance_scale=None if guidance is None else read_number(guidance, f"{where}: guidance_scale"),
            pull=None if pull is None else read_strength(pull, f"{where}: pull"),
        )

    @classmethod
    def from_text(cls, text: str, where: str = "calibration") -> Calibration:
        """The inverse of `to_text`. Whatever is not a whole calibration raises CalibrationError."""
        try:
            values = json.loads(text)
        except (ValueError, RecursionError) as error:
            is_syntax = isinstance(error, json.JSONDecodeError)
            place = f" in line {error.lineno}, column {error.colno}" if is_syntax else ""
            raise CalibrationError(
                f"expected a calibration file in JSON but got something else{place} ({where}). "
                "Give the file that calibrating wrote."
            ) from error
        return cls.from_json(values, where)

    @classmethod
    def load(cls, path: str | Path) -> Calibration:
        """Read a calibration file. Whatever is none raises CalibrationError."""
        try:
            with open(path, encoding="utf-8") as file:
                text = file.read(LARGEST_FILE + 1)
        except OSError as error:
            raise CalibrationError(
                f"expected a readable calibration file but got {error.strerror or error} ({path}). Check the "
                "path."
            ) from error
        except UnicodeDecodeError as error:
            raise CalibrationError(
                f"expected a calibration file in JSON but got bytes that are no text ({path}). "
                "Give the file that calibrating wrote."
            ) from error
        if len(text) > LARGEST_FILE:
            raise CalibrationError(
                f"expected a calibration file of {LARGEST_FILE // 2**20} MiB at most but got a larger one "
                f"({path}). Give the file that calibrating wrote."
            )
        return cls.from_text(text, str(path))


def _check_recordings(recordings: Sequence[Recording], where: str = "calibration") -> None:
    if not recordings:
        raise CalibrationError(
            f"expected at least one recording of a full run but got none ({where}). "
            "Let at least one clip of two or more steps finish while calibrating."
        )
    counts = sorted({len(recording.sigmas) for recording in recordings})
    if len(counts) > 1:
        raise CalibrationError(
            f"expected recordings of equally many steps but got {counts} ({where}). Calibrate with one "
            "step count."
        )
    if not all(math.isfinite(value) for recording in recordings for row in recording.gram for value in row):
        raise CalibrationError(
            f"expected finite velocities but got NaN or infinity ({where}). Check the checkpoint and its "
            "dtype."
        )


def _step_lengths(recording: Recording) -> list[float]:
    """|dsigma| after each recorded change: how much it matters.

    MEMO's last step hardly moves the latents but changes the output most; it would rule the fit.
    """
    lengths = step_weights([*recording.sigmas, 0.0])[1:]
    return lengths if len(lengths) == len(recording.signal_change) else [1.0] * len(recording.signal_change)
