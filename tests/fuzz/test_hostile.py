"""Hostile files and values are refused in one line of ours, in under a second and under 200 MiB."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.fuzz.hostile import CASES

ROOT = Path(__file__).resolve().parents[2]
pytestmark = pytest.mark.skipif(
    sys.platform != "linux", reason="the process's room is bounded with RLIMIT_AS"
)


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """All cases in one process with 200 MiB of room."""
    command = [sys.executable, "-m", "tests.fuzz.hostile", str(tmp_path_factory.mktemp("hostile"))]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    return json.loads(done.stdout.splitlines()[-1])


def test_the_table_has_no_fewer_cases_than_promised() -> None:
    assert len(CASES) >= 60


@pytest.mark.parametrize("name", CASES)
def test_refused_in_one_line_at_once(name: str, results: dict[str, Any]) -> None:
    found = results[name]
    assert found["ended"] == "ours", found
    assert found["seconds"] < 1
    assert found["message"].isprintable() and 0 < len(found["message"]) < 1200
