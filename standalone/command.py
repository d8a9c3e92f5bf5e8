"""`teacache_memo.py`'s main function: which job, and how each way of failing is told."""

from __future__ import annotations

import io
import signal
import sys
from collections.abc import Sequence
from typing import NoReturn

import torch

from memo_avatar.checkpoint.convert import convert
from memo_avatar.checkpoint.load import CheckpointError
from memo_avatar.files.disk import DiskError
from memo_avatar.files.downloads import DownloadError
from memo_avatar.portrait.images import ImageError
from memo_avatar.voice.emotions import EmotionError
from memo_avatar.voice.sound import MediaError
from teacache_core import CacheConfigError, CalibrationError

from .arguments import CommandError, ConvertOptions, parse_convert, parse_video
from .progress import byte_progress

BAD_INPUT, FAILED, INTERRUPTED = 2, 1, 130
USER_ERRORS = (
    EmotionError,
    CommandError,
    ImageError,
    MediaError,
    CheckpointError,
    CacheConfigError,
    CalibrationError,
)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; the exit status: 0 done, 1 failed, 2 bad input, 130 stopped by the user."""
    arguments = sys.argv[1:] if arguments is None else list(arguments)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # a code page may lack the letters of a file's name
            stream.reconfigure(errors="backslashreplace")
    previous = signal.signal(signal.SIGTERM, _interrupt)
    try:
        return _run(arguments)
    except USER_ERRORS as error:
        return _fail(str(error), BAD_INPUT)
    except DiskError as error:
        return _fail(str(error), FAILED if error.kept else BAD_INPUT)
    except DownloadError as error:
        return _fail(str(error), FAILED)
    except ModuleNotFoundError as error:
        return _fail(
            f"expected the package {error.name} but it is not installed. Run: python teacache_memo.py setup",
            BAD_INPUT,
        )
    except (MemoryError, torch.OutOfMemoryError) as error:
        return _fail(
            f"expected enough memory but got: {error}. Use a smaller --size or --dtype bfloat16.", FAILED
        )
    except KeyboardInterrupt:
        return _fail(_stopped(arguments), INTERRUPTED)
    finally:
        signal.signal(signal.SIGTERM, previous)


def _run(arguments: list[str]) -> int:
    if arguments[:1] == ["convert"]:
        return _convert(parse_convert(arguments[1:]))
    if arguments[:1] in (["models"], ["convert-emotion"]):
        from .models_command import convert_emotion, models, parse_models

        rest = arguments[1:]
        return models(parse_models(rest)) if arguments[0] == "models" else convert_emotion(rest)
    options = parse_video(arguments)
    from .generate import generate

    return generate(options)


def _convert(options: ConvertOptions) -> int:
    with byte_progress("converting") as progress:
        convert(options.src, options.dst, getattr(torch, options.dtype), progress)
    print(f"Checkpoint: {options.dst} ({options.dst.stat().st_size / 1e6:.1f} MB, {options.dtype})")
    return 0


def _stopped(arguments: list[str]) -> str:
    if arguments[:2] == ["models", "download"]:
        return "stopped; what arrived is kept, run the same command to continue."
    return "stopped before the first clip was finished; no video was written."


def _fail(message: str, status: int) -> int:
    print("Error: " + " ".join(message.split()), file=sys.stderr)
    return status


def _interrupt(_signal: int, _frame: object) -> NoReturn:
    raise KeyboardInterrupt
