"""Steps and weights from inner products, against least squares on the vectors themselves."""

from __future__ import annotations

import itertools
import time

import pytest
import torch

from memo_avatar.clips.solvers import sample_adams_bashforth, sample_euler
from teacache_core import StepCacheConfig
from teacache_core.feedback import shape
from teacache_core.multistep import (
    FEW,
    LEAST,
    ON_THE_WAY,
    ONE_CLIP,
    Multistep,
    Search,
    spread_of,
    target_weights,
)
from tests.unit.cache.test_cache_schedule import curved_velocities, gram_of, linear_sigmas

SPREAD = 0.001  # of recordings that agree
SAME, CONVERGED = StepCacheConfig(), StepCacheConfig(target="converged")


def least_errors(velocities: torch.Tensor, target: torch.Tensor, steps: list[int]) -> list[float]:
    """Squared errors at the end of each stretch, by solving for the weights with the vectors at hand."""
    errors = []
    for known, c in zip(range(1, len(steps) + 1), [*steps[1:], len(velocities)], strict=True):
        wanted = target[:, c] @ velocities - target[:, c].sum() * velocities[0]
        basis = velocities[steps[1:known]] - velocities[0]
        if known > 1:
            wanted = wanted - torch.linalg.lstsq(basis.T, wanted[:, None]).solution[:, 0] @ basis
        errors.append(float(wanted.square().sum()))
    return errors


@pytest.mark.parametrize("config", [SAME, CONVERGED], ids=["same", "converged"])
@pytest.mark.parametrize("steps", [[0], [0, 5], [0, 3, 7], [0, 1, 4, 8]])
def test_sets_are_priced_as_least_squares_on_the_vectors_does(config, steps: list[int], monkeypatch) -> None:
    monkeypatch.setattr("teacache_core.multistep.RIDGE", 1e-12)
    velocities, sigmas = curved_velocities(10), linear_sigmas(10)
    search = Search(gram_of(velocities), sigmas, config, SPREAD)
    *on_the_way, end = least_errors(velocities, target_weights(sigmas, config.target), steps)
    few = max(1.0, FEW / len(steps)) ** 3
    assert float(search.prices([steps])[0]) == pytest.approx(
        end + few * ON_THE_WAY * SPREAD * sum(on_the_way), rel=1e-4, abs=1e-8
    )
    assert search.weights(steps).loss == pytest.approx(end, rel=1e-4, abs=1e-8)


@pytest.mark.parametrize("computed", [1, 2, 3, 5])
def test_the_search_finds_what_brute_force_finds(computed: int) -> None:
    search = Search(gram_of(curved_velocities(10, seed=3)), linear_sigmas(10), SAME)
    choices = [[0, *rest] for rest in itertools.combinations(range(1, 10), computed - 1)]
    assert float(search.prices([search.best(computed)])[0]) == pytest.approx(
        float(search.prices(choices).min())
    )


def pulled_end(velocities: torch.Tensor, sigmas: list[float], found: Multistep, pull: torch.Tensor):
    """Where Euler's method ends with these answers, on a net that pulls latents back to its recorded run."""
    lengths = torch.tensor(sigmas[:-1]).double() - torch.tensor(sigmas[1:]).double()
    recorded = -(lengths[:, None] * velocities).cumsum(0)
    at, computed = torch.zeros(velocities.shape[1], dtype=torch.float64), []
    for step, length in enumerate(lengths):
        if step in found.steps:
            off = at - recorded[step - 1] if step else torch.zeros_like(at)
            computed.append(velocities[step] + pull[step] * off)
        known = found.answers[step, : len(computed)]
        assert not found.answers[step, len(computed) :].any(), "nothing answers from the future"
        at = at - length * (known @ torch.stack(computed))
    return at


def solved(velocities: torch.Tensor, sigmas: list[float], solver, pull: torch.Tensor) -> torch.Tensor:
    """Where a solver ends that computes every step, on the same net."""
    levels = torch.tensor(sigmas, dtype=torch.float64)
    recorded = -((levels[:-1] - levels[1:])[:, None] * velocities).cumsum(0)
    walk = iter(range(len(velocities)))

    def net(latents: torch.Tensor, _sigma: torch.Tensor) -> torch.Tensor:
        step = next(walk)
        return velocities[step] + pull[step] * (latents - recorded[step - 1] if step else latents)

    return solver(net, torch.zeros(velocities.shape[1], dtype=torch.float64), levels)


@pytest.mark.parametrize(("config", "solver"), [(SAME, sample_euler), (CONVERGED, sample_adams_bashforth)])
@pytest.mark.parametrize("strength", [0.0, 1.0])
def test_euler_with_the_answers_ends_where_the_plan_says_and_nearer_with_more_steps(
    config, solver, strength
) -> None:
    """On a net that answers latents that are off as the plan takes it to."""
    velocities, sigmas = curved_velocities(20), linear_sigmas(20)
    pull = strength * shape(sigmas, 3.5)
    wanted = solved(velocities, sigmas, solver, pull)
    errors = []
    for computed in (4, 6, 8):
        found = Search(gram_of(velocities), sigmas, config, SPREAD, pull=strength, guidance_scale=3.5).plan(
            computed
        )
        end = pulled_end(velocities, sigmas, found, pull)
        errors.append(float((end - wanted).square().sum()))
        assert errors[-1] == pytest.approx(found.loss, rel=1e-6, abs=1e-12)
    assert max(errors[1:]) < errors[0] / 10


