"""The step cache of one video: settings, calibration, report. It holds no tensor; each clip's cache does."""

from __future__ import annotations

import logging
import math
from collections.abc import Generator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from .calibration import Calibration, CalibrationError, Fingerprint
from .calibration.reading import read_numbers, read_object, refuse
from .calibration.recording import Recording
from .clip_cache import ClipCache, Finished
from .config import StepCacheConfig
from .denoiser import CachedDenoiser, Denoiser
from .feedback import STRENGTHS, disagreement, likeliest
from .metric import to_floats
from .multistep import Multistep
from .observer import Observer
from .plan import ClipPlan, Setting, plan_clip, search_of
from .report import CacheReport, counted

SURPRISE = 2.0
"""Guesses this many times farther off than the calibration's make later clips compute more steps."""

LITTLE = 0.1
"""Of the ridge, where misses are asked how they grow: all of it hides small ones, which looks like growth."""

CORRECTS = (
    "The model corrects part of what skipped steps miss by itself, as the clips have shown: later clips "
    "allow for it."
)

logger = logging.getLogger(__name__)


class StepCache:
    """The cache of one video.

    A host opens each clip by `with cache.clip(sigmas, index)`, a loop by `with cache.wrap(denoiser, sigmas)`.

    calibration: from a file; else learned from the first clip where the settings ask for it. fingerprint: of
    the checkpoint in use, checked against the calibration's. guidance_scale: weighs cond against uncond when
    learning, and tells whether a calibration's weights hold. observe: measure for the report how much
    outputs change and how far off replays are.
    """

    def __init__(
        self,
        config: StepCacheConfig,
        calibration: Calibration | None = None,
        *,
        fingerprint: Fingerprint | None = None,
        guidance_scale: float | None = None,
        observe: bool = False,
    ) -> None:
        if calibration is not None:
            calibration.check(fingerprint)
        self.config = config
        self.calibration = calibration
        self.fingerprint = fingerprint
        self.guidance_scale = guidance_scale
        self.observe = observe
        self.recordings: list[Recording] = []
        self.report = CacheReport(config, _describe(calibration))
        self._plans: tuple[tuple[object, ...], dict[tuple[int, float], ClipPlan]] = ((), {})
        self._more_steps = 0
        self._evidence = [0.0] * len(STRENGTHS)
        if config.mode == "teacache" and calibration is None and not config.calibrate_online:
            self.report.note(
                "Without a calibration a threshold has no fixed meaning on this checkpoint; the signal is "
                "used as it is."
            )

    @contextmanager
    def clip(
        self, sigmas: Sequence[float] | Tensor, clip_index: int = 0, *, euler: bool = True
    ) -> Generator[ClipCache]:
        """The cache of one clip, sampled over `sigmas`: N falling noise levels and the final one.

        euler: whether the sampler is Euler's method; under another, the line answers. The clip's tensors die
        with the block, however that ends. Finished evaluations are reported even if the clip was cut short;
        only a whole clip teaches.
        """
        levels = to_floats(sigmas) if isinstance(sigmas, Tensor) else [float(level) for level in sigmas]
        setting = Setting(tuple(levels), self.guidance_scale, euler)
        plan = self._plan(setting, clip_index)
        observer = Observer() if self.observe else None
        clip = ClipCache(
            self.config, plan, levels, clip_index, guidance_scale=self.guidance_scale, observer=observer
        )
        complete = False
        try:
            yield clip
            complete = True
        finally:
            try:
                finished = clip.finish(complete=complete)
            finally:
                clip.close()
            self._take_in(finished, plan, setting, clip_index)
        logger.info("clip %d: %s", clip_index, self.report.summary())

    @contextmanager
    def wrap(
        self, denoiser: Denoiser, sigmas: Sequence[float] | Tensor, clip_index: int = 0, *, euler: bool = True
    ) -> Generator[Denoiser]:
        """A stand-in for `denoiser` that replays the evaluations it may; switched off, `denoiser` itself."""
        if self.config.mode == "off":
            yield denoiser
            return
        with self.clip(sigmas, clip_index, euler=euler) as clip:
            yield CachedDenoiser(clip, denoiser)

    @property
    def pull(self) -> float:
        """How strongly the net answers latents that are off: as the calibration knows, or the clips show."""
        if self.calibration is None:
            return 0.0
        return likeliest(self._evidence) if self.calibration.pull is None else self.calibration.pull

    def carry(self) -> dict[str, Any]:
        """What one clip leaves to the next, as JSON values: enough to continue a video in another process."""
        learned = None if self.calibration is None else self.calibration.to_json()
        return {"calibration": learned, "more_steps": self._more_steps, "evidence": self._evidence}

    def take_up(self, carried: object, where: str = "unfinished video") -> None:
        """The inverse of `carry`. Anything else raises CalibrationError."""
        fields = read_object(carried, where)
        learned, more_steps = fields.get("calibration"), fields.get("more_steps")
        if isinstance(more_steps, bool) or not isinstance(more_steps, int) or more_steps < 0:
            raise refuse("a count of more steps", str(more_steps), where)
        nothing = [0.0] * len(STRENGTHS)
        evidence = read_numbers(fields.get("evidence", nothing), f"{where}: evidence", len(STRENGTHS))
        self.calibration = None if learned is None else Calibration.from_json(learned, where)
        self._more_steps, self._evidence = more_steps, list(evidence)

    def make_calibration(self) -> Calibration:
        """Fitted from every clip recorded so far."""
        return Calibration.fit(self.recordings, self.fingerprint, self.guidance_scale)

    def _plan(self, setting: Setting, clip_index: int) -> ClipPlan:
        """The clip's plan; one that was found before where nothing it depends on has changed."""
        key = setting, self.calibration, min(clip_index, len(self.config.masks))
        if self._plans[0] != key:
            self._plans = (key, {})
        plans, learned = self._plans[1], (self._more_steps, self.pull)
        if learned not in plans:
            more, pull = learned
            plans[learned] = plan_clip(
                self.config, self.calibration, setting, clip_index, more_steps=more, pull=pull
            )
        return plans[learned]

    def _take_in(self, finished: Finished, plan: ClipPlan, setting: Setting, clip_index: int) -> None:
        self.report.records.extend(finished.records)
        self.report.cache_bytes = max(self.report.cache_bytes, finished.peak_bytes)
        self.report.note(plan.note)
        if finished.recording is not None:
            self._learn(finished.recording, clip_index)
        elif finished.misses and plan.multistep is not None and self.calibration is not None:
            self._adapt(finished.misses, plan.multistep, self.calibration, setting, clip_index)

    def _adapt(
        self,
        misses: Mapping[int, float],
        planned: Multistep,
        calibration: Calibration,
        setting: Setting,
        clip_index: int,
    ) -> None:
        """After a clip: how strongly the net answers latents that are off; and where the clip moved otherwise
        than the calibration's even so, as many steps more as keep the loss.
        """
        found, these = torch.tensor([*misses.values()], dtype=torch.float64), torch.tensor([*misses])
        if not bool(found.isfinite().all()):
            return  # a spoilt clip tells nothing of the next ones

        search = search_of(self.config, calibration, setting, self.pull)
        if calibration.pull is None:
            shown = disagreement(found, lambda pull: search.misses(planned, pull, LITTLE)[these])
            self._evidence = [before + new for before, new in zip(self._evidence, shown, strict=True)]
        expected = search.misses(planned, self.pull)[these].sum()
        surprise = float((found.sum() / (calibration.size * expected)).sqrt())
        if calibration.pull is None and self.pull > 0.0:
            self.report.note(CORRECTS)
        more, self._more_steps = self._more_steps, 0
        if surprise > SURPRISE:
            self._compute_more(surprise, setting, clip_index)
        if self._more_steps != more:
            computed = (self._plan(setting, clip_index).schedule or "").count("1")
            self.report.note(
                f"Clip {clip_index} was {surprise:.1f} times as far from the calibration's forecasts as "
                f"expected: the clips after it compute {computed} of {counted(setting.steps, 'step')}."
            )

    def _compute_more(self, surprise: float, setting: Setting, clip_index: int) -> None:
        """As many steps more as keep the loss that the plan promises on clips so much farther off; never all,
        for a clip computed in full has no guesses to tell that the next one is calm again.
        """
        planned = self._plan(setting, clip_index).multistep
        allowed = math.inf if planned is None else planned.loss / surprise**2
        while (
            (planned := self._plan(setting, clip_index).multistep) is not None
            and planned.loss > allowed
            and len(planned.steps) < setting.steps - 1
        ):
            self._more_steps += 1

    def _learn(self, recording: Recording, clip_index: int) -> None:
        self.recordings.append(recording)
        if self.config.mode == "calibrate":
            self.report.calibration = f"recording ({counted(len(self.recordings), 'clip')} so far)"
            return
        try:
            self.calibration = self.make_calibration()
        except CalibrationError as error:
            self.recordings.pop()
            self.report.note(f"Clip {clip_index} taught nothing: {error}")
            return
        self.report.calibration = f"learned from clip {clip_index}, {_describe(self.calibration)}"


@dataclass(frozen=True)
class CacheSettings:
    """What a front door asks of a cache: settings, and the calibration that they use."""

    config: StepCacheConfig
    calibration: Calibration | None = None

    def start(
        self, fingerprint: Fingerprint | None, guidance_scale: float | None, *, observe: bool = False
    ) -> StepCache:
        """The cache of one video. A threshold without a calibration takes its meaning from the first clip."""
        config = self.config
        if config.mode == "teacache" and self.calibration is None:
            config = replace(config, calibrate_online=True)
        return StepCache(
            config,
            self.calibration,
            fingerprint=fingerprint,
            guidance_scale=guidance_scale,
            observe=observe,
        )


def _describe(calibration: Calibration | None) -> str:
    if calibration is None:
        return "none"
    clips = len(calibration.recordings)
    steps = counted(len(calibration.sigmas), "step")
    return f"{counted(clips, 'clip')} of {steps}, R2 {calibration.r_squared:.2f}"
