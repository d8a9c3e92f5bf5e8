"""A batch that is killed: `python -m tests.helpers.batch_kills` does the same with Ray, at more moments."""

import sys
from pathlib import Path

import pytest

from tests.helpers.batch_kills import BatchKills


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="finds its processes under /proc")
def test_a_killed_batch_ends_with_the_same_files_and_makes_nothing_twice(tmp_path: Path) -> None:
    kills = BatchKills(tmp_path, seed=3, rows=2, ray=False)
    kills.kill("driver")
    assert kills.tally["driver killed"], kills.tally
