"""The simulated accelerator shows what a real one would; else the tests that stand on it prove nothing."""

from __future__ import annotations

from typing import Any

import pytest

from tests.accelerator.conftest import Probe


@pytest.fixture(scope="module")
def found(probe: Probe) -> dict[str, Any]:
    return probe("probe_simulated.py")


def test_numbers_are_the_cpus_and_unwritten_memory_is_nan(found: dict[str, Any]) -> None:
    assert found["values"] == {"equal": True, "new memory is NaN": True}


def test_operators_do_not_mix_devices(found: dict[str, Any]) -> None:
    assert found["devices"] == {
        "cards": ["sim:0", "sim:1"],
        "two cards": "RuntimeError",
        "card and cpu": "RuntimeError",
        "card and scalar": "nothing",
        "indices on the cpu": "nothing",
    }


def test_memory_is_counted_limited_and_given_back(found: dict[str, Any]) -> None:
    expected = {"live": 8, "peak": 24, "refused": 1, "refusal": "OutOfMemoryError", "left": 0}
    assert found["memory"] == expected


def test_traffic_and_waits_are_counted_with_their_line(found: dict[str, Any]) -> None:
    assert found["traffic"] == {"up": 3, "down": 3, "waits": 2, "lines": ["copy", "item"], "named": True}


def test_a_side_streams_copy_arrives_when_it_is_waited_for(found: dict[str, Any]) -> None:
    assert found["streams"] == {"before": True, "after": [1.0] * 4, "pinned": [True, 16, 0]}


def test_a_dry_run_counts_gigabytes_without_taking_them(found: dict[str, Any]) -> None:
    assert found["dry"]["shape"] == [2**17, 64]
    assert 1.0 < found["dry"]["peak GiB"] < 1.1
