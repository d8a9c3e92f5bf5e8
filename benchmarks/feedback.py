"""How the demo model answers latents that are off, at several guidances: the J of `teacache_core.feedback`.

    python -m benchmarks.feedback

At every step of plain runs the latents are moved as if the step before had been answered with this step's
value, and the net is asked again: J is what its guided velocity moves by, along the move and against its
length. Beside it stands what a plan takes at strength 1 ("taken"). Prints a table; the last line is JSON.
"""

from __future__ import annotations

import json
from collections.abc import Generator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from demo.evaluate import DemoModel, held_out_cases
from memo_avatar.clips.loop import generate_clips
from memo_avatar.clips.values import SamplingSettings
from teacache_core.feedback import shape

GUIDANCES = (1.0, 1.5, 2.5, 3.5, 5.0)
STEPS, PEOPLE = 20, 2
SEED = 8  # the first person that `benchmarks.caching` does not use


class Probe:
    """A denoiser that is asked twice at every step but the first; `found` gets J at each of them."""

    def __init__(self, denoiser: Any, guidance_scale: float, sigmas: Tensor) -> None:
        self.branches, self.modulated_input = denoiser.branches, denoiser.modulated_input
        self._denoiser, self._scale, self._sigmas = denoiser, guidance_scale, sigmas.tolist()
        self._before: Tensor | None = None
        self._step = 0
        self.found: list[float] = []

    def __call__(self, latents: Tensor, timestep: Tensor) -> dict[str, Tensor]:
        answer = self._denoiser(latents, timestep)
        velocity = self._guided(answer)
        if self._before is not None:
            length = self._sigmas[self._step - 1] - self._sigmas[self._step]
            move = length * (velocity - self._before)
            change = self._guided(self._denoiser(latents + move, timestep)) - velocity
            self.found.append(float((move * change).sum() / move.square().sum()))
        self._before = velocity
        self._step += 1
        return answer

    def _guided(self, answer: Mapping[str, Tensor]) -> Tensor:
        if "uncond" not in answer:
            return answer["cond"]
        return answer["uncond"] + self._scale * (answer["cond"] - answer["uncond"])


def probe(demo: DemoModel, guidance_scale: float) -> tuple[list[float], Tensor]:
    """Levels (STEPS + 1), and J at all steps but the first, (STEPS - 1,): of people's first clips."""
    probes: list[Probe] = []
    sigmas = torch.empty(0)

    @contextmanager
    def wrap(denoiser: Any, levels: Tensor, _clip_index: int) -> Generator[Probe]:
        nonlocal sigmas
        sigmas = levels
        probes.append(Probe(denoiser, guidance_scale, levels))
        yield probes[-1]

    demo = replace(demo, guidance_scale=guidance_scale)
    settings = SamplingSettings(steps=STEPS, guidance_scale=guidance_scale)
    for seed, case in enumerate(held_out_cases(SEED + PEOPLE, 1, demo.size)[SEED:], start=SEED):
        portrait, voice = demo.inputs(case.portrait, case.waveform, case.emotion)
        clips = generate_clips(
            demo.models, demo.vae, portrait, voice, settings, seed=seed, wrap_denoiser=wrap
        )
        next(iter(clips))
    return sigmas.tolist(), torch.tensor([each.found for each in probes]).mean(0)


@torch.no_grad()
def main() -> None:
    """Probe and print."""
    demo = DemoModel.load()
    rows = dict[float, tuple[list[float], Tensor]]()
    for scale in GUIDANCES:
        rows[scale] = probe(demo, scale)
    levels = rows[GUIDANCES[0]][0]
    print("| noise level | " + " | ".join(f"guidance {scale:g} | taken" for scale in GUIDANCES) + " |")
    print("|---|" + "---|---|" * len(GUIDANCES))
    for index in range(1, STEPS):
        cells = [
            f"{rows[scale][1][index - 1]:.2f} | {shape(levels, scale)[index]:.2f}" for scale in GUIDANCES
        ]
        print(f"| {levels[index]:.3f} | " + " | ".join(cells) + " |")
    found = {f"{scale:g}": [round(value, 3) for value in rows[scale][1].tolist()] for scale in GUIDANCES}
    print(f"\n{json.dumps({'levels': [round(level, 4) for level in levels[1:STEPS]], 'J': found})}")


if __name__ == "__main__":
    main()
