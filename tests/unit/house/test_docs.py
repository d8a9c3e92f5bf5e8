"""The documents exist, and what they point at exists."""

import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.helpers.checkout import ROOT, tracked_files

REQUIRED = ("README.md", "ARCHITECTURE.md", "CHANGELOG.md", "CONTRIBUTING.md", "LICENSE", ".ci/run")
LINK = re.compile(r"!?\[[^\]]*\]\(([^)\s]+)[^)]*\)|(?:src|href)=\"([^\"]+)\"")
CODE_PATH = re.compile(r"`((?:[\w.-]+/)+[\w.-]*\w\.(?:py|md|json|toml|png|jpg|wav|mp4|gif))`")
FENCE = re.compile(r"^```.*?^```", re.MULTILINE | re.DOTALL)
# A path of the machine something was written on means nothing to a reader. (This must not match itself.)
MACHINE_PATH = re.compile(r"(?<![\w./])/(?:wor[k]|roo[t]|home/[a-z]+|far[m])/|bash_job[s]")


def documents() -> list[Path]:
    return [path for path in tracked_files() if path.suffix == ".md"]


def local_targets(document: Path) -> Iterator[str]:
    text = FENCE.sub("", document.read_text(encoding="utf-8"))
    for match in LINK.finditer(text):
        target = (match[1] or match[2]).split("#")[0]
        if target and not re.match(r"[a-z]+:", target):
            yield target


@pytest.mark.parametrize("name", REQUIRED)
def test_required_file_exists(name: str) -> None:
    path = ROOT / name
    assert path.is_file() and path.stat().st_size > 0, f"{name} was expected at the root. Write it."


def test_links_lead_to_files() -> None:
    broken = [
        f"{document.relative_to(ROOT)} -> {target}"
        for document in documents()
        for target in local_targets(document)
        if not (document.parent / target).exists()
    ]
    assert not broken, "\n".join(broken)


def test_named_files_exist() -> None:
    """A path with a folder in back quotes is a path from the root, or from the document's own folder."""
    missing = [
        f"{document.relative_to(ROOT)} names {name}"
        for document in documents()
        for name in CODE_PATH.findall(FENCE.sub("", document.read_text(encoding="utf-8")))
        if (ROOT / name.split("/")[0]).is_dir()  # ours, and not the published code's
        and not name.startswith("out/")
        and not any((base / name).exists() for base in (ROOT, document.parent))
    ]
    assert not missing, "\n".join(missing)


def test_no_machine_paths_in_tracked_files() -> None:
    found = []
    for path in tracked_files():
        data = path.read_bytes()
        if b"\0" in data:
            continue
        name, text = path.relative_to(ROOT), data.decode("utf-8", errors="replace")
        found += [
            f"{name}:{text.count(chr(10), 0, match.start()) + 1}" for match in MACHINE_PATH.finditer(text)
        ]
    assert not found, "\n".join(found)


def test_the_readme_is_short_before_it_sends_the_reader_on() -> None:
    """What somebody new reads; the list of further documents, and what comes after it, is for looking up."""
    head, more = (ROOT / "README.md").read_text(encoding="utf-8").split("\n## More\n")
    assert len(head.split()) < 800
    assert more.count("](docs/") > 8 > head.count("](docs/")


def test_every_document_says_for_whom_it_is() -> None:
    """In its first sentences, so that others need not read on."""
    opened = {
        path.name: path.read_text(encoding="utf-8").split("\n\n")[1] for path in (ROOT / "docs").glob("*.md")
    }
    assert {name for name, first in opened.items() if not first.startswith("For ")} == set()
