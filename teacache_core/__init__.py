"""Step caching for any denoiser: decide which evaluations to compute, forecast the others, say what was done.

Imports torch and the standard library. Knows no model and no host.
"""

from .calibration import Calibration, CalibrationError
from .config import CacheConfigError, StepCacheConfig
from .fingerprint import Fingerprint
from .policy import Decision, Reason
from .report import RunReport, StepRecord, Totals
from .run import CacheRun
from .step_cache import StepCache

__all__ = [
    "CacheConfigError",
    "CacheRun",
    "Calibration",
    "CalibrationError",
    "Decision",
    "Fingerprint",
    "Reason",
    "RunReport",
    "StepCache",
    "StepCacheConfig",
    "StepRecord",
    "Totals",
]
