"""Step caching for any denoiser: decide which evaluations to compute, forecast the others, say what was done.

Imports torch and the standard library. Knows no model and no host.
"""

from .calibration import Calibration, CalibrationError, Fingerprint
from .clip_cache import ClipCache
from .config import PRESET_DECIBELS, PRESETS, CacheConfigError, StepCacheConfig
from .policy import Decision, Reason
from .report import CacheReport, StepRecord, Totals
from .step_cache import CacheSettings, StepCache

__all__ = [
    "PRESETS",
    "PRESET_DECIBELS",
    "CacheConfigError",
    "CacheReport",
    "CacheSettings",
    "Calibration",
    "CalibrationError",
    "ClipCache",
    "Decision",
    "Fingerprint",
    "Reason",
    "StepCache",
    "StepCacheConfig",
    "StepRecord",
    "Totals",
]
