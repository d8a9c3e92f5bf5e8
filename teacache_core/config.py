"""What a user may ask of the step cache: one frozen, validated value.

Knows the meaning and the limits of every setting. Does not know models, tensors or clips.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Literal

OnSkip = Literal["forecast", "line", "reuse"]
Target = Literal["same", "converged"]
Stored = Literal["velocity", "residual"]
Mode = Literal["off", "teacache", "schedule", "mask", "calibrate"]

PRESETS: Mapping[str, float] = {"careful": 2.0, "fast": 3.3, "fastest": 4.0}
"""`target_speedup` by name: 10, 6 and 5 computed evaluations of 20."""

PRESET_DECIBELS: Mapping[str, int] = {"careful": 64, "fast": 50, "fastest": 45}
"""How near these come to the video of all 20 steps on the bundled demo model: PSNR to the decibel, from the
newest result of `python -m benchmarks.caching`, as tests/unit/cache/test_preset_losses.py holds."""


class CacheConfigError(ValueError):
    """A cache setting that cannot work, with the value that would."""


@dataclass(frozen=True)
class StepCacheConfig:
    """Settings of one step cache. The defaults switch it off.

    At most one of `rel_l1_thresh`, `target_speedup`, `step_mask` and `calibrate` decides which evaluations
    run:

    rel_l1_thresh: TeaCache. Accumulated relative change of the watched signal below which evaluations are
        skipped; 0 is off. Higher skips more. With a calibration 0.09, 0.15 and 0.25 give 1.5x, 2x and 2.5x.
    target_speedup: ask for N times fewer computed evaluations; the ones that lose least are found from a
        calibration (or, when there is none, from the first clip, which is then computed in full).
    step_mask: one text of "1" (compute) and "0" (skip) per clip, in evaluation order; the last repeats.
    calibrate: compute everything and record what a calibration is made from.

    calibrate_online: in `rel_l1_thresh` mode, compute the first clip in full and rescale the rest by what it
        taught.
    target: what the result should be near to. "same": what all evaluations would give. "converged": what
        many more steps would give.
    on_skip: what a skipped evaluation answers. "forecast": the calibrated weights of all computed values
        where they fit, else the line. "line": the line through the last two. "reuse": the last one again.
    start_percent, end_percent: share of the noise range (0 = pure noise, 1 = clean) in which skipping is
        allowed.
    max_consecutive_skips: compute at least once after this many skips; None is no limit.
    compute_last: never skip the last step (TeaCache as published).
    stored: the net's output ("velocity"), or output minus input of its body ("residual", as published).
    """

    rel_l1_thresh: float = 0.0
    target_speedup: float | None = None
    step_mask: str | tuple[str, ...] | None = None
    calibrate: bool = False
    calibrate_online: bool = False
    target: Target = "same"
    on_skip: OnSkip = "forecast"
    start_percent: float = 0.0
    end_percent: float = 1.0
    max_consecutive_skips: int | None = None
    compute_last: bool = False
    stored: Stored = "velocity"

    def __post_init__(self) -> None:
        if isinstance(self.step_mask, str):
            object.__setattr__(self, "step_mask", tuple(self.step_mask.replace(",", " ").split()))
        _check_rule(self)
        _check_limits(self)
        _check_choices(self)

    @classmethod
    def published(cls, rel_l1_thresh: float) -> StepCacheConfig:
        """TeaCache as its paper has it: the body's residual is reused, first and last step always run."""
        return cls(rel_l1_thresh=rel_l1_thresh, on_skip="reuse", stored="residual", compute_last=True)

    @property
    def mode(self) -> Mode:
        """The rule that decides which evaluations are computed."""
        if self.calibrate:
            return "calibrate"
        if self.step_mask is not None:
            return "mask"
        if self.target_speedup is not None:
            return "schedule"
        return "teacache" if self.rel_l1_thresh > 0 else "off"

    @property
    def masks(self) -> tuple[str, ...]:
        """`step_mask` in its stored form, one text per clip."""
        return self.step_mask if isinstance(self.step_mask, tuple) else ()

    def to_json(self) -> dict[str, Any]:
        """Every setting as JSON values."""
        return asdict(self)


def _check_rule(config: StepCacheConfig) -> None:
    if not (math.isfinite(config.rel_l1_thresh) and config.rel_l1_thresh >= 0):
        raise CacheConfigError(
            f"expected rel_l1_thresh of 0 (off) or more but got {config.rel_l1_thresh} (cache settings). "
            "Use 0.09, 0.15 or 0.25 for a start."
        )
    speedup = config.target_speedup
    if speedup is not None and not (math.isfinite(speedup) and speedup >= 1):
        raise CacheConfigError(
            f"expected target_speedup of 1 or more but got {speedup} (cache settings). Use 2.0, 3.3 or 4.0."
        )
    asked = {
        "rel_l1_thresh": config.rel_l1_thresh > 0,
        "target_speedup": speedup is not None,
        "step_mask": config.step_mask is not None,
        "calibrate": config.calibrate,
    }
    if sum(asked.values()) > 1:
        names = " and ".join(name for name, is_set in asked.items() if is_set)
        raise CacheConfigError(
            f"expected one rule for which steps to compute but got {names} (cache settings). "
            "Keep one of them."
        )
    if config.step_mask is not None and not (
        config.masks and all(mask and not set(mask) - {"0", "1"} for mask in config.masks)
    ):
        raise CacheConfigError(
            f"expected step_mask as text of 1 (compute) and 0 (skip) but got {config.step_mask!r} "
            '(cache settings). Write one digit per step, such as "11010101"; separate clips by spaces.'
        )


def _check_limits(config: StepCacheConfig) -> None:
    start, end = config.start_percent, config.end_percent
    if not (0 <= start <= end <= 1):
        raise CacheConfigError(
            f"expected 0 <= start_percent <= end_percent <= 1 but got {start} and {end} (cache settings). "
            "Give shares of the run, such as 0.1 and 0.9."
        )
    limit = config.max_consecutive_skips
    if limit is not None and limit < 1:
        raise CacheConfigError(
            f"expected max_consecutive_skips of 1 or more, or none, but got {limit} (cache settings). "
            "Set rel_l1_thresh to 0 to skip nothing."
        )


def _check_choices(config: StepCacheConfig) -> None:
    for name, value, allowed in (
        ("on_skip", config.on_skip, ("forecast", "line", "reuse")),
        ("target", config.target, ("same", "converged")),
        ("stored", config.stored, ("velocity", "residual")),
    ):
        if value not in allowed:
            raise CacheConfigError(
                f"expected {name} to be {', '.join(allowed[:-1])} or {allowed[-1]} but got {value!r} "
                f"(cache settings). Use {allowed[0]}."
            )
    if config.target == "converged" and config.stored == "residual":
        raise CacheConfigError(
            "expected stored velocity with target converged but got residual (cache settings). "
            "Leave stored at velocity."
        )
