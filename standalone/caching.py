"""The command's cache options -> a `teacache_core.StepCache`, and what it leaves behind."""

from __future__ import annotations

import json
import os
from pathlib import Path

from memo_avatar.files.disk import replacing
from memo_avatar.model.nets import MemoModels
from teacache_core import CacheReport, CacheSettings, Calibration, Fingerprint, StepCache, StepCacheConfig

from .arguments import CommandError, VideoOptions
from .models import ModelFiles

PICTURES = (".png", ".jpg", ".jpeg")


def plan_cache(options: VideoOptions, files: ModelFiles) -> CacheSettings:
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
        target=options.target,
    )
    path = options.calibration or files.calibration
    if path is None or config.mode in ("off", "calibrate"):
        return CacheSettings(config)
    return CacheSettings(config, Calibration.load(path))


def build_cache(
    settings: CacheSettings, models: MemoModels, guidance_scale: float, *, observe: bool
) -> StepCache:
    """The cache of one video; a calibration of another checkpoint is refused."""
    is_off = settings.config.mode == "off"
    fingerprint = None if is_off else Fingerprint.of(models.diffusion_net.state_dict())
    return settings.start(fingerprint, guidance_scale, observe=observe)


def save_results(cache: StepCache, options: VideoOptions) -> list[str]:
    """Write the calibration and the report that were asked for; a line about each, and the summary."""
    lines = []
    if options.calibrate is not None and cache.recordings:
        with replacing(options.calibrate) as part:
            part.write_text(cache.make_calibration().to_text(), encoding="utf-8")
        lines.append(f"Calibration: {options.calibrate}")
    if options.cache_report is not None:
        save_report(cache.report, options.cache_report)
        lines.append(f"Cache report: {options.cache_report}")
    if cache.config.mode != "off":
        lines += [cache.report.summary(), *cache.report.notes]
    return lines


def save_report(report: CacheReport, path: Path) -> None:
    """As JSON (.json), as a picture (.png, .jpg) or as text (anything else)."""
    kind = path.suffix.lower()
    with replacing(path) as part:
        if kind in PICTURES:
            from teacache_core.picture import draw

            draw(report).save(part, format="PNG" if kind == ".png" else "JPEG")
        elif kind == ".json":
            part.write_text(json.dumps(report.to_json(), indent=1) + "\n", encoding="utf-8")
        else:
            part.write_text(report.to_text(details=True) + "\n", encoding="utf-8")


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
