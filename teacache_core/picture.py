"""The report as one picture: a grid of decisions (clips down, evaluations across) and the curves under it.

Needs PIL, imported when drawing; everything else in this package does without.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

if TYPE_CHECKING:
    from PIL.Image import Image

    from .report import CacheReport, StepRecord

_INK, _PAPER, _FAINT = (32, 36, 44), (255, 255, 255), (226, 229, 235)
_COMPUTED, _SKIPPED = (38, 84, 158), (176, 211, 236)
_SIGNAL, _ERROR = (207, 92, 36), (40, 140, 96)
_WIDTH, _MARGIN, _LEFT, _CURVE = 960, 24, 88, 180
_MAX_ROWS = 60


def draw(report: CacheReport) -> Image:
    """An RGB picture, 960 pixels wide."""
    from PIL import Image, ImageDraw

    clips = list(report.clips().items())
    shown = clips[:_MAX_ROWS]
    row = 22 if len(shown) <= 20 else 12
    top = 96
    bottom = top + row * max(1, len(shown))
    picture = Image.new("RGB", (_WIDTH, bottom + 56 + _CURVE + 2 * _MARGIN), _PAPER)
    pen = ImageDraw.Draw(picture)
    _text(pen, (_MARGIN, 16), report.summary(), 18)
    _text(pen, (_MARGIN, 42), f"Calibration: {report.calibration}.", 14)
    _legend(pen, 66)
    columns = max((len(records) for _, records in clips), default=1)
    for index, (clip_index, records) in enumerate(shown):
        _grid_row(pen, top + index * row, row, columns, clip_index, records)
    if len(clips) > len(shown):
        _text(pen, (_MARGIN, bottom + 4), f"... and {len(clips) - len(shown)} more clips", 13)
    _curves(pen, bottom + 40, columns, [records for _, records in clips])
    return picture


def to_tensor(picture: Image) -> Tensor:
    """(H, W, 3) uint8."""
    rgb = picture.convert("RGB")
    return torch.frombuffer(bytearray(rgb.tobytes()), dtype=torch.uint8).reshape(rgb.height, rgb.width, 3)


def _text(
    pen: Any, place: tuple[float, float], text: str, size: int, fill: tuple[int, int, int] = _INK
) -> None:
    from PIL import ImageFont

    pen.text(place, text, fill=fill, font=ImageFont.load_default(size=size))


def _legend(pen: Any, y: int) -> None:
    x = _MARGIN
    for colour, label in (
        (_COMPUTED, "computed"),
        (_SKIPPED, "skipped"),
        (_SIGNAL, "signal change"),
        (_ERROR, "replay error (on computed steps)"),
    ):
        pen.rectangle((x, y + 2, x + 14, y + 16), fill=colour)
        _text(pen, (x + 20, y), label, 14)
        x += 46 + 8 * len(label)


def _cell(columns: int) -> float:
    return (_WIDTH - _LEFT - _MARGIN) / columns


def _grid_row(
    pen: Any, y: int, height: int, columns: int, clip_index: int, records: list[StepRecord]
) -> None:
    _text(pen, (_MARGIN, y), f"clip {clip_index}", min(14, height - 2))
    width = _cell(columns)
    for index, record in enumerate(records):
        left = _LEFT + index * width
        box = (left + 1, y + 1, left + width - 1, y + height - 2)
        pen.rectangle(box, fill=_COMPUTED if record.computed else _SKIPPED)


def _curves(pen: Any, top: int, columns: int, clips: list[list[StepRecord]]) -> None:
    """Mean over clips of signal change and of replay error, per evaluation; one scale, labelled."""
    signal = _means(clips, "rel_l1", columns)
    error = _means(clips, "replay_error", columns)
    known = [value for value in signal + error if value is not None]
    highest = max(known, default=0.0)
    _text(pen, (_MARGIN, top), f"{100 * highest:.1f} %", 13)
    _text(pen, (_MARGIN, top + _CURVE - 14), "0 %", 13)
    pen.line((_LEFT, top + _CURVE, _WIDTH - _MARGIN, top + _CURVE), fill=_INK)
    pen.line((_LEFT, top, _WIDTH - _MARGIN, top), fill=_FAINT)
    if highest <= 0:
        _text(pen, (_LEFT + 8, top + 8), "no change was measured in this mode", 14)
        return
    for values, colour in ((signal, _SIGNAL), (error, _ERROR)):
        points = [
            (_LEFT + (index + 0.5) * _cell(columns), top + _CURVE * (1 - value / highest))
            for index, value in enumerate(values)
            if value is not None
        ]
        if len(points) > 1:
            pen.line(points, fill=colour, width=3)
        for x, y in points:
            pen.ellipse((x - 3, y - 3, x + 3, y + 3), fill=colour)
    _text(pen, (_LEFT, top + _CURVE + 4), "evaluation, from noise to clean", 13)


def _means(clips: list[list[StepRecord]], name: str, columns: int) -> list[float | None]:
    means: list[float | None] = []
    for index in range(columns):
        values = [getattr(clip[index], name) for clip in clips if index < len(clip)]
        known = [value for value in values if value is not None]
        means.append(sum(known) / len(known) if known else None)
    return means
