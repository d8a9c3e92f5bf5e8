"""Draws a result of `benchmarks.caching`: PSNR against cost, for both references.

python -m benchmarks.plot benchmarks/results/caching_<machine>_<date>.json docs/caching.png
"""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from PIL import Image, ImageDraw, ImageFont

WIDTH, HEIGHT, SIDE, LEGEND = 620, 460, 64, 420
INK, FAINT = (32, 36, 44), (226, 229, 235)
COLOURS = (
    (38, 84, 158),
    (207, 92, 36),
    (40, 140, 96),
    (150, 70, 160),
    (190, 150, 30),
    (90, 150, 210),
    (120, 120, 120),
    (200, 60, 90),
    (80, 190, 170),
    (110, 80, 60),
    (160, 190, 60),
    (60, 60, 120),
    (230, 140, 170),
    (20, 20, 20),
    (170, 190, 215),
    (190, 110, 10),
)
PANELS = (
    ("psnr", "PSNR against 20 Euler steps (dB)"),
    ("psnr_converged", "PSNR against the converged video (dB)"),
)


@dataclass(frozen=True)
class Curve:
    """One method over its costs."""

    name: str
    colour: tuple[int, int, int]
    points: tuple[dict[str, float], ...]


def curves(rows: Sequence[dict[str, Any]]) -> list[Curve]:
    """Rows of one method at several costs become a curve; the 20-step reference is none."""
    grouped: dict[str, list[dict[str, float]]] = {}
    for row in rows:
        if row["psnr"] < 100:
            grouped.setdefault(re.sub(r" ?(\d+\.\dx|\d+ steps)$", "", row["method"]), []).append(row)
    return [
        Curve(name, COLOURS[index % len(COLOURS)], tuple(sorted(points, key=lambda row: row["evaluations"])))
        for index, (name, points) in enumerate(grouped.items())
    ]


def draw(rows: Sequence[dict[str, Any]]) -> Image.Image:
    """Two panels and a legend."""
    found = curves(rows)
    picture = Image.new("RGB", (2 * WIDTH + LEGEND, HEIGHT), "white")
    pen = ImageDraw.Draw(picture)
    for index, (field, title) in enumerate(PANELS):
        _panel(pen, index * WIDTH, field, title, found)
    for index, curve in enumerate(found):
        y = 40 + 26 * index
        pen.rectangle((2 * WIDTH + 8, y + 3, 2 * WIDTH + 22, y + 15), fill=curve.colour)
        pen.text((2 * WIDTH + 30, y), curve.name, fill=INK, font=ImageFont.load_default(size=14))
    return picture


def _panel(pen: Any, left: int, field: str, title: str, found: Sequence[Curve]) -> None:
    font = ImageFont.load_default(size=14)
    values = [point[field] for curve in found for point in curve.points]
    costs = [point["evaluations"] for curve in found for point in curve.points]
    low, high = int(min(values)) - 1, int(max(values)) + 2
    first, last = min(costs) - 0.5, max(costs) + 0.5

    def place(cost: float, value: float) -> tuple[float, float]:
        x = left + SIDE + (WIDTH - SIDE - 20) * (cost - first) / (last - first)
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
        points = [place(point["evaluations"], point[field]) for point in curve.points]
        if len(points) > 1:
            pen.line(points, fill=curve.colour, width=2)
        for x, y in points:
            pen.ellipse((x - 4, y - 4, x + 4, y + 4), fill=curve.colour)


def main() -> None:
    """Command line."""
    source, target = map(Path, sys.argv[1:3])
    draw(json.loads(source.read_text())["rows"]).save(target)


if __name__ == "__main__":
    main()
