"""How one run will decide, settled from settings and calibration before its first evaluation."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from .calibration import Calibration
from .config import StepCacheConfig
from .metric import Rescale
from .schedule import plan_schedule


@dataclass(frozen=True)
class RunPlan:
    """The rule of one run.

    mask: per evaluation. schedule: per noise level, so that samplers with several evaluations a step obey it
    too. Where neither is given, threshold and rescale rule; signal_scale makes the signal's change that of
    the step length the rescale was fitted on. record: compute everything and learn from it.
    """

    threshold: float = 0.0
    rescale: Rescale | None = None
    signal_scale: float = 1.0
    mask: str | None = None
    schedule: str | None = None
    record: bool = False
    damping: tuple[float, ...] | None = None

    @property
    def needs_signal(self) -> bool:
        """Whether deciding (or learning) takes the watched signal."""
        return self.mask is None and self.schedule is None

    def planned(self, evaluation: int, step: int) -> bool | None:
        """What the plan says about an evaluation: compute, skip, or nothing. Past a mask's end: compute."""
        if self.mask is not None:
            return self.mask[evaluation : evaluation + 1] != "0"
        if self.schedule is not None:
            return self.schedule[step] != "0"
        return None

    def trust(self, step: int) -> float:
        """Damping of a forecast at this step."""
        return 1.0 if self.damping is None or step >= len(self.damping) else self.damping[step]

    def expected_change(self, change: float) -> float:
        """What a measured change of the signal is worth."""
        scaled = change * self.signal_scale
        return scaled if self.rescale is None else self.rescale(scaled)


def plan_run(
    config: StepCacheConfig, calibration: Calibration | None, sigmas: Sequence[float], clip_index: int
) -> RunPlan:
    """The plan of a run over `sigmas` (N + 1 levels)."""
    mode = config.mode
    if mode == "off":
        return RunPlan(mask="")
    if mode == "mask":
        return RunPlan(mask=config.masks[min(clip_index, len(config.masks) - 1)], damping=config.damping)
    if mode == "calibrate" or (calibration is None and (mode == "schedule" or config.calibrate_online)):
        return RunPlan(record=True)
    if mode == "schedule" and calibration is not None:
        schedule = plan_schedule(calibration.gram(), calibration.sigmas, sigmas, config)
        return RunPlan(schedule=schedule.mask, damping=schedule.damping)
    if config.coefficients is not None:
        return RunPlan(threshold=config.rel_l1_thresh, rescale=Rescale(config.coefficients))
    if calibration is None:
        return RunPlan(threshold=config.rel_l1_thresh)
    return RunPlan(
        threshold=calibration.effective_threshold(config.rel_l1_thresh, compute_last=config.compute_last),
        rescale=calibration.rescale,
        signal_scale=(len(sigmas) - 1) / len(calibration.sigmas),
    )
