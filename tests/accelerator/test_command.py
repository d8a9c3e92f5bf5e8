"""The command's clip loop on a simulated card: frames, room, traffic and waits, wherever the memory lives."""

from __future__ import annotations

from typing import Any

import pytest

from tests.accelerator.conftest import Probe

KEPT = 140_000
"""Bytes beside weights and memory while steps run: the context, the portrait's features, latents."""


@pytest.fixture(scope="module")
def found(probe: Probe) -> dict[str, Any]:
    return probe("probe_command.py")


@pytest.mark.parametrize("branches", ["together", "apart"])
@pytest.mark.parametrize("face", ["face", "no face"])
def test_frames_are_the_cpus_and_the_same_wherever_the_memory_lives(
    found: dict[str, Any], face: str, branches: str
) -> None:
    frames = found["places"][f"{face}, {branches}"]
    assert frames["in RAM"] and frames["some in RAM"]
    assert frames["error"] < 1e-6


def test_nothing_stays_on_the_card_or_pinned(found: dict[str, Any]) -> None:
    assert (found["places"]["left"], found["places"]["left pinned"]) == (0, 0)


def test_there_is_one_memory_whoever_keeps_the_clips(found: dict[str, Any]) -> None:
    room = found["room"]
    assert max(room["device"]["live"]) < room["memory"] + KEPT
    assert max(room["device"]["pinned"]) == 0


def test_in_ram_it_is_pinned_and_not_on_the_card(found: dict[str, Any]) -> None:
    room = found["room"]
    assert max(room["ram"]["live"]) < KEPT
    assert set(room["ram"]["pinned"]) == {room["memory"]}


@pytest.mark.parametrize("name", ["ram", "ram, apart"])
def test_an_evaluation_brings_the_memory_once_and_waits_for_nothing(found: dict[str, Any], name: str) -> None:
    traffic = found["traffic"]
    assert traffic[name]["evaluation up"] == [traffic["memory"]]
    assert traffic[name]["evaluation waits"] == 0


def test_on_the_card_an_evaluation_moves_nothing(found: dict[str, Any]) -> None:
    assert found["traffic"]["device"]["evaluation up"] == [0]
    assert found["traffic"]["device"]["evaluation waits"] == 0


def test_between_clips_the_memory_crosses_once_each_way(found: dict[str, Any]) -> None:
    """Beside the last evaluation's, the clip's pictures, its voice."""
    traffic = found["traffic"]
    pictures = traffic["device"]
    assert traffic["ram"]["clip up"] - pictures["clip up"] == 2 * traffic["memory"]
    assert traffic["ram"]["clip down"] - pictures["clip down"] == traffic["memory"]


def test_only_finished_frames_and_stored_memory_are_waited_for(found: dict[str, Any]) -> None:
    assert found["traffic"]["device"]["lines"] == ["decode_frames"]
    assert found["traffic"]["ram"]["lines"] == ["_stored", "decode_frames"]


def test_a_video_goes_on_from_any_place_to_any_other(found: dict[str, Any]) -> None:
    assert found["resumed"] == dict.fromkeys(("out of RAM", "into RAM", "RAM", "stored"), True)


@pytest.mark.parametrize("name", ["device", "ram"])
def test_a_clip_that_fails_or_is_left_leaves_nothing(found: dict[str, Any], name: str) -> None:
    nothing = {"left": 0, "left pinned": 0}
    assert found["broken"][name] == {"said": "on purpose", **nothing}
    assert found["broken"][f"{name}, closed"] == nothing
