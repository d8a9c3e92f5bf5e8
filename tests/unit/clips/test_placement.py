"""Where the memory lives, as tables. What then happens on a device: `tests/accelerator/test_command.py`."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise

import pytest
import torch

from benchmarks.flops import real_config
from memo_avatar.clips.loop import generate_clips
from memo_avatar.clips.placement import (
    GIB,
    ClipNeeds,
    ClipSizes,
    Placement,
    describe_placement,
    fits,
    largest_that_fits,
    place_memory,
)
from memo_avatar.clips.values import SamplingSettings
from memo_avatar.model.memory import MemoryState
from tests.helpers.tiny_memo import PoolingVAE, tiny_memo, tiny_portrait, tiny_voice

SETTINGS = SamplingSettings(steps=2, guidance_scale=2.0, frames_per_clip=4, past_frames=4)
NEEDS = ClipNeeds(memory=(10,) * 6, remembering=2, branches=2, evaluation=20, conditions=30, context=5)
PUBLISHED = ClipSizes(real_config(), 512, 512, has_face=True, settings=SamplingSettings(), itemsize=2)


@pytest.mark.parametrize(
    ("free", "parts_in_ram", "apart"),
    [
        (105, 0, False),
        (104, 0, True),
        (95, 0, True),
        (94, 2, True),
        (75, 3, True),
        (65, 4, True),
        (1, 6, True),
    ],
)
def test_as_little_as_has_to_lives_in_ram(free: int, parts_in_ram: int, apart: bool) -> None:
    placement = place_memory(NEEDS, free)
    assert (sum(placement.in_ram), placement.apart) == (parts_in_ram, apart)


@pytest.mark.parametrize("place", ["device", "ram"])
def test_a_setting_places_all_of_it_whatever_is_free(place: str) -> None:
    for free in (0, 10**6):
        assert place_memory(NEEDS, free, place).in_ram == (place == "ram",) * 6


def test_steps_and_the_making_of_a_memory_have_room_of_their_own() -> None:
    """In ComfyUI other weights are beside them."""
    assert not any(place_memory(NEEDS, 105, free_making=95).in_ram)
    assert any(place_memory(NEEDS, 105, free_making=94).in_ram)


def test_what_lives_in_ram_is_spread_over_the_net() -> None:
    in_ram = place_memory(NEEDS, 75).in_ram
    assert sum(in_ram) == 3 and not any(map(all, pairwise(in_ram)))


@pytest.mark.parametrize("memory", [(10, 10, 1, 1, 10), (0, 10, 0, 10, 0), (1, 2, 3, 4, 5)], ids=str)
def test_uneven_parts_are_placed_wherever_the_leanest_way_fits(memory: tuple[int, ...]) -> None:
    needs = replace(NEEDS, memory=memory)
    leanest = needs.on_device(Placement(tuple(size > 0 for size in memory), apart=True))
    for free in range(leanest, sum(memory) + 60):
        assert needs.on_device(place_memory(needs, free)) <= free


def test_without_guidance_there_is_one_branch_to_evaluate() -> None:
    assert not place_memory(replace(NEEDS, branches=1, remembering=1), 0).apart


def test_of_several_speakers_the_others_memory_and_context_stay_too() -> None:
    three, on_device = replace(NEEDS, speakers=3), Placement((False,) * 6)
    assert three.on_device(on_device) == NEEDS.on_device(on_device) + 2 * (60 + 5)
    assert any(place_memory(three, NEEDS.on_device(on_device)).in_ram)
    assert replace(PUBLISHED, speakers=2).needs().speakers == 2


def test_the_published_sizes() -> None:
    needs = PUBLISHED.needs()
    assert sum(needs.memory) / GIB == pytest.approx(6.53, abs=0.01)
    assert sum(replace(PUBLISHED, has_face=False).needs().memory) / GIB == pytest.approx(3.27, abs=0.01)
    assert describe_placement(needs, place_memory(needs, 10 * GIB)) == (
        "Temporal memory: on the device (6.53 GiB)."
    )
    assert describe_placement(needs, place_memory(needs, 6 * GIB)) == (
        "Temporal memory: 2.23 of 6.53 GiB in RAM, piece by piece on the device; "
        "branches one after the other."
    )
    assert describe_placement(needs, place_memory(needs, 10 * GIB, "ram")) == (
        "Temporal memory: in RAM (6.53 GiB), piece by piece on the device."
    )


def test_what_would_fit_is_known() -> None:
    assert fits(PUBLISHED, 9 * GIB, "device") and not fits(PUBLISHED, 7 * GIB, "device")
    assert fits(PUBLISHED, 3 * GIB, "auto")
    smaller = largest_that_fits(replace(PUBLISHED, width=768), 7 * GIB, "device")
    assert smaller is not None and (smaller.width, smaller.height) == (576, 384)
    assert largest_that_fits(PUBLISHED, 0, "auto") is None


def test_branches_apart_give_the_joint_ones_frames_to_rounding() -> None:
    models = tiny_memo()
    for net in (models.diffusion_net, models.reference_net, models.image_proj, models.audio_proj):
        net.double()  # float32's rounding is large where a group is one value (docs/parity.md)
    inputs = (models, PoolingVAE(), tiny_portrait(), tiny_voice(4), SETTINGS)
    apart = Placement((True,) * 26, apart=True)  # on the CPU RAM is the device
    made = [next(generate_clips(*inputs, placement=where)).frames for where in (apart, None)]
    torch.testing.assert_close(*made, rtol=0, atol=1e-6)


def test_an_empty_memory_has_no_parts() -> None:
    assert MemoryState(()).memories == () and MemoryState(()).tensors() == {}
