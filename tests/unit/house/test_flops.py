"""The waste that was removed from the published code stays removed."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks import flops

pytestmark = pytest.mark.slow  # some 25 s: thousands of operations, each counted in Python
ROOT = Path(__file__).resolve().parents[3]


@pytest.fixture(scope="module")
def results() -> dict[str, float]:
    command = [sys.executable, "-m", "benchmarks.flops"]
    run = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    return json.loads(run.stdout.splitlines()[-1])


@pytest.mark.parametrize("name", flops.BOUNDS_TFLOP)
def test_work_stays_within_its_bound(results: dict[str, float], name: str) -> None:
    assert 0 < results[name] <= flops.BOUNDS_TFLOP[name]


def test_the_parts_add_up_to_the_step(results: dict[str, float]) -> None:
    parts = results["step_parts_tflop"]
    assert all(value > 0 for value in parts.values()), parts
    assert sum(parts.values()) == pytest.approx(results["step_tflop"], rel=0.01)


def test_a_skipped_step_costs_at_most_a_hundredth_of_a_computed_one(results: dict[str, float]) -> None:
    assert 0 < results["cache_step_tflop"] <= 0.01 * results["step_tflop"]