def test_weights_that_know_what_pulls_back_come_nearer_than_those_that_do_not() -> None:
    velocities, sigmas = curved_velocities(20), linear_sigmas(20)
    pull = shape(sigmas, 3.5)
    wanted = solved(velocities, sigmas, sample_euler, pull)
    plans = [
        Search(gram_of(velocities), sigmas, SAME, SPREAD, pull=strength, guidance_scale=3.5).plan(5)
        for strength in (1.0, 0.0)
    ]
    knowing, ignorant = (float((pulled_end(velocities, sigmas, p, pull) - wanted).norm()) for p in plans)
    assert knowing < ignorant / 3


def test_guesses_are_the_best_ones_and_their_errors_are_known() -> None:
    velocities, sigmas = curved_velocities(12, seed=2), linear_sigmas(12)
    found = Search(gram_of(velocities), sigmas, SAME).plan(5)
    for index, step in enumerate(found.steps[1:], start=1):
        guess = found.guesses[index] @ velocities[list(found.steps)]
        assert float((guess - velocities[step]).square().sum()) <= float(found.errors[index]) + 1e-9
        assert not found.guesses[index, index:].any()
        assert float(found.guesses[index].sum()) == pytest.approx(1.0)


@pytest.mark.parametrize(
    ("limits", "holds"),
    [
        (
            {"max_consecutive_skips": 2},
            lambda steps: max(c - b for b, c in itertools.pairwise([*steps, 20])) <= 3,
        ),
        ({"compute_last": True}, lambda steps: steps[-1] == 19),
        ({"end_percent": 0.5}, lambda steps: set(range(11, 20)) <= set(steps)),
        ({"start_percent": 0.3}, lambda steps: set(range(6)) <= set(steps)),
    ],
    ids=["skip limit", "last", "end", "start"],
)
def test_a_schedule_keeps_the_limits(limits: dict, holds) -> None:
    config = StepCacheConfig(target_speedup=3.3, **limits)
    found = Search(gram_of(curved_velocities(20)), linear_sigmas(20), config).plan(6)
    assert holds(found.steps) and found.steps[0] == 0 and len(found.steps) >= 6


@pytest.mark.parametrize("config", [SAME, CONVERGED], ids=["same", "converged"])
@pytest.mark.parametrize("computed", [25, 12, 5])
def test_fifty_steps_are_planned_within_a_second(config, computed: int) -> None:
    generator = torch.Generator().manual_seed(0)
    noise = 1e-3 * torch.randn(50, 6, generator=generator, dtype=torch.float64)
    gram = gram_of(curved_velocities(50) + noise)
    began = time.process_time()
    assert len(Search(gram, linear_sigmas(50), config).plan(computed).steps) == computed
    assert time.process_time() - began < 1.0


def test_values_that_never_change_need_no_more_than_one() -> None:
    still = torch.zeros(20, 20, dtype=torch.float64)
    found = Search(still, linear_sigmas(20), SAME).plan(2)
    assert found.loss == 0.0 and torch.allclose(found.answers.sum(1), torch.ones(20, dtype=torch.float64))


def test_the_spread_is_of_what_recordings_do_whatever_their_size_and_their_common_part() -> None:
    grams = [gram_of(curved_velocities(20, seed=seed)) for seed in range(3)]
    same = torch.stack([grams[0], 7 * grams[0], gram_of(curved_velocities(20) + torch.ones(6))])
    assert spread_of(same) == LEAST < spread_of(torch.stack(grams))
    assert spread_of(torch.stack(grams[:1])) == ONE_CLIP


def test_the_same_clip_twice_is_planned_though_it_moves_along_few_directions() -> None:
    grams = torch.stack([gram_of(curved_velocities(20))] * 2)
    found = Search(grams.mean(0), linear_sigmas(20), SAME, spread_of(grams)).plan(12)
    assert len(found.steps) == 12 and torch.isfinite(found.answers).all()


def test_the_less_recordings_agree_the_nearer_weights_stay_to_plain_holding() -> None:
    gram, sigmas, steps = gram_of(curved_velocities(20)), linear_sigmas(20), [0, 3, 6, 10, 14, 17]
    known = torch.tensor([max(k for k, step in enumerate(steps) if step <= i) for i in range(20)])
    held = torch.nn.functional.one_hot(known, len(steps)).double()
    distances = [
        float((Search(gram, sigmas, SAME, spread).weights(steps).answers - held).norm())
        for spread in (1e-4, 1e-2, 1.0)
    ]
    assert distances == sorted(distances, reverse=True) and distances[2] < distances[0] / 2
