"""The step cache of one video: settings, calibration, report. It holds no tensor; each clip's `CacheRun`
does.
"""

from __future__ import annotations

import logging
from collections.abc import Generator, Sequence
from contextlib import contextmanager

from torch import Tensor

from .calibration import Calibration, CalibrationError
from .config import StepCacheConfig
from .denoiser import CachedDenoiser, Denoiser
from .fingerprint import Fingerprint
from .metric import to_floats
from .plan import RunPlan, plan_run
from .recording import Recording
from .report import RunReport
from .run import CacheRun

logger = logging.getLogger(__name__)


class StepCache:
    """`with cache.run(sigmas, clip) as run` for hosts, or `with cache.wrap(denoiser, sigmas, clip)` for a
    clip loop.

    calibration: from a file; else learned from the first clip where the settings ask for it. fingerprint: of
    the checkpoint in use, checked against the calibration's. guidance_scale: weighs cond against uncond when
    learning.
    """

    def __init__(
        self,
        config: StepCacheConfig,
        calibration: Calibration | None = None,
        *,
        fingerprint: Fingerprint | None = None,
        guidance_scale: float | None = None,
    ) -> None:
        if calibration is not None:
            calibration.check(fingerprint)
        self.config = config
        self.calibration = calibration
        self.fingerprint = fingerprint
        self.guidance_scale = guidance_scale
        self.recordings: list[Recording] = []
        self.report = RunReport(config, _describe(calibration))
        self._last_plan: tuple[tuple[object, ...], RunPlan] | None = None
        learns = config.calibrate_online or calibration is not None or config.coefficients is not None
        if config.mode == "teacache" and not learns:
            self.report.notes.append(
                "Without a calibration a threshold has no fixed meaning on this checkpoint; the signal is "
                "used as it is."
            )

    @contextmanager
    def run(self, sigmas: Sequence[float] | Tensor, clip_index: int = 0) -> Generator[CacheRun]:
        """One sampling run over `sigmas`: N falling noise levels and the final one.

        Its tensors die with the block, however that ends. Finished evaluations are reported even if the run
        was cut short; only a whole run teaches.
        """
        levels = to_floats(sigmas) if isinstance(sigmas, Tensor) else [float(level) for level in sigmas]
        run = CacheRun(self.config, self._plan(levels, clip_index), levels, clip_index)
        if run.recorder is not None:
            run.recorder.guidance_scale = self.guidance_scale
        try:
            yield run
        except BaseException:
            run.recorder = None
            raise
        finally:
            try:
                records, recording = run.finish()
            finally:
                run.close()
            self.report.records.extend(records)
            self.report.damping = run.plan.damping or self.report.damping
            self.report.cache_bytes = max(self.report.cache_bytes, run.peak_bytes)
            if recording is not None:
                self._learn(recording, clip_index)
        logger.info("clip %d: %s", clip_index, self.report.summary())

    @contextmanager
    def wrap(
        self, denoiser: Denoiser, sigmas: Sequence[float] | Tensor, clip_index: int = 0
    ) -> Generator[Denoiser]:
        """A stand-in for `denoiser` that replays the evaluations it may. Switched off, it is `denoiser`
        itself.
        """
        if self.config.mode == "off":
            yield denoiser
            return
        with self.run(sigmas, clip_index) as run:
            yield CachedDenoiser(run, denoiser)

    def make_calibration(self) -> Calibration:
        """Fitted from every run recorded so far."""
        return Calibration.fit(self.recordings, self.fingerprint)

    def _plan(self, sigmas: list[float], clip_index: int) -> RunPlan:
        """The run's plan; that of the clip before where nothing it depends on has changed."""
        key = (tuple(sigmas), self.calibration, min(clip_index, len(self.config.masks)))
        if self._last_plan is None or self._last_plan[0] != key:
            self._last_plan = (key, plan_run(self.config, self.calibration, sigmas, clip_index))
        return self._last_plan[1]

    def _learn(self, recording: Recording, clip_index: int) -> None:
        self.recordings.append(recording)
        if self.config.mode == "calibrate":
            self.report.calibration = f"recording ({len(self.recordings)} clips so far)"
            return
        try:
            self.calibration = self.make_calibration()
        except CalibrationError as error:
            self.recordings.pop()
            self.report.notes.append(f"Clip {clip_index} taught nothing: {error}")
            return
        self.report.calibration = f"learned from clip {clip_index}, {_describe(self.calibration)}"


def _describe(calibration: Calibration | None) -> str:
    if calibration is None:
        return "none"
    clips = len(calibration.recordings)
    noun = "clip" if clips == 1 else "clips"
    return f"{clips} {noun} of {len(calibration.sigmas)} steps, R2 {calibration.r_squared:.2f}"
