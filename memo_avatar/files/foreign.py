"""What a stranger's file says: numbers taken only in range, texts shown short and printable."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from itertools import islice
from typing import Any, TypeVar

from .limits import MAX_LISTED, MAX_SHOWN

Number = TypeVar("Number", int, float)

_WEB_PAGE = "a web page: the download was answered with an error or a login page"
_STARTS = {
    b"pk\x03\x04": "a PyTorch pickle or another zip archive",
    b"\x80\x02": "a PyTorch pickle",
    b"version https://git-lfs": "a Git LFS pointer: the file itself was not downloaded",
    b"<!doctype": _WEB_PAGE,
    b"<html": _WEB_PAGE,
    b"gguf": "a GGUF file",
    b"\x89hdf": "an HDF5 file",
}
_PLAIN = {type(None): "nothing", bool: "a yes or no", str: "a text", int: "a number", float: "a number"}
_KEYS = {"waveform": "a sound", "samples": "a latent", "width": "a box"}
_ATTRIBUTES = {
    "get_components": "a video",
    "encode_image": "a vision model",
    "encode_audio": "an audio encoder",
    "cond_stage_model": "a text encoder",
    "first_stage_model": "a VAE",
    "model_options": "a model",
}
"""By what the host's values hold, and its objects have, they are told."""
_CHANNELS = (1, 3, 4)
_MOST_CHANNELS = 2  # of a sound, whose samples alone are as many dimensions as a mask
_STRIDED = "torch.strided"
LONGEST_START = 64
"""Bytes of a file's start that tell its kind."""


class CheckpointError(ValueError):
    """A file or folder that is no MEMO checkpoint, nothing that belongs to one, or damaged.

    The text names it and the remedy.
    """


def kind_of(start: bytes) -> str | None:
    """What a file that begins so is, where that is no kind of ours but a known one."""
    lower = start[:LONGEST_START].lstrip().lower()
    return next((what for magic, what in _STARTS.items() if lower.startswith(magic)), None)


def number(
    values: Mapping[str, Any], name: str, default: Number | None, low: Number, high: Number, where: object
) -> Number:
    """The value of ``name``, a whole number where the bounds are; ``default`` None: it must be there.

    From 0 to 1, true and false are taken too.
    """
    return _in_range(values.get(name, default), name, low, high, where)


def numbers(
    values: Mapping[str, Any], name: str, low: Number, high: Number, where: object, *, most: int
) -> tuple[Number, ...]:
    """The list of one to ``most`` numbers called ``name``."""
    found = values.get(name)
    if not isinstance(found, list) or not 1 <= len(found) <= most:
        raise CheckpointError(
            f"expected {name} to be a list of 1 to {most} numbers but got {shown(found)} ({where}). "
            "Repair the file, or download it again."
        )
    return tuple(_in_range(value, name, low, high, where) for value in found)


def _in_range(value: Any, name: str, low: Number, high: Number, where: object) -> Number:
    kind = type(low)
    is_number = isinstance(value, (kind, int)) and (not isinstance(value, bool) or (low, high) == (0, 1))
    if not is_number or not low <= value <= high:
        what = "a whole number" if kind is int else "a number"
        raise CheckpointError(
            f"expected {name} to be {what} from {low} to {high} but got {shown(value)} ({where}). "
            "Repair the file, or download it again."
        )
    return kind(value)


def listed(names: Iterable[str], most: int) -> str:
    """The first ``most`` of foreign names, as a message lists them."""
    return ", ".join(shown(name, MAX_LISTED) for name in islice(names, most))


def shown(value: Any, longest: int = MAX_SHOWN) -> str:
    """A foreign value as a message repeats it: one short line that changes no terminal."""
    if isinstance(value, (list, tuple)):
        return f"a list of {len(value)}"
    if isinstance(value, Mapping):
        return f"an object of {len(value)}"
    text = "nothing" if value is None else str(value)
    printable = "".join(c if c.isprintable() else ascii(c)[1:-1] for c in text[: longest + 1])
    return printable if len(printable) <= longest else f"{printable[:longest]}..."


def in_words(value: Any) -> str:
    """What another node's value is, as its user would call it: `a sound`, `a picture`, `a text`."""
    if isinstance(value, (list, tuple)):
        return f"a list of {len(value)}"
    if isinstance(value, Mapping):
        return next((what for key, what in _KEYS.items() if key in set(value)), "a set of values")
    if isinstance(getattr(value, "shape", None), tuple):
        return _numbers_in_words(value)
    named = (what for kind, what in _PLAIN.items() if isinstance(value, kind))
    known = (what for name, what in _ATTRIBUTES.items() if hasattr(value, name))
    return next(named, None) or next(known, "another kind of value")


def _numbers_in_words(value: Any) -> str:
    """Of a tensor or an array: IMAGE, MASK, or anything else."""
    shape, dtype = tuple(value.shape), str(getattr(value, "dtype", ""))
    kind = "sparse " if str(getattr(value, "layout", _STRIDED)) != _STRIDED else ""
    kind += "complex " * ("complex" in dtype) + "whole " * ("int" in dtype and "uint8" not in dtype)
    if all(shape) and not kind:
        if len(shape) in (3, 4) and shape[-1] in _CHANNELS:
            return "a picture" if len(shape) == 3 or shape[0] == 1 else counted(shape[0], "picture")
        if len(shape) == 3 and min(shape[1:]) > _MOST_CHANNELS:
            return "a mask"
    return f"{kind}numbers of shape {shape}"


def counted(count: int, noun: str) -> str:
    """`1 clip`, `2 clips`: a number of things as a message says it."""
    return f"{count} {noun}" if count == 1 else f"{count} {noun}s"
