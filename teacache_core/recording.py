"""What one run computed in full teaches: how signal and output change, and the geometry of its velocities."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from .metric import to_floats


@dataclass(frozen=True)
class Recording:
    """Numbers only, a few hundred of them.

    sigmas: the N noise levels, without the final one. signal_change, output_change: relative L1 of each
    evaluation against the one before, from the second on (no signal_change where no signal was watched).
    gram: (N, N) inner products of the steps' centred velocities.
    """

    sigmas: tuple[float, ...]
    signal_change: tuple[float, ...]
    output_change: tuple[float, ...]
    gram: tuple[tuple[float, ...], ...]

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
    def from_json(cls, values: Mapping[str, Any]) -> Recording:
        """The inverse of `to_json`."""
        return cls(
            sigmas=tuple(map(float, values["sigmas"])),
            signal_change=tuple(map(float, values["signal_change"])),
            output_change=tuple(map(float, values["output_change"])),
            gram=tuple(tuple(map(float, row)) for row in values["gram"]),
        )


@dataclass
class Recorder:
    """Collects one run; lives as long as the run. No number is fetched from the device before `finish`.

    guidance_scale: when given and the branches are "cond" and "uncond", the recorded velocity is the guided
    one, uncond + scale * (cond - uncond), which is what moves the latents; otherwise all branches count
    alike.
    """

    sigmas: Sequence[float]
    guidance_scale: float | None = None
    _velocities: dict[int, dict[Hashable, Tensor]] = field(default_factory=dict[int, dict[Hashable, Tensor]])
    _signal_changes: list[Tensor] = field(default_factory=list[Tensor])
    _output_changes: list[Tensor] = field(default_factory=list[Tensor])

    def add(
        self, step: int, outputs: Mapping[Hashable, Tensor], signal: Tensor | None, output: Tensor | None
    ) -> None:
        """One evaluation: its outputs by branch, and its changes (0-d) against the evaluation before."""
        self._velocities[step] = dict(outputs)
        if output is not None:
            self._output_changes.append(output)
            self._signal_changes += [] if signal is None else [signal]

    def finish(self) -> Recording | None:
        """The recording, or None when some step was never evaluated (an interrupted run)."""
        count = len(self.sigmas)
        if sorted(self._velocities) != list(range(count)) or not self._output_changes:
            return None
        has_signal = len(self._signal_changes) == len(self._output_changes)
        gram = sum(self._branch_grams(), start=torch.zeros(count, count, dtype=torch.float64))
        return Recording(
            sigmas=tuple(self.sigmas),
            signal_change=tuple(to_floats(torch.stack(self._signal_changes))) if has_signal else (),
            output_change=tuple(to_floats(torch.stack(self._output_changes))),
            gram=tuple(tuple(to_floats(row)) for row in gram),
        )

    def _branch_grams(self) -> list[Tensor]:
        steps = [self._velocities[step] for step in sorted(self._velocities)]
        branches = set(steps[0])
        if self.guidance_scale is not None and branches == {"cond", "uncond"}:
            scale = self.guidance_scale
            return [_gram([step["uncond"] + scale * (step["cond"] - step["uncond"]) for step in steps])]
        return [_gram([step[branch] for step in steps]) for branch in steps[0]]


def _gram(values: list[Tensor]) -> Tensor:
    """(N, N) float64 inner products of the values about their mean, per element.

    Every error priced with it has weights that sum to zero, so the mean cancels; without it small errors
    drown.
    """
    rows = torch.stack([value.detach().reshape(-1).to("cpu", torch.float64) for value in values])
    rows = rows - rows.mean(0)
    return rows @ rows.T / rows.shape[1]
