"""How the net answers latents that are off, and how strongly: from a calibration or from the clips made.

A flow's velocity is (x - D(x)) / sigma, with the picture that the net makes of the latents as D: off by e, it
moves by (e - D'e) / sigma, a share of e / sigma. Guidance enlarges what depends on the condition, most where
there is most noise. That is the shape, from the bundled model (`python -m benchmarks.feedback`); its strength
is the model's own: a calibration knows it, or a video's clips show it. Until they do it is taken as 0: values
as recorded, wherever the latents are.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from .metric import to_floats

OWN, GUIDED, MOST_GUIDANCE = 0.4, 1.0, 3.5
"""At strength 1, as it is best at guidance 1.5 and 3.5 with the bundled model. Guidance beyond is taken as
the most that was measured."""

LEAST_LEVEL = 0.025
"""Nearer to the picture than this the net does not answer more strongly."""

MOST = 3.0
"""The strongest that is believed."""

STRENGTHS = tuple(MOST * index / 24 for index in range(25))
"""Those that are told apart."""

HOLD = 0.3
"""What a strength farther from 0 by 1 has to explain of the variance of the misses' logarithms."""


def shape(sigmas: Sequence[float], guidance_scale: float | None) -> Tensor:
    """(N,): what the velocity of each step moves by, per latents that are off, at strength 1. sigmas: N + 1
    levels from 1 down to 0; guidance_scale: None for none.
    """
    levels = torch.tensor(sigmas[:-1], dtype=torch.float64)
    guided = 0.0 if guidance_scale is None else max(0.0, min(guidance_scale, MOST_GUIDANCE) - 1.0)
    return OWN * (1.0 - levels).clamp_min(0.0) / levels.clamp_min(LEAST_LEVEL) + GUIDED * guided**2 * levels


def disagreement(found: Tensor, expected: Callable[[float], Tensor]) -> list[float]:
    """For each of `STRENGTHS`: how far misses are from growing as it says; 0 where they tell nothing.

    found: (M,), squared, of guesses of computed values; expected: the same at a strength. How large they
    are altogether is the clip's own matter, so only their ratios count, as the variance of logarithms.
    """
    if len(found) < 2 or not bool(((found > 0) & found.isfinite()).all()):
        return [0.0] * len(STRENGTHS)
    ratios = [found / expected(strength).clamp_min(1e-30) for strength in STRENGTHS]
    return to_floats(torch.stack(ratios).log().var(1))


def likeliest(evidence: Sequence[float]) -> float:
    """The strength to count on. evidence: the sum of `disagreement` over the clips made."""
    costs = [cost + HOLD * strength**2 for cost, strength in zip(evidence, STRENGTHS, strict=True)]
    return STRENGTHS[costs.index(min(costs))]
