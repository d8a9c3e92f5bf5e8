"""Where the command puts the temporal memory, and what it says where nothing fits; devices of any size."""

from __future__ import annotations

import pytest
import torch

import standalone.room
from memo_avatar.clips.placement import ClipSizes
from memo_avatar.clips.values import SamplingSettings
from standalone.arguments import CommandError
from standalone.room import FOR_KERNELS, free_bytes, place
from tests.helpers.tiny_memo import tiny_memo, tiny_portrait

SETTINGS = SamplingSettings(frames_per_clip=4, past_frames=4)
MODELS = tiny_memo()
NEEDS = ClipSizes(MODELS.config, 32, 32, has_face=True, settings=SETTINGS, itemsize=4).needs()
EVERYTHING = 10**9


def placed(monkeypatch: pytest.MonkeyPatch, free: float | None, setting: str = "auto"):
    monkeypatch.setattr(standalone.room, "free_bytes", lambda _device: free)
    return place(MODELS, [tiny_portrait()], SETTINGS, setting)


def test_what_fits_stays_on_the_device(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    placement = placed(monkeypatch, EVERYTHING)
    assert not any(placement.in_ram) and not placement.apart
    assert capsys.readouterr().err.strip() == "Temporal memory: on the device (0.00 GiB)."


def test_less_room_puts_some_of_it_into_ram(monkeypatch: pytest.MonkeyPatch) -> None:
    room = NEEDS.context + NEEDS.conditions + sum(NEEDS.memory) // 2
    placement = placed(monkeypatch, room + FOR_KERNELS)
    assert any(placement.in_ram) and not all(placement.in_ram)


def test_ram_can_be_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    assert all(placed(monkeypatch, EVERYTHING, "ram").in_ram)
    assert all(placed(monkeypatch, None, "ram").in_ram)


def test_a_device_that_does_not_tell_keeps_it(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert not any(placed(monkeypatch, None).in_ram)
    assert capsys.readouterr().err == ""


def test_on_the_cpu_nothing_is_asked() -> None:
    assert free_bytes(torch.device("cpu")) is None
    assert free_bytes(torch.device("meta")) is None


def test_where_nothing_fits_the_refusal_says_what_would(monkeypatch: pytest.MonkeyPatch) -> None:
    leanest = NEEDS.context + NEEDS.conditions + max(NEEDS.memory)
    with pytest.raises(
        CommandError, match=r"GiB free on cpu for a clip of 32x32 .* Use --memory auto"
    ) as said:
        placed(monkeypatch, leanest + FOR_KERNELS, "device")
    assert " or --guidance-scale 1 or --size 24x24." in str(said.value)
    with pytest.raises(CommandError, match="Use a device with more memory"):
        placed(monkeypatch, 1000)
