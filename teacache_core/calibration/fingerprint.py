"""Which checkpoint a calibration belongs to, whatever dtype its weights were saved in."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from ..metric import to_floats
from .reading import read_numbers, read_object, refuse

_TENSORS = 16
_VALUES = 4
_TOLERANCE = 0.02  # bfloat16 rounds by 0.4 %


@dataclass(frozen=True)
class Fingerprint:
    """layout: hash of all names and shapes; sample: a few weights spread over the net."""

    layout: str
    sample: tuple[float, ...]

    @classmethod
    def of(cls, weights: Mapping[str, Tensor]) -> Fingerprint:
        """Of a state dict; reads a few values of a few tensors."""
        names = sorted(weights)
        layout = hashlib.sha256(repr([(name, tuple(weights[name].shape)) for name in names]).encode())
        stride = max(1, len(names) // _TENSORS)
        sample: list[float] = []
        for name in names[::stride][:_TENSORS]:
            values = weights[name].detach().reshape(-1)
            picks = values[:: max(1, values.numel() // _VALUES)][:_VALUES]
            sample.extend(to_floats(picks.to("cpu", torch.float32)))
        return cls(layout.hexdigest()[:16], tuple(sample))

    def matches(self, other: Fingerprint) -> bool:
        """Same names and shapes, and sampled weights equal to within a 16-bit rounding."""
        if self.layout != other.layout or len(self.sample) != len(other.sample):
            return False
        pairs = zip(self.sample, other.sample, strict=True)
        return all(abs(x - y) <= _TOLERANCE * max(abs(x), abs(y), 1e-3) for x, y in pairs)

    def to_json(self) -> dict[str, Any]:
        """JSON values."""
        return {"layout": self.layout, "sample": list(self.sample)}

    @classmethod
    def from_json(cls, values: object, where: str = "fingerprint") -> Fingerprint:
        """The inverse of `to_json`. Anything else raises CalibrationError."""
        fields = read_object(values, where)
        layout = fields.get("layout")
        if not isinstance(layout, str):
            raise refuse("a layout as text", type(layout).__name__, where)
        return cls(layout, read_numbers(fields.get("sample"), f"{where}: sample"))
