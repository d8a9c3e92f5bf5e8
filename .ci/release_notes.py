"""Print what CHANGELOG.md says of a version: `python .ci/release_notes.py v1.2.3`.

Exits 1 where pyproject.toml is of another version, or the changelog has no dated section of this one.
"""

import re
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent


def notes(tag: str, pyproject: str, changelog: str) -> str:
    """The section of the tag's version, without its heading."""
    version = tag.removeprefix("v")
    stated = re.search(r'^version = "(.+)"$', pyproject, re.MULTILINE)
    if stated is None or stated[1] != version:
        raise ValueError(f"expected version {version} in pyproject.toml but got {stated and stated[1]}")
    sections = re.split(r"^## ", changelog, flags=re.MULTILINE)[1:]
    found = [section for section in sections if re.match(rf"\[?{re.escape(version)}\]?\b", section)]
    if not found or "unreleased" in found[0].splitlines()[0].lower():
        raise ValueError(f"expected a dated section {version} in CHANGELOG.md but got none")
    return found[0].partition("\n")[2].strip()


if __name__ == "__main__":
    try:
        print(
            notes(
                sys.argv[1],
                *((ROOT / name).read_text("utf-8") for name in ("pyproject.toml", "CHANGELOG.md")),
            )
        )
    except ValueError as error:
        sys.exit(f"Error: {error}. Tag the commit that releases it.")
