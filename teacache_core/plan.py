"""How one clip will decide and answer, settled from settings and calibration before its first evaluation."""

from __future__ import annotations

from dataclasses import dataclass, field

from .calibration import Calibration
from .config import StepCacheConfig
from .forecast import Forecaster, Line, Table
from .metric import Rescale, same_levels
from .multistep import Multistep, Search, as_rows
from .report import counted
from .schedule import as_mask, computed_steps, plan_schedule


@dataclass(frozen=True)
class Setting:
    """What a clip is sampled with, as far as it matters for what a skipped evaluation should answer.

    sigmas: N falling noise levels and the final one. guidance_scale: weighs cond against uncond. euler: each
    answer moves the latents by its own step's length and by nothing else.
    """

    sigmas: tuple[float, ...]
    guidance_scale: float | None = None
    euler: bool = True

    @property
    def steps(self) -> int:
        return len(self.sigmas) - 1


@dataclass(frozen=True)
class ClipPlan:
    """The rule of one clip.

    forecaster: what is answered. mask: compute or skip, per evaluation. schedule: the same per noise level,
    so that samplers with several evaluations a step obey it too. Where neither is given, threshold and
    rescale rule; signal_scale makes the signal's change that of the step length the rescale was fitted on.
    record: compute everything and learn from it. note: why answers are what they are, for the report.
    multistep: schedule and weights, where they come from a calibration.
    """

    forecaster: Forecaster = field(default_factory=Line)
    threshold: float = 0.0
    rescale: Rescale | None = None
    signal_scale: float = 1.0
    mask: str | None = None
    schedule: str | None = None
    record: bool = False
    note: str = ""
    multistep: Multistep | None = None

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

    def expected_change(self, change: float) -> float:
        """What a measured change of the signal is worth."""
        scaled = change * self.signal_scale
        return scaled if self.rescale is None else self.rescale(scaled)


def plan_clip(
    config: StepCacheConfig,
    calibration: Calibration | None,
    setting: Setting,
    clip_index: int = 0,
    *,
    more_steps: int = 0,
    pull: float = 0.0,
) -> ClipPlan:
    """The plan of one clip. more_steps: beyond what `config.target_speedup` asks for; pull: how strongly the
    net answers latents that are off (`feedback`).
    """
    mode, line = config.mode, _line(config, setting)
    if mode == "mask":
        return ClipPlan(line, mask=config.masks[min(clip_index, len(config.masks) - 1)])
    if mode == "calibrate" or (calibration is None and (mode == "schedule" or config.calibrate_online)):
        return ClipPlan(line, record=True)
    if mode == "schedule" and calibration is not None:
        return _scheduled(config, calibration, setting, more_steps, pull)
    if calibration is None:
        return ClipPlan(line, threshold=config.rel_l1_thresh)
    return ClipPlan(
        line,
        threshold=calibration.effective_threshold(config.rel_l1_thresh, compute_last=config.compute_last),
        rescale=calibration.rescale,
        signal_scale=setting.steps / len(calibration.sigmas),
    )


def misfit(calibration: Calibration, setting: Setting) -> str | None:
    """Why a calibration's weights do not hold for a clip; None if they do."""
    if not setting.euler:
        return "the sampler is not euler"
    if len(calibration.sigmas) != setting.steps:
        return (
            f"the calibration has {counted(len(calibration.sigmas), 'step')} and this video {setting.steps}"
        )
    if not same_levels(calibration.sigmas, setting.sigmas[:-1]):
        return "the calibration's noise levels are others than this video's"
    if calibration.guidance_scale != setting.guidance_scale:
        known, wanted = calibration.guidance_scale, setting.guidance_scale
        return f"the calibration's guidance is {_named(known)} and this video's {_named(wanted)}"
    return None


def search_of(config: StepCacheConfig, calibration: Calibration, setting: Setting, pull: float) -> Search:
    """What prices schedules of such clips."""
    return Search(
        calibration.gram(),
        setting.sigmas,
        config,
        calibration.spread,
        pull=pull,
        guidance_scale=setting.guidance_scale,
    )


def _scheduled(
    config: StepCacheConfig, calibration: Calibration, setting: Setting, more_steps: int, pull: float
) -> ClipPlan:
    line = _line(config, setting)
    computed = min(setting.steps, computed_steps(setting.steps, config) + more_steps)
    if computed == setting.steps:
        return ClipPlan(line, schedule="1" * computed)
    reason = misfit(calibration, setting)
    if config.on_skip == "forecast" and config.stored == "velocity" and reason is None:
        found = search_of(config, calibration, setting, pull).plan(computed)
        note = "Skipped steps answer with calibrated weights of all computed ones."
        table = _table(found, setting, line)
        return ClipPlan(table, schedule=as_mask(found.steps, setting.steps), note=note, multistep=found)
    schedule = plan_schedule(calibration.gram(), calibration.sigmas, setting.sigmas, config)
    why = "" if reason is None or config.on_skip != "forecast" else f", because {reason}"
    note = f"Skipped steps answer with the line through the last two computed ones{why}."
    if config.on_skip == "reuse":
        note = "Skipped steps answer with the last computed one."
    return ClipPlan(_line(config, setting, schedule.damping), schedule=schedule.mask, note=note)


def _table(found: Multistep, setting: Setting, line: Line) -> Table:
    return Table(
        levels=tuple(setting.sigmas[step] for step in found.steps),
        answers=as_rows(found.answers),
        guesses=as_rows(found.guesses),
        line=line,
    )


def _line(config: StepCacheConfig, setting: Setting, damping: tuple[float, ...] | None = None) -> Line:
    ahead = setting.sigmas[1:] if config.target == "converged" and setting.euler else None
    return Line(config.on_skip == "reuse", damping, ahead)


def _named(guidance_scale: float | None) -> str:
    return "not known" if guidance_scale is None else f"{guidance_scale:g}"
