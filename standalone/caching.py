"""The command's cache options -> a `teacache_core.StepCache`, and what it leaves behind."""

from __future__ import annotations

import os
from dataclasses import dataclass, replace
from pathlib import Path

from memo_avatar.model.nets import MemoModels
from teacache_core import Calibration, Fingerprint, StepCache, StepCacheConfig

from .arguments import CommandError, VideoOptions
from .models import ModelFiles


@dataclass(frozen=True)
class CachePlan:
    """The cache's settings and the calibration that they use."""

    config: StepCacheConfig
    calibration: Calibration | None


def plan_cache(options: VideoOptions, files: ModelFiles) -> CachePlan:
    """Read the options; unwritable files, rules that exclude each other and bad calibrations are told now.

    Without any calibration the first clip is computed in full and teaches the rest.
    """
    for name, path in (("--calibrate", options.calibrate), ("--cache-report", options.cache_report)):
        if path is not None:
            _check_writable(name, path)
    config = StepCacheConfig(
        rel_l1_thresh=options.rel_l1_thresh,
        target_speedup=options.target_speedup,
        calibrate=options.calibrate is not None,
    )
    if config.mode in ("off", "calibrate"):
        return CachePlan(config, None)
    path = options.calibration or files.calibration
    if path is None:
        return CachePlan(replace(config, calibrate_online=config.mode == "teacache"), None)
    return CachePlan(config, Calibration.load(path))


def build_cache(plan: CachePlan, models: MemoModels, guidance_scale: float) -> StepCache:
    """The cache of one video; a calibration of another checkpoint is refused."""
    fingerprint = None if plan.config.mode == "off" else Fingerprint.of(models.diffusion_net.state_dict())
    return StepCache(plan.config, plan.calibration, fingerprint=fingerprint, guidance_scale=guidance_scale)


def save_results(cache: StepCache, options: VideoOptions) -> list[str]:
    """Write the calibration and the report that were asked for; a line about each, and the summary."""
    lines = []
    if options.calibrate is not None and cache.recordings:
        cache.make_calibration().save(options.calibrate)
        lines.append(f"Calibration: {options.calibrate}")
    if options.cache_report is not None:
        cache.report.save(options.cache_report)
        lines.append(f"Cache report: {options.cache_report}")
    if cache.config.mode != "off":
        lines.append(cache.report.summary())
    return lines


def _check_writable(name: str, path: Path) -> None:
    if path.is_dir():
        actual = "a folder"
    elif not path.parent.is_dir():
        actual = f"no such folder {path.parent}"
    elif not os.access(path if path.exists() else path.parent, os.W_OK):
        actual = "one that is read-only"
    else:
        return
    raise CommandError(
        f"expected a file that can be written but got {actual} ({name} {path}). Choose another."
    )
