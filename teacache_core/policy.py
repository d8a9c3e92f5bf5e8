"""Compute or skip: one pure function of what is known before an evaluation."""

from __future__ import annotations

from dataclasses import dataclass, replace
from enum import Enum

from .config import StepCacheConfig


class Reason(str, Enum):
    """Why an evaluation was computed or skipped; the values are shown to users."""

    NOTHING_STORED = "nothing stored yet"
    CALIBRATING = "calibrating"
    PLANNED_COMPUTE = "planned: compute"
    PLANNED_SKIP = "planned: skip"
    OUTSIDE_WINDOW = "outside start/end"
    LAST_STEP = "last step"
    SKIP_LIMIT = "skip limit reached"
    NO_SIGNAL = "change unknown"
    BELOW_THRESHOLD = "change below threshold"
    THRESHOLD_REACHED = "threshold reached"


@dataclass(frozen=True)
class Decision:
    """The verdict on one evaluation, binding for all its branches."""

    compute: bool
    reason: Reason


@dataclass(frozen=True)
class PolicyState:
    """What the policy remembers from one evaluation to the next. A fresh one knows nothing."""

    accumulated: float = 0.0
    consecutive_skips: int = 0


@dataclass(frozen=True)
class Observation:
    """What is known about the evaluation at hand.

    change: the (rescaled) change of the watched signal since the last evaluation; None when unknown.
    planned: the plan's wish (True = compute), None where no plan rules.
    replayable: every branch has something stored that fits.
    """

    progress: float
    is_last_step: bool = False
    replayable: bool = True
    planned: bool | None = None
    calibrating: bool = False
    change: float | None = None


def decide(
    config: StepCacheConfig, threshold: float, state: PolicyState, seen: Observation
) -> tuple[Decision, PolicyState]:
    """The decision and the state after it. TeaCache's rule, under a plan and the user's limits.

    Anything that cannot be proved safe to skip is computed.
    """
    accumulated = state.accumulated + (seen.change or 0.0)
    decision = _forced(config, state, seen)
    if decision is None:
        if seen.change is None:
            decision = Decision(True, Reason.NO_SIGNAL)
        elif accumulated < threshold:  # false for NaN, which computes
            decision = Decision(False, Reason.BELOW_THRESHOLD)
        else:
            decision = Decision(True, Reason.THRESHOLD_REACHED)
    if decision.compute:
        return decision, PolicyState()
    return decision, replace(state, accumulated=accumulated, consecutive_skips=state.consecutive_skips + 1)


def _forced(config: StepCacheConfig, state: PolicyState, seen: Observation) -> Decision | None:
    """A decision that needs no threshold, or None."""
    if seen.calibrating:
        return Decision(True, Reason.CALIBRATING)
    if not seen.replayable:
        return Decision(True, Reason.NOTHING_STORED)
    if seen.planned is not None:
        return Decision(seen.planned, Reason.PLANNED_COMPUTE if seen.planned else Reason.PLANNED_SKIP)
    if not config.start_percent <= seen.progress <= config.end_percent:
        return Decision(True, Reason.OUTSIDE_WINDOW)
    if config.compute_last and seen.is_last_step:
        return Decision(True, Reason.LAST_STEP)
    if config.max_consecutive_skips is not None and state.consecutive_skips >= config.max_consecutive_skips:
        return Decision(True, Reason.SKIP_LIMIT)
    return None
