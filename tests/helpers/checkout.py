"""The repository as a clone has it: what git tracks, and nothing that work has left lying about."""

from __future__ import annotations

import subprocess
from functools import cache
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


@cache
def tracked_files() -> tuple[Path, ...]:
    """Every file git tracks, or every file there is where this is no checkout (a downloaded archive)."""
    command = ["git", "ls-files", "-z"]
    listing = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    if listing.returncode:
        return tuple(p for p in ROOT.rglob("*") if p.is_file() and not {".venv", "out"} & {*p.parts})
    return tuple(p for name in listing.stdout.split("\0") if name and (p := ROOT / name).is_file())


def copy_tracked(folder: Path) -> Path:
    """A copy of them in `folder`."""
    for path in tracked_files():
        target = folder / path.relative_to(ROOT)
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(path.read_bytes())
    return folder
