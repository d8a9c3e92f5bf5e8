"""The report as one picture: what was saved, and a grid of decisions (clips down, evaluations across).

Its letters are large, because it is shown on a node, where it is about half as wide as it is.

Needs PIL, imported when drawing; everything else in this package does without.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from .report import counted

if TYPE_CHECKING:
    from PIL.Image import Image

    from .report import CacheReport, StepRecord

_INK, _PAPER, _FAINT = (32, 36, 44), (255, 255, 255), (226, 229, 235)
_COMPUTED, _SKIPPED = (38, 84, 158), (176, 211, 236)
_SIGNAL, _ERROR = (207, 92, 36), (40, 140, 96)
_WIDTH, _MARGIN, _LEFT, _CURVE = 720, 24, 112, 180
_TOP, _ROW, _LOW_ROW = 96, 26, 12
_MAX_ROWS = 60
_LOUD, LETTERS = 30, 22
"""Pixels: the headline's letters, where it fits in them, and those of all else."""


def draw(report: CacheReport, curves: bool = False) -> Image:
    """An RGB picture, 720 pixels wide; with ``curves``, how much was measured at every evaluation."""
    from PIL import Image, ImageDraw

    clips = list(report.clips().items())
    shown = clips[:_MAX_ROWS]
    row = _ROW if len(shown) <= 20 else _LOW_ROW
    bottom = _TOP + row * max(1, len(shown))
    more = 40 if len(clips) > len(shown) else 0
    picture = Image.new("RGB", (_WIDTH, bottom + more + _MARGIN + (_CURVE + 80) * curves), _PAPER)
    pen = ImageDraw.Draw(picture)
    _headline(pen, report.headline())
    _legend(pen, 56, curves)
    columns = max((len(records) for _, records in clips), default=1)
    for index, (clip_index, records) in enumerate(shown):
        named = row == _ROW or index % 5 == 0
        _grid_row(pen, _TOP + index * row, row, columns, f"clip {clip_index}" if named else "", records)
    if more:
        _text(pen, (_MARGIN, bottom + 12), f"... and {counted(len(clips) - len(shown), 'more clip')}")
    if curves:
        _curves(pen, bottom + more + 40, columns, [records for _, records in clips])
    return picture


def to_tensor(picture: Image) -> Tensor:
    """(H, W, 3) uint8."""
    rgb = picture.convert("RGB")
    return torch.frombuffer(bytearray(rgb.tobytes()), dtype=torch.uint8).reshape(rgb.height, rgb.width, 3)


def _text(
    pen: Any,
    place: tuple[float, float],
    text: str,
    size: float = LETTERS,
    fill: tuple[int, int, int] = _INK,
) -> float:
    """Writes it, and says how wide it is."""
    from PIL import ImageFont

    font = ImageFont.load_default(size=size)
    pen.text(place, text, fill=fill, font=font)
    return pen.textlength(text, font=font)


def _headline(pen: Any, text: str) -> None:
    from PIL import ImageFont

    width = pen.textlength(text, font=ImageFont.load_default(size=_LOUD))
    _text(pen, (_MARGIN, 12), text, min(_LOUD, _LOUD * (_WIDTH - 2 * _MARGIN) / width))


def _legend(pen: Any, y: int, curves: bool) -> None:
    x: float = _MARGIN
    measured = [(_SIGNAL, "signal change"), (_ERROR, "error, had it been skipped")] if curves else []
    for colour, label in ((_COMPUTED, "computed"), (_SKIPPED, "skipped"), *measured):
        pen.rectangle((x, y + 4, x + 18, y + 22), fill=colour)
        x += 52 + _text(pen, (x + 26, y), label)


def _cell(columns: int) -> float:
    return (_WIDTH - _LEFT - _MARGIN) / columns


def _grid_row(pen: Any, y: int, height: int, columns: int, name: str, records: list[StepRecord]) -> None:
    _text(pen, (_MARGIN, y - 2), name)
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
    _text(pen, (_MARGIN, top), f"{100 * highest:.1f} %")
    _text(pen, (_MARGIN, top + _CURVE - 22), "0 %")
    pen.line((_LEFT, top + _CURVE, _WIDTH - _MARGIN, top + _CURVE), fill=_INK)
    pen.line((_LEFT, top, _WIDTH - _MARGIN, top), fill=_FAINT)
    if highest <= 0:
        _text(pen, (_LEFT + 8, top + 8), "no change was measured in this mode")
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
    _text(pen, (_LEFT, top + _CURVE + 4), "steps, from noise to clean")


def _means(clips: list[list[StepRecord]], name: str, columns: int) -> list[float | None]:
    means: list[float | None] = []
    for index in range(columns):
        values = [getattr(clip[index], name) for clip in clips if index < len(clip)]
        known = [value for value in values if value is not None]
        means.append(sum(known) / len(known) if known else None)
    return means
