"""The pricing of branches apart, on velocities that are known."""

from __future__ import annotations

import torch

from benchmarks.branches import guided_gram, loss, make_rows
from benchmarks.caching_methods import STEPS
from memo_avatar.clips.solvers import flow_sigmas
from teacache_core.multistep import target_weights


def made_gram(seed: int, uncond: float) -> torch.Tensor:
    """(2N, 2N) of a smooth cond, and of an uncond that bends by `uncond` along other directions."""
    generator = torch.Generator().manual_seed(seed)
    sigma = flow_sigmas(STEPS)[:-1].double()[:, None]
    curves = torch.cat([sigma, sigma**2, torch.sin(5 * sigma), torch.cos(7 * sigma)], dim=1)
    cond = curves @ torch.randn(4, 6, generator=generator, dtype=torch.float64)
    other = uncond * curves @ torch.randn(4, 6, generator=generator, dtype=torch.float64)
    rows = torch.cat([part - part.mean(0) for part in (cond, other)])
    return rows @ rows.T


def wanted(scale: float) -> torch.Tensor:
    moves = target_weights(flow_sigmas(STEPS).tolist(), "same")[:, -1]
    return torch.cat([scale * moves, (1 - scale) * moves])


def test_the_guided_gram_is_that_of_the_guided_velocities() -> None:
    rows = torch.randn(2 * STEPS, 5, dtype=torch.float64)
    guided = rows[STEPS:] + 1.5 * (rows[:STEPS] - rows[STEPS:])
    assert torch.allclose(guided_gram(rows @ rows.T, 1.5), guided @ guided.T)


def test_an_uncond_that_never_changes_needs_one_evaluation() -> None:
    gram, steps = made_gram(0, uncond=0.0), [0, 3, 6, 10, 14, 18]
    both, apart = (loss(gram, gram, wanted(1.5), steps, steps[:count]) for count in (6, 1))
    assert abs(both - apart) < 1e-3


def test_an_uncond_that_changes_is_missed_the_more_the_stronger_the_guidance() -> None:
    gram, steps = made_gram(0, uncond=1.0), [0, 3, 6, 10, 14, 18]
    ratios = []
    for scale in (1.1, 3.5):
        both, apart = (loss(gram, gram, wanted(scale), steps, steps[:count]) for count in (6, 2))
        ratios.append(apart / both)
    assert 1.0 < ratios[0] < ratios[1]


def test_rows_have_a_cost_between_cond_alone_and_both() -> None:
    rows = make_rows([made_gram(seed, 0.5) for seed in range(3)], 1.5, share=0.52)
    assert [(row["cond"], row["uncond"]) for row in rows] == [(8, 4), (6, 3), (5, 3)]
    assert all(0.52 * row["cond"] < row["cost"] < row["cond"] for row in rows)
    assert all(row["to_both"] > 0 and row["to_equal_cost"] > 0 for row in rows)
