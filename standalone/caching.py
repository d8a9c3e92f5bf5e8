"""The command's cache options -> a `teacache_core.StepCache`, and what it leaves behind."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

from memo_avatar.checkpoint.companions import CALIBRATION_NAME
from memo_avatar.clips.drift_report import Drift, drift_sentence
from memo_avatar.files.disk import replacing, try_place
from memo_avatar.files.json_file import read_json
from memo_avatar.model.nets import MemoModels
from teacache_core import CacheReport, CacheSettings, Calibration, Fingerprint, StepCache, StepCacheConfig

from .arguments import VideoOptions
from .models import ModelFiles

PICTURES = (".png", ".jpg", ".jpeg")


def plan_cache(options: VideoOptions, files: ModelFiles) -> CacheSettings:
    """Read the options; unwritable files, rules that exclude each other and bad calibrations are told now.

    Without any calibration the first clip is computed in full and teaches the rest.
    """
    _check_outputs(options, files)
    config = StepCacheConfig(
        rel_l1_thresh=options.rel_l1_thresh,
        target_speedup=options.target_speedup,
        calibrate=options.calibrate is not None,
        target=options.target,
    )
    path = options.calibration or files.calibration
    if path is None or config.mode in ("off", "calibrate"):
        return CacheSettings(config)
    values = read_json(path, advice="Calibrate again, or give the file that calibrating wrote.")
    return CacheSettings(config, Calibration.from_json(values, str(path)))


def build_cache(
    settings: CacheSettings, models: MemoModels, guidance_scale: float, *, observe: bool
) -> StepCache:
    """The cache of one video; a calibration of another checkpoint is refused."""
    is_off = settings.config.mode == "off"
    fingerprint = None if is_off else Fingerprint.of(models.diffusion_net.state_dict())
    return settings.start(fingerprint, guidance_scale, observe=observe)


def save_results(
    cache: StepCache, drift: Sequence[Drift], options: VideoOptions, seconds: float
) -> list[str]:
    """Write the calibration and the report that were asked for; a line about each, and what the cache made of
    a video that took `seconds`. ``drift`` belongs to the report.
    """
    lines = []
    if options.calibrate is not None and cache.recordings:
        with replacing(options.calibrate) as part:
            part.write_text(cache.make_calibration().to_text(), encoding="utf-8")
        lines.append(f"Calibration: {options.calibrate}")
    if options.cache_report is not None:
        save_report(cache.report, options.cache_report, drift)
        lines += [f"Cache report: {options.cache_report}", *filter(None, [drift_sentence(drift)])]
    if cache.config.mode != "off":
        whole = cache.report.whole(seconds)
        lines += [cache.report.summary(), *([whole] if whole else []), *cache.report.notes]
    return lines


def save_report(report: CacheReport, path: Path, drift: Sequence[Drift] = ()) -> None:
    """As JSON (.json), as a picture (.png, .jpg) or as text (anything else), with the video's drift."""
    kind = path.suffix.lower()
    with replacing(path) as part:
        if kind in PICTURES:
            from memo_avatar.video.drift_picture import add_curve
            from teacache_core.picture import draw

            add_curve(draw(report, curves=True), drift).save(part, format="PNG" if kind == ".png" else "JPEG")
        elif kind == ".json":
            document = {**report.to_json(), "drift": [asdict(clip) for clip in drift]}
            part.write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")
        else:
            lines = [*filter(None, [drift_sentence(drift)]), report.to_text(details=True)]
            part.write_text("\n".join(lines) + "\n", encoding="utf-8")


def _check_outputs(options: VideoOptions, files: ModelFiles) -> None:
    """Results replace no input, no model file and not each other."""
    taken = [*options.inputs, options.output, files.checkpoint]
    for folder in filter(Path.is_dir, (files.checkpoint, files.vae, files.wav2vec2)):
        taken += (path for path in folder.rglob("*") if path.name != CALIBRATION_NAME)
    for path in (options.calibrate, options.cache_report):
        if path is not None:
            try_place(path, apart_from=taken)
            taken.append(path)
