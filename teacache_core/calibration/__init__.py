"""What full runs on a checkpoint teach: recordings of clips, the calibration made of them, whose it is."""

from .calibration import Calibration
from .fingerprint import Fingerprint
from .reading import CalibrationError

__all__ = ["Calibration", "CalibrationError", "Fingerprint"]
