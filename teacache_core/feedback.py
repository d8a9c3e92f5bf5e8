"""How the net answers latents that are off, and how strongly: learned from the clips that are made.

A flow's velocity is (x - D(x)) / sigma, with the picture that the net makes of the latents as D: off by e, it
moves by (e - D'e) / sigma, a share of e / sigma. Guidance enlarges what depends on the condition, most where
there is most noise. That is the shape, from the bundled model (`python -m benchmarks.feedback`); its strength
is the model's own. Where nothing is known it is taken as 0: values as recorded, wherever the latents are.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

OWN, GUIDED, MOST_GUIDANCE = 0.4, 1.0, 3.5
"""At strength 1, as it is best at guidance 1.5 and 3.5 with the bundled model. Guidance beyond is taken as
the most that was measured."""

LEAST_LEVEL = 0.025
"""Nearer to the picture than this the net does not answer more strongly."""

MOST = 3.0
"""The strongest that is believed."""

STRENGTHS = torch.linspace(0.0, MOST, 25, dtype=torch.float64)
"""Those that are told apart."""

HOLD = 0.3
"""What a strength farther off by 1 has to explain of the variance of the misses' logarithms."""


def shape(sigmas: Sequence[float], guidance_scale: float | None) -> Tensor:
    """(N,): what the velocity of each step moves by, per latents that are off, at strength 1. sigmas: N + 1
    levels from 1 down to 0; guidance_scale: None for none.
    """
    levels = torch.tensor(sigmas[:-1], dtype=torch.float64)
    guided = 0.0 if guidance_scale is None else max(0.0, min(guidance_scale, MOST_GUIDANCE) - 1.0)
    return OWN * (1.0 - levels).clamp_min(0.0) / levels.clamp_min(LEAST_LEVEL) + GUIDED * guided**2 * levels


def unlikely(found: Tensor, expected: Callable[[float], Tensor]) -> Tensor:
    """Like `STRENGTHS`: how far misses are from growing as each of them says; 0 where they tell nothing.

    found: (M,), squared, of guesses of computed values; expected: the same at a strength. How large they
    are altogether is the clip's own matter, so only their ratios count, as the variance of logarithms.
    """
    if len(found) < 2 or not bool(((found > 0) & found.isfinite()).all()):
        return torch.zeros_like(STRENGTHS)
    ratios = [found / expected(float(strength)).clamp_min(1e-30) for strength in STRENGTHS]
    return torch.stack(ratios).log().var(1)


def likeliest(shown: Tensor, known: float) -> float:
    """The strength to count on. shown: sum of `unlikely` over the clips made; known: to the calibration."""
    return float(STRENGTHS[int((shown + HOLD * (STRENGTHS - known) ** 2).argmin())])
