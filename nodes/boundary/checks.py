"""Every value that a node gets, held against the node's own schema.

The host checks combos, minimum and maximum of typed values only. What comes through a link (a text, a number,
another pack's value) is checked here, and nowhere else.
"""

from __future__ import annotations

import functools
import inspect
import math
import operator
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from comfy_api.latest import io

from ...memo_avatar.files.foreign import in_words, shown
from ...memo_avatar.files.limits import MAX_TEXT
from ...memo_avatar.inputs import Portrait
from ..host.sockets import EncodedVoice, MemoNets, VideoReport
from .words import nearest, page_text, plain_errors, without_folders

_SHOWN = 40  # characters of a wrong value that a message repeats
_VALUES: dict[str, tuple[type, str]] = {
    "MEMO": (MemoNets, "Load MEMO"),
    "MEMO_PORTRAIT": (Portrait, "MEMO Portrait"),
    "MEMO_VOICE": (EncodedVoice, "MEMO Voice"),
    "MEMO_REPORT": (VideoReport, "MEMO Sampler"),
}
"""What our sockets carry, and the node that gives it; a link through another pack may bring anything."""
_OTHERS: dict[str, tuple[tuple[str, ...], str]] = {
    "MODEL": (("model", "model_options", "patches"), "a MODEL, such as Load MEMO's"),
    "VAE": (("encode", "decode"), "a VAE, such as Load MEMO's"),
}
"""What the host's sockets carry: the attributes that every pack's own kind of it has, and its name."""
_CONTROL = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f]")


FORMERLY = "formerly"
"""In the `extra_dict` of a combo: names that workflows of before may hold."""


class InputError(ValueError):
    """A value that the node's schema does not allow. The text is the whole message."""


def checked(execute: Callable[..., io.NodeOutput]) -> Callable[..., io.NodeOutput]:
    """``execute`` of a node that sees only what the node's schema allows, and fails in words for the page."""
    signature = inspect.signature(execute)
    needed = {name for name, each in signature.parameters.items() if each.default is each.empty}

    @functools.wraps(execute)
    def run(cls: type[io.ComfyNode], *args: Any, **kwargs: Any) -> io.NodeOutput:
        with plain_errors():
            values = dict(signature.bind_partial(cls, *args, **kwargs).arguments)
            del values["cls"]
            specs = cls.define_schema().inputs
            for spec in specs:
                if spec.id in needed and spec.id not in values:
                    raise InputError(f"expected a value but got none ({spec.id}). {_remedy(spec)}")
            return execute(cls, **check_values(specs, values))

    return run


def check_values(inputs: Sequence[Any], values: Mapping[str, Any]) -> dict[str, Any]:
    """The values, each as its input of the schema wants it. Raises InputError, or the error of its kind.

    An optional one that is None was not given, and is left out: the node's own default counts.
    """
    optional = {spec.id for spec in inputs if spec.optional}
    given = {name: value for name, value in values.items() if value is not None or name not in optional}
    checked = {spec.id: check_value(spec, given[spec.id]) for spec in inputs if spec.id in given}
    return {**given, **checked}


def refusal_of(node: type[io.ComfyNode], check: Callable[..., object], **typed: Any) -> bool | str:
    """What a node's `validate_inputs` answers: True, or the sentence in which its schema or ``check`` refuses
    a typed value. Linked ones (None) are left out, and checked when they come.
    """
    given = {name: value for name, value in typed.items() if value is not None}
    try:
        check(**check_values(node.define_schema().inputs, given))
    except ValueError as error:
        return page_text(str(error))
    return True


def check_value(spec: Any, value: Any) -> Any:
    """One input's value."""
    for kind, check in _WIDGETS.items():
        if isinstance(spec, kind):
            return check(spec, value)
    if spec.get_io_type() in _OTHERS:
        return _other(spec, value)
    return _value(spec, value) if spec.get_io_type() in _VALUES else value


def _other(spec: Any, value: Any) -> Any:
    """What the host's or another pack's nodes make."""
    attributes, what = _OTHERS[spec.get_io_type()]
    if all(hasattr(value, name) for name in attributes):
        return value
    raise InputError(f"expected {what}, but got {_short(value)} ({spec.id}). Connect Load MEMO.")


