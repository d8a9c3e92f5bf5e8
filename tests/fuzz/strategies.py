"""Files and texts that are nearly right: valid ones with a few values, keys or bytes replaced by odd ones."""

from __future__ import annotations

import copy
import json
from collections.abc import Iterator
from random import Random
from typing import Any

from hypothesis import strategies as st

Strategy = st.SearchStrategy[Any]

NUMBERS = st.one_of(
    st.integers(-3, 9),
    st.integers(-(2**70), 2**70),
    st.sampled_from([10**12, 2**31, 2**63, 10**400, -0.0, 1e308, 1e-320, float("inf"), float("nan")]),
    st.floats(),
)
TEXTS = st.one_of(
    st.text(max_size=20),
    st.sampled_from(["", "F32", "I64", "../../x", "\x1b[2J", "a\0b", "\ud800", "x" * 5000, "Infinity", "١٢"]),
)
PIECES = [
    *(bytes([byte]) for byte in b"[]{}\",:-+.0\0\n\x1b\xff"),
    b"9" * 30, b"1e999", b"-1", b"null", b"true", b"NaN", b'"', b"\\ud800", b"[" * 40, b'{"a":' * 40, b"",
    "说".encode(), "١".encode(), b"__metadata__", b"0 happy,", b"1e308", b"\xef\xbb\xbf",
]  # fmt: skip
LEAVES = st.one_of(st.none(), st.booleans(), NUMBERS, TEXTS)
ODD = st.recursive(
    LEAVES, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(TEXTS, inner, max_size=3)
)


@st.composite
def changed(draw: st.DrawFn, valid: Any, most: int = 3) -> Any:
    """``valid`` with up to ``most`` places replaced, removed, doubled or added to."""
    value = copy.deepcopy(valid)
    for _ in range(draw(st.integers(0, most))):
        value = _change(draw, value)
    return value


def _change(draw: st.DrawFn, value: Any) -> Any:
    if not isinstance(value, (dict, list)) or not value or draw(st.integers(0, 9)) == 0:
        return draw(ODD)
    keys = list(value) if isinstance(value, dict) else list(range(len(value)))
    key = draw(st.sampled_from(keys))
    action = draw(st.sampled_from(["inside", "inside", "inside", "remove", "add"]))
    if action == "inside":
        value[key] = _change(draw, value[key])
    elif action == "remove":
        del value[key]
    elif isinstance(value, dict):
        value[draw(TEXTS)] = draw(ODD)
    else:
        value.append(draw(ODD))
    return value


@st.composite
def json_bytes(draw: st.DrawFn, valid: Any) -> bytes:
    """A JSON file: changed values, and now and then damaged bytes."""
    data = json.dumps(draw(changed(valid))).encode("utf-8", "surrogatepass")
    return draw(damaged(data)) if draw(st.integers(0, 3)) == 0 else data


@st.composite
def damaged(draw: st.DrawFn, data: bytes) -> bytes:
    """Bytes cut, replaced or put in."""
    start = draw(st.integers(0, len(data)))
    end = draw(st.integers(start, min(len(data), start + 40)))
    return data[:start] + draw(st.binary(max_size=12)) + (b"" if draw(st.booleans()) else data[end:])


@st.composite
def safetensors_bytes(draw: st.DrawFn, header: dict[str, Any], nbytes: int) -> bytes:
    """A file with this header and as many bytes of tensors, some of it wrong."""
    text = json.dumps(draw(changed(header))).encode("utf-8", "surrogatepass")
    length = len(text) if draw(st.integers(0, 4)) else draw(st.integers(0, 2**64 - 1))
    body = bytes(nbytes if draw(st.integers(0, 4)) else draw(st.integers(0, 4 * nbytes)))
    data = length.to_bytes(8, "little") + text + body
    return draw(damaged(data)) if draw(st.integers(0, 4)) == 0 else data


def neighbours(value: Any, seed: int, count: int) -> Iterator[Any]:
    """Texts and bytes near ``value``, each with a piece replaced by an odd one: many cases for one draw."""
    if not isinstance(value, (bytes, str)):
        return
    random = Random(seed)
    pieces = PIECES if isinstance(value, bytes) else [piece.decode("utf-8", "replace") for piece in PIECES]
    for _ in range(count):
        start = random.randrange(len(value) + 1)
        end = min(len(value), start + random.choice((0, 0, 1, 2, 8, 64)))
        yield value[:start] + random.choice(pieces) + value[end:]


def lines(*words: str) -> Strategy:
    """Texts of these words and others, with separators between them."""
    word = st.one_of(st.sampled_from(words), TEXTS, NUMBERS.map(str))
    return st.lists(st.tuples(word, st.sampled_from([" ", ",", ", ", ";", "\n", ":", ""]))).map(
        lambda parts: "".join(left + right for left, right in parts)
    )
