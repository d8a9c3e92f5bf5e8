"""What one clip computed in full teaches: how signal and output change, how its velocities lie."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from ..metric import rel_l1, to_floats
from .reading import read_changes, read_gram, read_levels, read_object, refuse


@dataclass(frozen=True)
class Recording:
    """Numbers only, a few hundred of them.

    sigmas: the N noise levels, without the final one. signal_change, output_change: relative L1 of each
    evaluation against the one before, from the second on: N - 1 of them, or more where a sampler evaluates
    more than once a step (no signal_change where no signal was watched).
    gram: (N, N) inner products of the steps' centred velocities, per element.
    """

    sigmas: tuple[float, ...]
    signal_change: tuple[float, ...]
    output_change: tuple[float, ...]
    gram: tuple[tuple[float, ...], ...]

    @property
    def size(self) -> float:
        """Mean square of a centred velocity's elements."""
        return sum(row[index] for index, row in enumerate(self.gram)) / len(self.gram)

    def gram_tensor(self) -> Tensor:
        """`gram` as (N, N) float64, scaled to mean diagonal 1 so that recordings average fairly."""
        gram = torch.tensor(self.gram, dtype=torch.float64)
        return gram / gram.diagonal().mean().clamp_min(1e-30)

    def to_json(self) -> dict[str, Any]:
        """JSON values."""
        return {
            "sigmas": list(self.sigmas),
            "signal_change": list(self.signal_change),
            "output_change": list(self.output_change),
            "gram": [list(row) for row in self.gram],
        }

    @classmethod
    def from_json(cls, values: object, where: str = "recording") -> Recording:
        """The inverse of `to_json`. Anything else raises CalibrationError."""
        fields = read_object(values, where)
        sigmas = read_levels(fields.get("sigmas"), f"{where}: sigmas")
        output = read_changes(fields.get("output_change"), f"{where}: output_change")
        signal = read_changes(fields.get("signal_change"), f"{where}: signal_change")
        if len(output) < len(sigmas) - 1 or len(signal) not in (0, len(output)):
            raise refuse(f"{len(sigmas) - 1} or more changes", f"{len(output)} and {len(signal)}", where)
        return cls(sigmas, signal, output, read_gram(fields.get("gram"), f"{where}: gram", len(sigmas)))


def guided(outputs: Mapping[Hashable, Tensor], guidance_scale: float | None) -> list[Tensor]:
    """What moves the latents: uncond + scale * (cond - uncond) where there are such branches and a scale is
    known, else every branch alike.
    """
    if guidance_scale is None or set(outputs) != {"cond", "uncond"}:
        return list(outputs.values())
    return [outputs["uncond"] + guidance_scale * (outputs["cond"] - outputs["uncond"])]


@dataclass
class Recorder:
    """Collects one clip; lives as long as it. No number is fetched from the device before `finish`."""

    sigmas: Sequence[float]
    guidance_scale: float | None = None
    _outputs: dict[int, dict[Hashable, Tensor]] = field(default_factory=dict[int, dict[Hashable, Tensor]])
    _newest: dict[Hashable, Tensor] = field(default_factory=dict[Hashable, Tensor])
    _signal_changes: list[Tensor] = field(default_factory=list[Tensor])
    _output_changes: list[Tensor] = field(default_factory=list[Tensor])

    def add(self, step: int, outputs: Mapping[Hashable, Tensor], signal: Tensor | None) -> None:
        """One evaluation: its outputs by branch, and the signal's change (0-d) since the one before."""
        before, self._newest = self._newest, dict(outputs)
        self._outputs[step] = self._newest
        if before:
            changes = [rel_l1(value, before[branch]) for branch, value in outputs.items()]
            self._output_changes.append(torch.stack(changes).mean())
            self._signal_changes += [] if signal is None else [signal]

    def finish(self) -> Recording | None:
        """The recording, or None when some step was never evaluated (an interrupted clip)."""
        count = len(self.sigmas)
        if sorted(self._outputs) != list(range(count)) or not self._output_changes:
            return None
        has_signal = len(self._signal_changes) == len(self._output_changes)
        steps = [guided(self._outputs[step], self.guidance_scale) for step in range(count)]
        grams = [_gram(list(part)) for part in zip(*steps, strict=True)]
        gram = sum(grams, start=torch.zeros(count, count, dtype=torch.float64))
        return Recording(
            sigmas=tuple(self.sigmas),
            signal_change=tuple(to_floats(torch.stack(self._signal_changes))) if has_signal else (),
            output_change=tuple(to_floats(torch.stack(self._output_changes))),
            gram=tuple(tuple(to_floats(row)) for row in gram),
        )


def _gram(values: list[Tensor]) -> Tensor:
    """(N, N) float64 inner products of the values about their mean, per element.

    Every error priced with it has weights that sum to zero, so the mean cancels; without it small errors
    drown.
    """
    rows = torch.stack([value.detach().reshape(-1).to("cpu", torch.float64) for value in values])
    rows = rows - rows.mean(0)
    return rows @ rows.T / rows.shape[1]
