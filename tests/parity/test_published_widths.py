"""Our numbers against upstream's own package at MEMO's published widths: random weights, 128x128, two clips.

Runs where MEMO_UPSTREAM_PATH names a checkout of memoavatar/memo and MEMO_UPSTREAM_PYTHON a Python with its
dependencies (CONTRIBUTING.md), and where memory and disk have the room. Run it with -s to see the figures.
"""

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
UPSTREAM = os.environ.get("MEMO_UPSTREAM_PATH")
MEMORY_GIB, DISK_GIB = 10, 14
ENVIRONMENT = {
    "OMP_NUM_THREADS": str(os.cpu_count() or 1),  # these nets are large
    "MALLOC_MMAP_THRESHOLD_": str(128 * 1024),  # what is freed goes back to the system at once
}

pytestmark = [
    pytest.mark.skipif(UPSTREAM is None, reason="no upstream checkout (set MEMO_UPSTREAM_PATH)"),
    pytest.mark.slow,
    pytest.mark.timeout(7200),
]


def free_memory_gib() -> float:
    """What processes may still take; where the system does not say, enough."""
    meminfo = Path("/proc/meminfo")
    if not meminfo.exists():
        return float("inf")
    line = next(line for line in meminfo.read_text().splitlines() if line.startswith("MemAvailable:"))
    return int(line.split()[1]) / 2**20


def run(*command: str | Path) -> str:
    """Its output, or its words as this test's failure."""
    arguments, environment = [str(part) for part in command], os.environ | ENVIRONMENT
    done = subprocess.run(arguments, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr[-3000:]
    return done.stdout


@pytest.fixture
def case(tmp_path: Path) -> Iterator[Path]:
    """A new golden case, deleted afterwards: pytest would keep 10 GB of it."""
    if free_memory_gib() < MEMORY_GIB:
        pytest.skip(f"{free_memory_gib():.0f} GiB of memory are free, {MEMORY_GIB} are needed")
    if shutil.disk_usage(tmp_path).free < DISK_GIB * 2**30:
        pytest.skip(f"less than {DISK_GIB} GiB are free on the disk ({tmp_path})")
    folder = tmp_path / "published"
    script = ROOT / "tests" / "helpers" / "reference" / "upstream_case.py"
    python = os.environ.get("MEMO_UPSTREAM_PYTHON", sys.executable)
    try:
        run(python, script, str(UPSTREAM), ROOT / "tests" / "goldens" / "micro", folder)
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def test_the_published_widths_are_met(case: Path) -> None:
    print(run(sys.executable, ROOT / "tests" / "parity" / "check.py", case))
