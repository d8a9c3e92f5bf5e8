"""What only ComfyUI's own process can see, checked on a tiny checkpoint: exactness, state, errors, other
nodes."""

from __future__ import annotations

from typing import Any

import pytest

pytestmark = [pytest.mark.host, pytest.mark.slow, pytest.mark.timeout(1600)]

SHAPE = [33, 3, 64, 64]
TINY = (
    2e-3  # the tiny net's deepest level has one value per group, which float32 can only compute to about 1e-4
)


def value(inside: dict[str, Any], name: str) -> Any:
    """What a check found, or its traceback as this test's failure."""
    found = inside.get(name, {"error": f"{name} did not run"})
    assert "error" not in found, found["error"]
    return found["value"]


def test_a_video_has_the_voices_frames_and_repeats(inside: dict[str, Any]) -> None:
    assert value(inside, "frames_of_the_plain_run") == {"shape": SHAPE, "repeats": True}


def test_host_and_standalone_give_the_same_video(inside: dict[str, Any]) -> None:
    distance = value(inside, "distance_to_the_standalone_loop")
    assert distance["largest"] < TINY and distance["mean"] < TINY / 20


def test_a_cache_that_skips_nothing_changes_nothing(inside: dict[str, Any]) -> None:
    assert value(inside, "cache_that_skips_nothing") == {"equal": True, "skipped": 0}


def test_threshold_zero_and_speedup_one_return_the_model_itself(inside: dict[str, Any]) -> None:
    assert value(inside, "threshold_zero") == {"threshold 0": True, "speed-up 1": True}


def test_the_cache_skips_repeats_and_leaves_other_models_alone(inside: dict[str, Any]) -> None:
    found = value(inside, "cache_that_skips")
    assert found["masks"][0] == "1111", "without a calibration the first clip teaches"
    assert [mask.count("1") for mask in found["masks"][1:]] == [2, 2]
    assert found["same masks"] and found["same frames"]
    assert found["others differ"] and found["plain untouched"]
    assert 0 < found["error"] < 1


def test_branches_may_be_split_or_batched(inside: dict[str, Any]) -> None:
    found = value(inside, "branches_split_or_batched")
    assert found["same masks"]
    assert found["plain"] < TINY
    assert found["cached"] < 10 * TINY, "a forecast is a difference, which makes rounding larger"


def test_interrupted_at_any_step_leaves_nothing(inside: dict[str, Any]) -> None:
    expected = {"interrupted": 4, "alive": 0, "cached again": True, "plain again": True}
    assert value(inside, "interrupted_at_every_step") == expected


def test_an_exception_in_the_vae_leaves_the_host_usable(inside: dict[str, Any]) -> None:
    assert value(inside, "broken_vae") == {"failed": True, "plain again": True}
