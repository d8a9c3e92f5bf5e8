"""What MEMO takes on cards of 6 to 24 GiB, at its real size, without one: on a simulated accelerator.

    COMFYUI_PATH=ComfyUI ComfyUI/.venv/bin/python -m benchmarks.device_memory [--result NAME]

512x512, 16 frames a clip, bfloat16, guidance 3.5, three clips of one evaluation, 1 GiB of the card taken by
others. ComfyUI runs for real, with weights loaded whole or in part (legacy) and by pages as layers run
(dynamic VRAM); bytes are counted, nothing is computed: no seconds come out of this. What kernels take for
themselves and what fragments is not in it. The last line is one JSON document.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
from collections.abc import Sequence
from datetime import datetime, timezone
from itertools import chain
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
PROBES = ROOT / "tests" / "accelerator"
RESULTS = ROOT / "benchmarks" / "results"

CARDS = (6, 8, 10, 12, 16, 24)
TAKEN = 1  # GiB of every card
MODES = ("legacy", "dynamic")
CLIPS, STEPS = 3, 1
UP, DOWN = " up", " down"

HEADER = (
    "| card | mode | runs | peak | memory in RAM | a later clip: up | down | weights up | evaluation: up |\n"
    "|---|---|---|---|---|---|---|---|---|"
)


def probe(script: str, *arguments: object) -> dict[str, Any]:
    """The JSON object that a probe prints as its last line, in a process of its own."""
    command = [sys.executable, str(PROBES / script), *map(str, arguments)]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
    if done.returncode:
        raise RuntimeError(f"{script} ended with {done.returncode}:\n{done.stderr[-3000:]}")
    return json.loads(done.stdout.splitlines()[-1])


def measure_card(comfyui: Path, card: int, mode: str) -> dict[str, Any]:
    """One row: what the last clip takes and moves, and what the whole video needed."""
    options = {"--card": card, "--taken": TAKEN, "--mode": mode, "--clips": CLIPS, "--steps": STEPS}
    found = probe("probe_published_host.py", comfyui, *chain(*options.items()))
    clips: Sequence[dict[str, float]] = found["clips"]
    later = clips[-1] if clips else {}

    def crossed(direction: str) -> float:
        return sum(gib for kind, gib in later.items() if kind.endswith(direction))

    return {
        "card_gib": card,
        "mode": mode,
        "runs": found["error"] is None,
        "refused": found["refused"],
        "peak_gib": max((clip["peak"] for clip in clips), default=0.0),
        "up_gib_per_clip": crossed(UP),
        "down_gib_per_clip": crossed(DOWN),
        "weights_up_gib_per_clip": later.get(f"weights{UP}", 0.0),
        "memory_in_ram": found["memory_in_ram_gib"] > 0,
        "memory_in_ram_gib": found["memory_in_ram_gib"],
        "evaluation_up_gib": found["evaluation_up_gib"],
    }


def measure(comfyui: Path) -> dict[str, Any]:
    """All cards in both modes, and the command with its memory on the device and in RAM."""
    rows = []
    for card in CARDS:
        for mode in MODES:
            rows.append(measure_card(comfyui, card, mode))
            print(table_row(rows[-1]), flush=True)
    on_device = probe("probe_published_command.py", "--memory", "device")
    in_ram = probe("probe_published_command.py", "--memory", "ram", "--card", 8 - TAKEN)
    return {
        "rows": rows,
        "command_peak_gib": on_device["peak_gib"],
        "command_low_memory_peak_gib": in_ram["peak_gib"],
        "command_low_memory_evaluation_up_gib": in_ram["evaluation_up_gib"],
        "memory_gib": in_ram["memory_gib"],
    }


def table_row(row: dict[str, Any]) -> str:
    """GiB throughout."""
    names = ("up_gib_per_clip", "down_gib_per_clip", "weights_up_gib_per_clip", "evaluation_up_gib")
    values = " | ".join(f"{row[name]:.2f}" for name in names)
    runs = "yes" if row["runs"] and not row["refused"] else f"no ({row['refused']} refused)"
    return (
        f"| {row['card_gib']} | {row['mode']} | {runs} | {row['peak_gib']:.2f} "
        f"| {row['memory_in_ram_gib']:.2f} | {values} |"
    )


def write_result(name: str, found: dict[str, Any]) -> None:
    """The table and the numbers as dated files."""
    rows = "\n".join([HEADER, *(table_row(row) for row in found["rows"])])
    text = (
        "# MEMO at 512x512 on cards of 6 to 24 GiB, simulated\n\n"
        "From `python -m benchmarks.device_memory` inside ComfyUI: bytes are counted, nothing is computed, "
        f"and no card has measured it yet. bfloat16, guidance 3.5, {TAKEN} GiB of the card taken by others; "
        f"GiB throughout. An evaluation reads {found['memory_gib']:.2f} GiB of temporal memory; what of it "
        f"lives in RAM crosses at every evaluation. A clip here has one evaluation.\n\n{rows}\n\n"
        f"The command takes {found['command_peak_gib']:.2f} GiB with the memory on the device, and "
        f"{found['command_low_memory_peak_gib']:.2f} GiB with it in RAM (`--memory ram`) on a card with "
        f"{8 - TAKEN} GiB free.\n"
    )
    RESULTS.mkdir(exist_ok=True)
    (RESULTS / f"{name}.md").write_text(text, encoding="utf-8")
    (RESULTS / f"{name}.json").write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    today = datetime.now(timezone.utc).strftime("%Y%m%d")
    parser.add_argument("--result", nargs="?", const=f"device_memory_simulated_{today}", metavar="NAME",
        help="also write benchmarks/results/NAME.md and .json (default: with today's date)")  # fmt: skip
    given = parser.parse_args()
    comfyui = Path(os.environ.get("COMFYUI_PATH") or Path.home() / "comfy" / "ComfyUI")
    if not (comfyui / "main.py").is_file():
        sys.exit(f"expected ComfyUI but got none there ({comfyui}). Set COMFYUI_PATH to a checkout.")
    print(HEADER)
    found = measure(comfyui)
    if given.result:
        write_result(given.result, found)
    print(json.dumps(found))


if __name__ == "__main__":
    main()
