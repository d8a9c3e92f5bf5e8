"""The published sizes on dry cards: what fits where, and what crosses. All: `benchmarks.device_memory`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from benchmarks.device_memory import RESULTS
from tests.accelerator.conftest import Probe

COMMAND_PEAK, COMMAND_PEAK_IN_RAM = 14.0, 7.0  # GiB, weights and all
ONE_MORE = 0.1  # GiB of pictures a clip

slow = pytest.mark.slow  # some 15 s a card
host = [pytest.mark.host, pytest.mark.slow, pytest.mark.timeout(1200)]


@slow
def test_the_command_has_room_for_512x512_on_16_gib(probe: Probe) -> None:
    found = probe("probe_published_command.py", "--memory", "device")
    assert found["error"] is None and found["peak_gib"] <= COMMAND_PEAK
    assert found["evaluation_up_gib"] == 0


@slow
def test_the_command_has_room_on_8_gib_with_the_memory_in_ram(probe: Probe) -> None:
    """A GiB of the card is taken by others; an evaluation brings the memory once."""
    found = probe("probe_published_command.py", "--card", 7)
    assert found["error"] is None and found["refused"] == 0 and found["peak_gib"] <= COMMAND_PEAK_IN_RAM
    assert 0 < found["evaluation_up_gib"] <= found["memory_gib"]


@pytest.mark.parametrize("mode", ["legacy", "dynamic"])
class TestInComfyUI:
    pytestmark = host

    def test_on_16_gib_a_later_clip_moves_its_pictures_alone(self, host_probe: Probe, mode: str) -> None:
        found = in_comfyui(host_probe, mode, card=16)
        assert found["error"] is None and found["refused"] == 0 and found["left"] == 0
        crossed = [gib for kind, gib in found["clips"][-1].items() if kind.endswith((" up", " down"))]
        assert sum(crossed) < ONE_MORE

    def test_on_8_gib_it_runs_with_part_of_the_memory_in_ram(self, host_probe: Probe, mode: str) -> None:
        found = in_comfyui(host_probe, mode, card=8)
        assert found["error"] is None and found["refused"] == 0 and found["left"] == 0
        assert 0 < found["memory_in_ram_gib"] < 6.6
        assert found["evaluation_up_gib"] <= found["memory_in_ram_gib"] + 0.01

    def test_where_the_nets_push_each_other_out_it_still_runs(self, host_probe: Probe, mode: str) -> None:
        """Encoders came, and the diffusion net went wholly: its layers then met data on another device."""
        found = in_comfyui(host_probe, mode, card=4)
        assert found["error"] is None and found["refused"] == 0 and found["left"] == 0

    def test_what_cannot_run_is_refused_before_anything_is_allocated_in_vain(
        self, host_probe: Probe, mode: str
    ) -> None:
        found = in_comfyui(host_probe, mode, card=2)
        assert "MemoryError" in found["error"] and found["clips"] == [] and found["refused"] == 0


def in_comfyui(host_probe: Probe, mode: str, card: int) -> dict[str, Any]:
    """Two clips of one evaluation, a GiB of the card taken by others."""
    options = ("--mode", mode, "--card", card, "--clips", 2, "--steps", 1)
    return host_probe("probe_published_host.py", *options)


@pytest.fixture(scope="module")
def committed() -> dict[str, Any]:
    newest: Path = max(RESULTS.glob("device_memory_simulated_*.json"))
    return json.loads(newest.read_text(encoding="utf-8"))


@pytest.mark.parametrize("card", [6, 8, 10, 12, 16, 24])
def test_the_committed_table_says_that_every_card_runs(committed: dict[str, Any], card: int) -> None:
    rows = [row for row in committed["rows"] if row["card_gib"] == card]
    assert [row["mode"] for row in rows] == ["legacy", "dynamic"]
    for row in rows:
        assert row["runs"] and row["refused"] == 0 and row["peak_gib"] <= card - 1
        assert row["evaluation_up_gib"] <= committed["memory_gib"]
        moved = row["up_gib_per_clip"] + row["down_gib_per_clip"]
        assert moved < ONE_MORE if card >= 16 else row["memory_in_ram"]


def test_the_committed_table_holds_the_commands_promise(committed: dict[str, Any]) -> None:
    assert committed["command_peak_gib"] <= COMMAND_PEAK
    assert committed["command_low_memory_peak_gib"] <= COMMAND_PEAK_IN_RAM
    assert committed["command_low_memory_evaluation_up_gib"] <= committed["memory_gib"]
