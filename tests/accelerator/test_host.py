"""MEMO in ComfyUI on simulated cards: frames, traffic, waits and what is left, however models are placed."""

from __future__ import annotations

from typing import Any

import pytest

from tests.accelerator.conftest import Probe

pytestmark = [pytest.mark.host, pytest.mark.timeout(1200)]

MODES = ("fits", "half", "novram", "dynamic")
ROUNDING = 3e-5  # of pixels in 0..1, at 64x64
PICTURES = 1.5  # MiB of a clip of 64x64
WEIGHTS = 15  # MiB of the demo's diffusion net


@pytest.fixture(scope="module")
def modes(host_probe: Probe) -> dict[str, Any]:
    return host_probe("probe_modes.py")


@pytest.fixture(scope="module")
def two_cards(host_probe: Probe) -> dict[str, Any]:
    return host_probe("probe_two_cards.py")


@pytest.mark.parametrize("mode", MODES)
def test_frames_are_the_cpus(modes: dict[str, Any], mode: str) -> None:
    assert modes[mode]["error"] < ROUNDING
    assert modes[mode]["refused"] == 0


@pytest.mark.parametrize("mode", MODES)
def test_memory_in_ram_gives_the_same_frames(modes: dict[str, Any], mode: str) -> None:
    assert modes[mode]["same in RAM"]


@pytest.mark.parametrize("mode", MODES)
def test_nothing_is_left_after_unloading_a_stop_or_an_error(modes: dict[str, Any], mode: str) -> None:
    found = modes[mode]
    assert (found["interrupt"], found["exception"]) == ("InterruptProcessingException", "ArithmeticError")
    assert (found["left"], found["left after interrupt"], found["left after exception"]) == (0, 0, 0)


@pytest.mark.parametrize("mode", MODES)
def test_without_a_cache_no_step_waits_for_the_card(modes: dict[str, Any], mode: str) -> None:
    assert (modes[mode]["waits"], modes[mode]["waits in RAM"]) == ({}, {})


def test_where_all_fits_a_later_clip_moves_its_pictures_alone(modes: dict[str, Any]) -> None:
    later = modes["fits"]["later clip"]
    assert sorted(later) == ["data down", "data up"] and max(later.values()) < PICTURES


@pytest.mark.parametrize("job", ["plain", "in RAM", "cached"])
def test_two_cards_share_the_branches_and_give_one_cards_frames(two_cards: dict[str, Any], job: str) -> None:
    assert two_cards[job]["error"] < ROUNDING
    assert all(card["live"] > WEIGHTS for card in two_cards[job]["cards"])


def test_a_clips_conditioning_goes_to_the_second_card_once(two_cards: dict[str, Any]) -> None:
    """Four steps would bring the memory four times."""
    second = two_cards["plain"]["cards"][1]
    assert second["up"] < 2 * two_cards["memory"]


def test_nothing_is_left_on_either_card(two_cards: dict[str, Any]) -> None:
    assert two_cards["left"] == 0
