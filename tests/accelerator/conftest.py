"""Probes: scripts that run on the simulated accelerator in a process of their own and print what they found.

A process has one accelerator, and it changes torch for good, so the tests judge numbers and never install it.
"""

from __future__ import annotations

import functools
import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.helpers.comfy.server import python_of

HERE = Path(__file__).resolve().parent
PROBE_SECONDS = 600
Probe = Callable[..., dict[str, Any]]


@functools.cache
def unavailable(python: Path) -> str | None:
    """Why this Python has no simulated accelerator, in one line; builds it where it can."""
    command = [str(python), str(HERE / "simulated.py")]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode == 0:
        return None
    assert done.returncode == 3, done.stderr[-4000:]
    return done.stdout.strip()


def run_probe(python: Path, script: str, *arguments: object) -> dict[str, Any]:
    """The JSON object that a probe prints as its last line."""
    if (reason := unavailable(python)) is not None:
        pytest.skip(reason)
    environment = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}
    done = subprocess.run(
        [str(python), str(HERE / script), *map(str, arguments)],
        capture_output=True,
        text=True,
        timeout=PROBE_SECONDS,
        env=environment | {"OMP_NUM_THREADS": "1"},
        check=False,
    )
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-4000:]
    return json.loads(done.stdout.splitlines()[-1])


@pytest.fixture(scope="session")
def probe() -> Probe:
    """Runs a probe in the tests' own Python."""
    return functools.partial(run_probe, Path(sys.executable))


@pytest.fixture(scope="session")
def host_probe(comfyui: Path) -> Probe:
    """Runs a probe in ComfyUI's Python; its first argument is the checkout."""
    python = python_of(comfyui)
    return lambda script, *arguments: run_probe(python, script, comfyui, *arguments)
