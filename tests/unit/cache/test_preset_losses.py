"""What presets are said to lose is what the newest committed result of the benchmark says."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from benchmarks.caching import GUIDANCE
from standalone.arguments import _video_parser
from teacache_core import PRESET_DECIBELS, PRESETS

ROOT = Path(__file__).resolve().parents[3]
ROW = re.compile(r"this cache, same video (\d+)")
STEPS = 20


def read_rows(path: Path) -> dict[int, float]:
    """PSNR to the 20-step video by computed steps."""
    rows = json.loads(path.read_text(encoding="utf-8"))["rows"]
    named = ((ROW.fullmatch(row["method"]), row) for row in rows)
    return {int(name[1]): row["psnr"] for name, row in named if name}


def newest_result() -> dict[int, float]:
    """At the demo's guidance; of one day the full run, and not the quick one."""
    results = ROOT.glob(f"benchmarks/results/caching_guidance{GUIDANCE:g}_*.json")
    dated = sorted(results, key=lambda path: (path.stem.split("_")[-1], "quick" not in path.stem))
    return next(rows for rows in map(read_rows, reversed(dated)) if rows)


def said() -> str:
    return ", ".join(str(decibels) for decibels in PRESET_DECIBELS.values())


@pytest.mark.parametrize("name", PRESETS)
def test_a_presets_loss_is_the_measured_one(name: str) -> None:
    assert PRESET_DECIBELS[name] == round(newest_result()[round(STEPS / PRESETS[name])])


@pytest.mark.parametrize("language", [path.name for path in sorted((ROOT / "locales").iterdir())])
def test_the_nodes_tooltip_says_it_in_every_language(language: str) -> None:
    texts = json.loads((ROOT / "locales" / language / "nodeDefs.json").read_text(encoding="utf-8"))
    tooltip = texts["MEMO_TeaCache"]["inputs"]["mode"]["tooltip"]
    assert f"{said()} dB" in tooltip.replace("、", ", ")


def test_the_commands_help_says_it() -> None:
    text = " ".join(_video_parser().format_help().split())
    for name, decibels in PRESET_DECIBELS.items():
        assert f"{name} ({PRESETS[name]:g}x, {decibels} dB)" in text
