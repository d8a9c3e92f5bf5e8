"""`teacache_memo.py setup`: the environment `.venv` and what the command needs in it.

Runs before anything is installed, with any Python that is there: the standard library only, and no shell.
"""

from __future__ import annotations

import argparse
import io
import os
import subprocess
import sys
import time
import venv
from collections.abc import Sequence
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
OLDEST_PYTHON = (3, 10)
TORCH = "torch<=2.13.0"
"""The newest release that this was measured with, or the newest before it that a system has a wheel of."""

FAILED, INTERRUPTED = 1, 130


class SetupError(Exception):
    """Why there is no environment, in one line."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Make or update the environment; the exit status."""
    options = parse(arguments)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # a code page may lack the letters of a folder's name
            stream.reconfigure(errors="backslashreplace")
    started = time.monotonic()
    try:
        python = make_environment(options.folder)
        install(python, options)
    except SetupError as error:
        print(f"Error: {error}", file=sys.stderr)
        return FAILED
    except KeyboardInterrupt:
        print("Error: stopped; run setup again to continue.", file=sys.stderr)
        return INTERRUPTED
    print(f"set-up: {time.monotonic() - started:.0f} s. Next: {next_command(python, tests=options.tests)}")
    return 0


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    """`[--tests] [--torch REQUIREMENT] [--index URL] [--constraints FILE] [--folder DIR]`."""
    parser = argparse.ArgumentParser(
        prog="teacache_memo.py setup",
        allow_abbrev=False,
        description="Make .venv and install what the command needs. Run it again to update.",
    )
    add = parser.add_argument
    add("--tests", action="store_true", help="install what the tests need, too")
    add("--torch", default=TORCH, metavar="REQUIREMENT", help="default: %(default)s")
    add("--index", metavar="URL", help="a further package index, for torch of your card")
    add("--constraints", type=Path, metavar="FILE", help="pip's constraints file: versions to keep to")
    add("--folder", type=Path, default=ROOT / ".venv", metavar="DIR", help="default: %(default)s")
    return parser.parse_args(arguments)


def make_environment(folder: Path) -> Path:
    """The Python of the environment in `folder`, made where there is none that can install."""
    if sys.version_info < OLDEST_PYTHON:
        raise SetupError(
            f"expected Python {OLDEST_PYTHON[0]}.{OLDEST_PYTHON[1]} or newer but got "
            f"{sys.version.split()[0]} ({sys.executable}). Run setup with a newer one."
        )
    python = python_in(folder)
    if not has_pip(python):
        try:
            venv.create(folder, clear=True, with_pip=True, symlinks=os.name != "nt")
        except (OSError, subprocess.CalledProcessError) as error:
            raise SetupError(
                f"expected an environment in {folder} but it could not be made: {error}. Install Python's "
                "venv module (on Debian and Ubuntu the package python3-venv), or give another --folder."
            ) from error
    return python


def python_in(folder: Path) -> Path:
    """Where an environment's Python lies on this system."""
    return folder / ("Scripts/python.exe" if os.name == "nt" else "bin/python")


def has_pip(python: Path) -> bool:
    """Whether this Python is there, starts, and can install."""
    try:
        done = subprocess.run([python, "-m", "pip", "--version"], capture_output=True, check=False)
    except OSError:
        return False
    return done.returncode == 0


def install(python: Path, options: argparse.Namespace) -> None:
    """Let pip install torch and the extras that pyproject.toml names; its own words show what it does."""
    extras = "standalone,dev" if options.tests else "standalone"
    # Python compiles what it imports; compiling everything at installation would take longer than the demo.
    command = [str(python), "-m", "pip", "install", "--disable-pip-version-check", "--no-compile"]
    command += [] if sys.stdout.isatty() else ["-qq"]
    command += ["--extra-index-url", options.index] if options.index else []
    command += ["--constraint", str(options.constraints)] if options.constraints else []
    print(f"Setting up {options.folder} ({options.torch}): a few minutes the first time", flush=True)
    done = subprocess.run([*command, options.torch, "-e", f".[{extras}]"], cwd=ROOT, check=False)
    if done.returncode:
        raise SetupError(
            f"pip could not install {options.torch} and .[{extras}] (its words are above). "
            "Where it finds no torch, there is none for this system and Python: see docs/platforms.md."
        )


def next_command(python: Path, *, tests: bool) -> str:
    """What to type now, from the repository's folder."""
    shown = python.relative_to(ROOT) if python.is_relative_to(ROOT) else python
    if tests:
        return f"{shown} -m pytest"
    demo = Path("demo")
    inputs = f"--image {demo / 'portrait.png'} --audio {demo / 'speech.wav'}"
    return f"{shown} teacache_memo.py {inputs} --output demo.mp4"
