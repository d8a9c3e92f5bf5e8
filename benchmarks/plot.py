"""Draws a result of `benchmarks.caching` at a glance: this cache, the best rival and plain steps by cost.

python -m benchmarks.plot benchmarks/results/caching_<machine>_<date>.json docs/caching.png
"""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from PIL import Image, ImageDraw, ImageFont

WIDTH, HEIGHT, SIDE = 620, 460, 64
INK, FAINT = (32, 36, 44), (226, 229, 235)
PANELS = (
    ("psnr", "this cache, same video", "Near to the same video: PSNR to 20 Euler steps (dB)"),
    ("psnr_converged", "this cache, converged video", "Near to the converged video: PSNR to 100 steps (dB)"),
)
RIVALS = (
    "TaylorSeer",
    "HiCache",
    "ZEUS",
    "Spectrum",
    "MeanCache",
    "TeaCache as published",
    "EasyCache",
    "MagCache",
    "First-block cache",
)
PLAIN = ("Euler", "Adams-Bashforth", "DPM++")

Row = dict[str, Any]


@dataclass(frozen=True)
class Curve:
    """Points (evaluations, decibels), and the row's name at each where it is the best of several."""

    label: str
    colour: tuple[int, int, int]
    points: tuple[tuple[float, float], ...]
    names: tuple[str, ...] = ()


def method(row: Row) -> str:
    """A row's name without its cost."""
    return re.sub(r" ?\d+( steps)?$", "", row["method"])


def best(
    rows: Iterable[Row], field: str, wanted: Callable[[str], bool]
) -> tuple[list[tuple[float, float]], list[str]]:
    """At every rounded cost the best of the wanted rows: points and names."""
    found: dict[int, Row] = {}
    for row in rows:
        cost = round(row["evaluations"])
        if (
            wanted(method(row))
            and row["psnr"] < 100
            and (cost not in found or row[field] > found[cost][field])
        ):
            found[cost] = row
    chosen = [found[cost] for cost in sorted(found)]
    return [(row["evaluations"], row[field]) for row in chosen], [method(row) for row in chosen]


def curves(rows: Sequence[Row], field: str, ours: str) -> list[Curve]:
    """Ours, the best rival at each of its costs, the best plain solver at each of its costs."""
    mine, _ = best(rows, field, lambda name: name == ours)
    costs = {round(cost) for cost, _ in mine}
    rows = [row for row in rows if round(row["evaluations"]) in costs]
    rival, who = best(rows, field, lambda name: name.startswith(RIVALS))
    plain, how = best(rows, field, lambda name: name.startswith(PLAIN))
    return [
        Curve("this cache", (38, 84, 158), tuple(mine)),
        Curve("best rival", (207, 92, 36), tuple(rival), tuple(who)),
        Curve("fewer plain steps", (120, 120, 120), tuple(plain), tuple(how)),
    ]


def draw(rows: Sequence[Row]) -> Image.Image:
    """A panel for each target."""
    picture = Image.new("RGB", (2 * WIDTH, HEIGHT), "white")
    pen = ImageDraw.Draw(picture)
    for index, (field, ours, title) in enumerate(PANELS):
        _panel(pen, index * WIDTH, title, [c for c in curves(rows, field, ours) if c.points])
    return picture


def _panel(pen: Any, left: int, title: str, found: Sequence[Curve]) -> None:
    font = ImageFont.load_default(size=14)
    values = [value for curve in found for _, value in curve.points]
    costs = [cost for curve in found for cost, _ in curve.points]
    low, high = int(min(values)) - 1, int(max(values)) + 2
    first, last = min(costs) - 0.5, max(costs) + 0.5

    def place(cost: float, value: float) -> tuple[float, float]:
        x = left + SIDE + (WIDTH - SIDE - 130) * (cost - first) / (last - first)
        return x, 40 + (HEIGHT - 100) * (high - value) / (high - low)

    pen.text((left + SIDE, 12), title, fill=INK, font=ImageFont.load_default(size=16))
    for value in range(low, high + 1, 2 if high - low < 30 else 5):
        pen.line((*place(first, value), *place(last, value)), fill=FAINT)
        pen.text((left + 30, place(first, value)[1] - 8), str(value), fill=INK, font=font)
    for cost in range(int(first) + 1, int(last) + 1):
        x, y = place(cost, low)
        pen.text((x - 6, y + 6), str(cost), fill=INK, font=font)
    pen.text((left + SIDE, HEIGHT - 30), "computed evaluations of 20 per clip", fill=INK, font=font)
    for curve in found:
        points = [place(cost, value) for cost, value in curve.points]
        if len(points) > 1:
            pen.line(points, fill=curve.colour, width=3)
        for x, y in points:
            pen.ellipse((x - 4, y - 4, x + 4, y + 4), fill=curve.colour)
        x, y = points[-1]
        pen.text((x + 8, y - 8), curve.label, fill=curve.colour, font=font)
        if curve.names:
            pen.text((x + 8, y + 8), curve.names[-1], fill=curve.colour, font=ImageFont.load_default(size=11))


def main() -> None:
    """Command line."""
    source, target = map(Path, sys.argv[1:3])
    draw(json.loads(source.read_text())["rows"]).save(target)


if __name__ == "__main__":
    main()
