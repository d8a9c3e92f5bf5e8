"""Every way of failing, in one line, and whose fault it is: the user's input, the device's, or ours."""

from __future__ import annotations

from typing import Literal

import torch

from memo_avatar.checkpoint.load import CheckpointError
from memo_avatar.files.disk import DiskError
from memo_avatar.files.downloads import DownloadError
from memo_avatar.portrait.images import ImageError
from memo_avatar.voice.emotions import EmotionError
from memo_avatar.voice.sound import MediaError
from teacache_core import CacheConfigError, CalibrationError

from .arguments import CommandError

Fault = Literal["input", "disk", "memory", "device", "ours"]

USER_ERRORS = (
    EmotionError,
    CommandError,
    ImageError,
    MediaError,
    CheckpointError,
    CacheConfigError,
    CalibrationError,
)
_DEVICE_ERRORS = ("CUDA error", "CUDA driver", "cuDNN", "CUBLAS", "HIP error", "MPS backend", "XPU")
_MEMORY = "out of memory"


def fault_of(error: BaseException) -> Fault:
    """Whose fault an error is. Apple's GPU has no error of its own for memory; drivers have none at all."""
    if isinstance(error, (*USER_ERRORS, ModuleNotFoundError)):
        return "input"
    if isinstance(error, DiskError):  # found before the work, or after it
        return "disk" if error.kept else "input"
    if isinstance(error, DownloadError):
        return "disk"
    if isinstance(error, (MemoryError, torch.OutOfMemoryError)):
        return "memory"
    if isinstance(error, RuntimeError):
        text = str(error)
        if _MEMORY in text.lower():
            return "memory"
        if any(sign in text for sign in _DEVICE_ERRORS):
            return "device"
    return "disk" if isinstance(error, OSError) else "ours"


def message_of(error: BaseException) -> str:
    """What to tell, in one line: what was expected, what was got, and what to do."""
    fault = fault_of(error)
    if isinstance(error, ModuleNotFoundError):
        text = (
            f"expected the package {error.name} but it is not installed. Run: python teacache_memo.py setup"
        )
    elif fault == "memory":
        first = str(error).splitlines()[0] if str(error) else "no more"
        text = (
            f"expected enough memory but got: {first}. Use a smaller --size, --dtype bfloat16 or, on a "
            "graphics card, --memory ram."
        )
    elif fault == "device":
        text = f"expected a device that works but got: {str(error).splitlines()[0]}. Run the same line again."
    elif fault == "ours":
        text = f"{type(error).__name__}: {error} (please report it)"
    elif isinstance(error, OSError):
        where = f" ({error.filename})" if error.filename else ""
        text = f"expected to read and write files but got: {error.strerror or error}{where}. Check the disk."
    else:
        text = str(error)
    return " ".join(text.split())
