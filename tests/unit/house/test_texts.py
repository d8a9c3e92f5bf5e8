"""How texts stand in the source: strings and docstrings are whole, errors open alike."""

import ast
import re
import tokenize
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

import pytest

from tests.unit.house.test_layering import PRODUCT, ROOT, sources

SHORT = 60  # a piece of a sentence that ends here or before was broken by accident
HANGING_WORDS = 3

SAID_TO_USERS = ("memo_avatar", "nodes", "standalone", "teacache_core", "teacache_memo.py")
_PLURAL = re.compile(
    r"(?<! to )\{([^{}]+)\} (?:[a-z]+ )?"
    r"(?:clips|evaluations|faces|files|frames|images|others|pictures|rows|steps)\b(?! per )"
)

FILES = [path for part in (*PRODUCT, "teacache_memo.py", "tests") for path in sources(part)]


def broken_strings(path: Path) -> Iterator[int]:
    """Lines of implicitly joined strings that end early, in the middle of a sentence."""
    with path.open("rb") as stream:
        tokens = [token for token in tokenize.tokenize(stream.readline) if token.type != tokenize.NL]
    kinds = (tokenize.STRING, getattr(tokenize, "FSTRING_END", -1))
    starts = (tokenize.STRING, getattr(tokenize, "FSTRING_START", -1))
    for first, second in pairwise(tokens):
        if first.type not in kinds or second.type not in starts or first.end[0] + 1 != second.start[0]:
            continue
        line = first.line.rstrip()
        text = line.rstrip("'\"")
        if (
            len(line) <= SHORT
            and "|" not in text  # a table's row
            and text.endswith(" ")
            and not text.rstrip().endswith((".", ":", ";", "!", "?"))
        ):
            yield first.start[0]


def hanging_docstrings(path: Path) -> Iterator[int]:
    """Docstrings whose first paragraph takes a second line for a few words."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if not isinstance(node, ast.FunctionDef | ast.ClassDef | ast.Module | ast.AsyncFunctionDef):
            continue
        first = (ast.get_docstring(node) or "").split("\n\n")[0].split("\n")
        if len(first) == 2 and len(first[1].split()) <= HANGING_WORDS:
            yield node.body[0].lineno


def capital_openings(path: Path) -> Iterator[int]:
    """Errors that do not open as the others do; the page knows ours by their first word."""
    nodes = [] if ROOT / "tests" in path.parents else ast.walk(ast.parse(path.read_text(encoding="utf-8")))
    for node in nodes:
        if isinstance(node, ast.Raise):
            texts = (part for part in ast.walk(node) if isinstance(part, ast.Constant))
            yield from (text.lineno for text in texts if str(text.value).startswith("Expected "))


def plurals_of_one(path: Path) -> Iterator[int]:
    """Texts that would say `1 clips`: a number before a plural, unless it is a constant or ends a range."""
    whole = path.read_text(encoding="utf-8")
    nodes = ast.walk(ast.parse(whole)) if path.relative_to(ROOT).parts[0] in SAID_TO_USERS else []
    for text in (node for node in nodes if isinstance(node, ast.JoinedStr)):
        said = ast.get_source_segment(whole, text) or ""
        if any(not number.isupper() for number in _PLURAL.findall(said)):
            yield text.lineno


@pytest.mark.parametrize("find", [broken_strings, hanging_docstrings, capital_openings, plurals_of_one])
def test_texts_are_whole(find) -> None:
    found = [f"{path.relative_to(ROOT)}:{line}" for path in FILES for line in find(path)]
    assert not found, "\n".join(found)
