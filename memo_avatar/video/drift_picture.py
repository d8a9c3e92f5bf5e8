"""A video's drift as a curve, under the picture of its report."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from PIL import Image, ImageDraw, ImageFont

from ..clips.drift import ratio
from ..clips.drift_report import Drift

_INK, _PAPER, _FAINT = (32, 36, 44), (255, 255, 255), (226, 229, 235)
_LINES = (
    ("sharpness", (38, 84, 158)),
    ("contrast", (40, 140, 96)),
    ("colour", (207, 92, 36)),
    ("likeness", (130, 70, 150)),
)
_HEIGHT, _MARGIN, _LEFT, _LETTERS = 200, 24, 112, 22
_LEAST_SPAN = 0.1  # of the curve's axis, above and below 1: a drift of a tenth is to look like one


def add_curve(picture: Image.Image, curve: Sequence[Drift]) -> Image.Image:
    """A report's picture with the drift's curve under it; the same picture where there is none to draw."""
    if len(curve) < 2:
        return picture
    width, top = picture.width, picture.height
    whole = Image.new("RGB", (width, top + _HEIGHT + 6 * _MARGIN), _PAPER)
    whole.paste(picture, (0, 0))
    pen = ImageDraw.Draw(whole)
    _text(pen, (_MARGIN, top), "Drift of the face against the first clip:")
    x: float = _MARGIN
    lines = {name: values for name, _ in _LINES if len(values := _points(curve, name)) > 1}
    for name, colour in _LINES:
        if name in lines:
            x += _MARGIN + _text(pen, (x, top + 28), name, colour)
    top += 3 * _MARGIN
    span = max(_LEAST_SPAN, *(abs(value - 1) for values in lines.values() for _, value in values))
    for share in (-1, 0, 1):
        y = top + _HEIGHT * (1 - share) / 2
        pen.line((_LEFT, y, width - _MARGIN, y), fill=_INK if share == 0 else _FAINT)
        _text(pen, (_MARGIN, y - 14), f"{100 * (1 + share * span):.0f} %")
    step = (width - _LEFT - _MARGIN) / (len(curve) - 1)
    for name, colour in _LINES:
        points = [
            (_LEFT + index * step, top + _HEIGHT * (1 - (value - 1) / span) / 2)
            for index, value in lines.get(name, ())
        ]
        if points:
            pen.line(points, fill=colour, width=2)
    _text(pen, (_LEFT, top + _HEIGHT + 6), "from the first clip to the last")
    return whole


def _points(curve: Sequence[Drift], name: str) -> list[tuple[int, float]]:
    """(place, ratio to the first) of one meter, where it is known; colours are off by shares of white."""
    first = curve[0].likeness
    if name == "likeness":
        known = enumerate(drift.likeness for drift in curve)
        return [(index, ratio(value, first)) for index, value in known if value is not None and first]
    if name == "colour":
        return [(index, 1 - drift.colour) for index, drift in enumerate(curve)]
    return [(index, getattr(drift, name)) for index, drift in enumerate(curve)]


def _text(pen: Any, place: tuple[float, float], text: str, fill: tuple[int, int, int] = _INK) -> float:
    """Writes it, and says how wide it is."""
    font = ImageFont.load_default(size=_LETTERS)
    pen.text(place, text, fill=fill, font=font)
    return pen.textlength(text, font=font)