def _value(spec: Any, value: Any) -> Any:
    """What another node of the pack makes."""
    kind, source = _VALUES[spec.get_io_type()]
    if isinstance(value, kind):
        return value
    others = [f"what {other} gives" for wanted, other in _VALUES.values() if isinstance(value, wanted)]
    got = next(iter(others), _short(value))
    raise InputError(f"expected what {source} gives but got {got} ({spec.id}). Connect {source}.")


# Widgets, typed or linked


def _combo(spec: Any, value: Any) -> Any:
    """One answer for everything that is not offered: it must not tell which files there are."""
    if value not in spec.options and value not in spec.extra_dict.get(FORMERLY, ()):
        near = nearest(value, map(str, spec.options)) if isinstance(value, str) else None
        which = f"; the nearest there is '{shown(near)}'" if near else ""
        raise InputError(
            f"expected a listed value but got {_short(value)} ({spec.id}). "
            f"{_remedy(spec).removesuffix('.')}{which}."
        )
    return value


def _int(spec: Any, value: Any) -> int:
    given: Any = int(value) if isinstance(value, float) and value.is_integer() else value
    try:
        whole = operator.index(given)
    except TypeError:
        raise InputError(
            f"expected a whole number but got {_short(value)} ({spec.id}). {_remedy(spec)}"
        ) from None
    return _in_range(spec, whole)


def _float(spec: Any, value: Any) -> float:
    try:
        number = float(value) if not isinstance(value, str) else math.nan
    except (TypeError, ValueError, OverflowError):
        number = math.nan
    if not math.isfinite(number):
        raise InputError(f"expected a finite number but got {_short(value)} ({spec.id}). {_remedy(spec)}")
    return _in_range(spec, number)


def _in_range(spec: Any, number: Any) -> Any:
    low, high = spec.min, spec.max
    if (low is not None and number < low) or (high is not None and number > high):
        limits = f"{_written(low)} to {_written(high)}"
        raise InputError(f"expected {limits} but got {_short(number)} ({spec.id}). {_remedy(spec)}")
    return number


def _string(spec: Any, value: Any) -> str:
    if not isinstance(value, str):
        raise InputError(f"expected a text but got {_short(value)} ({spec.id}). {_remedy(spec)}")
    if len(value) > MAX_TEXT:
        raise InputError(
            f"expected at most {MAX_TEXT} characters but got {len(value)} ({spec.id}). Shorten the text."
        )
    if _CONTROL.search(value):
        raise InputError(
            f"expected a text but got one with control characters ({spec.id}). Type the text again."
        )
    return value


def _boolean(spec: Any, value: Any) -> bool:
    if not isinstance(value, int) or value not in (0, 1):
        raise InputError(f"expected yes or no but got {_short(value)} ({spec.id}). {_remedy(spec)}")
    return bool(value)


_WIDGETS: dict[type, Callable[[Any, Any], Any]] = {
    io.Combo.Input: _combo,
    io.Int.Input: _int,
    io.Float.Input: _float,
    io.String.Input: _string,
    io.Boolean.Input: _boolean,
}


def _remedy(spec: Any) -> str:
    if isinstance(spec, io.Combo.Input):
        return f"Choose {spec.id} from its list."
    if isinstance(spec, io.Int.Input | io.Float.Input):
        return f"Set {spec.id} to a number from {_written(spec.min)} to {_written(spec.max)}."
    return f"Set {spec.id} on the node, or connect a node that gives it."


def _written(limit: Any) -> str:
    """A whole number with all its digits, as a seed's."""
    return str(limit) if isinstance(limit, int) else f"{limit:g}"


def _short(value: Any) -> str:
    """A wrong value as a message repeats it: printable, without folders, and never long."""
    if isinstance(value, str):
        return f"'{shown(without_folders(value[:MAX_TEXT]), _SHOWN)}'"
    return shown(value, _SHOWN) if isinstance(value, int | float) else in_words(value)
