"""`teacache_memo.py`'s main function: which job, and how each way of failing is told."""

from __future__ import annotations

import io
import signal
import sys
from collections.abc import Sequence
from typing import NoReturn

import torch

from memo_avatar.checkpoint.convert import convert

from .arguments import ConvertOptions, parse_convert, parse_video
from .batch.arguments import parse_batch
from .failures import fault_of, message_of
from .progress import byte_progress

BAD_INPUT, FAILED, INTERRUPTED = 2, 1, 130


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; the exit status: 0 done, 1 failed, 2 bad input, 130 stopped by the user."""
    arguments = sys.argv[1:] if arguments is None else list(arguments)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # a code page may lack the letters of a file's name
            stream.reconfigure(errors="backslashreplace")
    previous = signal.signal(signal.SIGTERM, _interrupt)
    try:
        return _run(arguments)
    except Exception as error:
        fault = fault_of(error)
        if fault == "ours":
            raise
        return _fail(message_of(error), BAD_INPUT if fault == "input" else FAILED)
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
    if arguments[:1] == ["doctor"]:
        from .doctor import doctor

        return doctor(arguments[1:])
    if arguments[:1] == ["unfinished"]:
        from .video.left_over import unfinished

        return unfinished(arguments[1:])
    if arguments[:1] == ["batch"]:
        from .batch.command import batch

        return batch(parse_batch(arguments[1:]))
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
