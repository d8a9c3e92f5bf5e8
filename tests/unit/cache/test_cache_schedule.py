"""The schedule search against brute force, and calibration on synthetic runs."""

import itertools
import json
import math

import pytest
import torch

from teacache_core import Calibration, CalibrationError, Fingerprint, StepCacheConfig
from teacache_core.calibration.recording import Recorder, Recording
from teacache_core.calibration.rescale import (
    PUBLISHED_TABLE,
    count_computed,
    fit_polynomial,
    fit_thresholds,
)
from teacache_core.forecast import horizon
from teacache_core.schedule import (
    balance,
    cheapest_steps,
    fit_forecast,
    forbid,
    plan_schedule,
    refine,
    resample,
    step_weights,
    window_costs,
)


def linear_sigmas(steps: int) -> list[float]:
    return [*torch.linspace(1.0, 0.001, steps).tolist(), 0.0]


def curved_velocities(steps: int, seed: int = 0) -> torch.Tensor:
    """(N, D): a smooth curve in a few dimensions with a sharp bend."""
    generator = torch.Generator().manual_seed(seed)
    sigma = torch.linspace(1.0, 0.001, steps, dtype=torch.float64)[:, None]
    parts = [sigma, sigma**2, torch.tanh(12 * (sigma - 0.4)), torch.sin(5 * sigma)]
    return torch.cat(parts, dim=1) @ torch.randn(4, 6, generator=generator, dtype=torch.float64)


def gram_of(velocities: torch.Tensor) -> torch.Tensor:
    centred = velocities - velocities.mean(0)
    return centred @ centred.T


def true_cost(velocities: torch.Tensor, sigmas: list[float], steps: list[int], on_skip: str) -> float:
    """What the search minimises, from the vectors themselves; each damping by a search of its own."""
    weights, count, total = step_weights(sigmas), len(velocities), 0.0
    for index, b in enumerate(steps):
        end = steps[index + 1] if index + 1 < len(steps) else count
        slope = velocities[b] - velocities[steps[index - 1]] if index else torch.zeros_like(velocities[0])
        window = 0.0
        for step in range(b + 1, end):
            gaps = horizon(sigmas[step], sigmas[b], sigmas[steps[index - 1]]) if index else 0.0
            moved, reach = velocities[step] - velocities[b], gaps * slope
            damping = float(moved @ reach / (reach @ reach)) if on_skip == "forecast" and gaps else 0.0
            window += weights[step] * float((moved - min(max(damping, 0.0), 2.0) * reach).norm())
        total += window**2
    return total


@pytest.mark.parametrize("on_skip", ["reuse", "forecast"])
@pytest.mark.parametrize("computed", [1, 2, 3, 5, 8])
def test_the_search_finds_what_brute_force_finds(on_skip: str, computed: int) -> None:
    velocities, sigmas = curved_velocities(8), linear_sigmas(8)
    steps, cost = cheapest_steps(window_costs(gram_of(velocities), sigmas, on_skip), computed)
    choices = ([0, *rest] for rest in itertools.combinations(range(1, 8), computed - 1))
    best = min(true_cost(velocities, sigmas, choice, on_skip) for choice in choices)
    assert len(steps) == computed and steps[0] == 0
    assert true_cost(velocities, sigmas, steps, on_skip) == pytest.approx(best, rel=1e-6, abs=1e-9)
    assert cost == pytest.approx(best, rel=1e-5, abs=1e-7)


@pytest.mark.parametrize(
    ("limits", "allowed"),
    [
        ({"max_consecutive_skips": 2}, lambda mask: "000" not in mask),
        ({"compute_last": True}, lambda mask: mask.endswith("1")),
        ({"end_percent": 0.5}, lambda mask: set(mask[11:]) == {"1"}),
        ({"start_percent": 0.3}, lambda mask: set(mask[:6]) == {"1"}),
    ],
    ids=["skip limit", "last", "end", "start"],
)
def test_a_schedule_keeps_the_limits(limits: dict, allowed) -> None:
    gram, sigmas = gram_of(curved_velocities(20)), linear_sigmas(20)
    config = StepCacheConfig(target_speedup=2.0, **limits)
    mask = plan_schedule(gram, sigmas[:-1], sigmas, config).mask
    assert allowed(mask)
    assert mask[0] == "1"


def test_limits_that_cost_more_than_asked_are_kept_all_the_same() -> None:
    gram, sigmas = gram_of(curved_velocities(20)), linear_sigmas(20)
    config = StepCacheConfig(target_speedup=5.0, max_consecutive_skips=1)
    mask = plan_schedule(gram, sigmas[:-1], sigmas, config).mask
    assert "00" not in mask and mask.count("1") == 10


@pytest.mark.parametrize(
    ("steps", "speedup", "computed"),
    [(20, 1.5, 13), (20, 2.0, 10), (20, 2.5, 8), (20, 1.0, 20), (1, 2.0, 1), (4, 9.0, 1)],
)
def test_a_target_is_met_in_evaluations(steps: int, speedup: float, computed: int) -> None:
    sigmas = linear_sigmas(steps)
    gram = gram_of(curved_velocities(steps))
    config = StepCacheConfig(target_speedup=speedup)
    assert plan_schedule(gram, sigmas[:-1], sigmas, config).mask.count("1") == computed


def test_the_bend_is_where_steps_are_computed() -> None:
    sigmas = linear_sigmas(20)
    line = torch.linspace(0, 1, 20, dtype=torch.float64)
    bent = torch.stack([line, (line - 0.6).clamp_min(0) * 40], dim=1)
    steps, cost = cheapest_steps(window_costs(gram_of(bent), sigmas, "forecast"), 5)
    assert cost < 0.02**2
    assert {12, 13} & set(steps)


def test_damping_makes_a_bent_forecast_better_and_leaves_a_line_alone() -> None:
    sigmas = linear_sigmas(8)
    line = torch.tensor(sigmas[:-1], dtype=torch.float64)
    damping, squared = fit_forecast(gram_of(line[:, None]), sigmas, "forecast", 1, 3)
    assert torch.allclose(damping, torch.ones(4, dtype=torch.float64))
    assert torch.allclose(squared, torch.zeros(4, dtype=torch.float64), atol=1e-12)
    flat = torch.cat([line[:3], line[2].repeat(5)])  # moves, then stops
    damping, squared = fit_forecast(gram_of(flat[:, None]), sigmas, "forecast", 1, 2)
    assert damping.abs().max() < 1e-9 and squared.max() < 1e-12
    reused, _ = fit_forecast(gram_of(flat[:, None]), sigmas, "reuse", 1, 2)
    assert torch.equal(reused, torch.zeros(5, dtype=torch.float64))


def test_velocities_are_resampled_linearly_between_known_levels() -> None:
    velocities, sigmas = curved_velocities(20), linear_sigmas(20)[:-1]
    gram = gram_of(velocities)
    assert resample(gram, sigmas, list(sigmas)) is gram
    halfway = [(x + y) / 2 for x, y in itertools.pairwise(sigmas)]
    centred = velocities - velocities.mean(0)
    middles = (centred[:-1] + centred[1:]) / 2
    assert torch.allclose(resample(gram, sigmas, halfway), middles @ middles.T)
    assert resample(gram, sigmas, linear_sigmas(30)[:-1]).shape == (30, 30)


def test_forbidden_windows_leave_the_given_costs_alone() -> None:
    costs = window_costs(gram_of(curved_velocities(6)), linear_sigmas(6), "reuse")
    before = costs.clone()
    forbid(costs, linear_sigmas(6), StepCacheConfig(max_consecutive_skips=1))
    assert torch.equal(costs, before)


def test_a_polynomial_is_found_again() -> None:
    x = [0.02 + 0.005 * index for index in range(20)]
    wanted = (900.0, -150.0, 12.0, 0.5, 0.01)
    y = [sum(c * value**power for c, power in zip(wanted, range(4, -1, -1), strict=True)) for value in x]
    found, r_squared = fit_polynomial(x, y)
    assert found == pytest.approx(wanted, rel=1e-4)
    assert r_squared == pytest.approx(1.0)
    assert fit_polynomial([0.1, 0.2], [1.0, 2.0])[0] == pytest.approx((10.0, 0.0), abs=1e-6)
    assert fit_polynomial([0.1], [3.0])[0] == pytest.approx((3.0,))


def made_recording(seed: int, steps: int = 20) -> Recording:
    """A run as MEMO's look: the signal moves most in the middle, the output most at the end."""
    generator = torch.Generator().manual_seed(seed)
    time = torch.linspace(0, 1, steps - 1)
    noise = 1 + 0.05 * torch.rand(steps - 1, generator=generator)
    signal = (0.1 - 0.16 * (time - 0.45) ** 2) * noise
    output = (0.02 + 0.17 * time**6) * noise
    velocities = curved_velocities(steps, seed)
    gram = gram_of(velocities + 0.01 * torch.randn(steps, 6, generator=generator, dtype=torch.float64))
    return Recording(
        sigmas=tuple(linear_sigmas(steps)[:-1]),
        signal_change=tuple(signal.tolist()),
        output_change=tuple(output.tolist()),
        gram=tuple(map(tuple, gram.tolist())),
    )


@pytest.mark.parametrize("compute_last", [False, True])
def test_thresholds_mean_the_published_speedups_on_other_runs(compute_last: bool) -> None:
    calibration = Calibration.fit([made_recording(seed) for seed in range(4)])
    others = [made_recording(seed).signal_change for seed in range(10, 18)]
    for threshold, speedup in PUBLISHED_TABLE:
        effective = calibration.effective_threshold(threshold, compute_last=compute_last)
        counts = [
            count_computed([calibration.rescale(x) for x in run], effective, compute_last=compute_last)
            for run in others
        ]
        assert 20 / (sum(counts) / len(counts)) == pytest.approx(speedup, rel=0.1)


def test_the_threshold_scale_rises_and_starts_at_zero() -> None:
    calibration = Calibration.fit([made_recording(0)])
    values = [calibration.effective_threshold(x / 100) for x in range(61)]
    assert values[0] == 0.0
    assert all(x <= y for x, y in itertools.pairwise(values))
    assert values[60] > values[25]
    assert fit_thresholds([[0.0, 0.0]]) == PUBLISHED_TABLE


def test_counting_follows_the_published_rule() -> None:
    assert count_computed([0.1] * 9, 0.25) == 4  # computed at 0, 3, 6, 9
    assert count_computed([0.1] * 9, 0.05) == 10
    assert count_computed([0.1] * 9, 5.0) == 1
    assert count_computed([0.1] * 9, 5.0, compute_last=True) == 2
    assert count_computed([0.1] * 9, 0.25, compute_last=True) == 4  # 9 is the last one anyway


def test_a_calibration_survives_its_file(tmp_path) -> None:
    print_of = Fingerprint.of({"a": torch.randn(3, 4), "b": torch.randn(7)})
    calibration = Calibration.fit([made_recording(0), made_recording(1)], print_of)
    (tmp_path / "calibration.json").write_text(calibration.to_text())
    assert Calibration.load(tmp_path / "calibration.json") == calibration
    silent = Recording(made_recording(0).sigmas, (), made_recording(0).output_change, made_recording(0).gram)
    unwatched = Calibration.fit([silent])
    assert Calibration.from_json(json.loads(json.dumps(unwatched.to_json()))) == unwatched
    assert math.isinf(unwatched.high)


def test_a_fingerprint_knows_the_checkpoint_but_not_its_dtype() -> None:
    weights = {f"layer{index}.weight": torch.randn(5, 6) for index in range(40)}
    known = Fingerprint.of(weights)
    assert known.matches(Fingerprint.of({name: value.bfloat16() for name, value in weights.items()}))
    assert known.matches(Fingerprint.of({name: value.half() for name, value in weights.items()}))
    assert not known.matches(Fingerprint.of({name: value + 0.1 for name, value in weights.items()}))
    assert not known.matches(Fingerprint.of({name: value[:4] for name, value in weights.items()}))
    assert Fingerprint.from_json(known.to_json()) == known


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "readable calibration file"),
        ("not json", "in JSON but got something else in line 1, column 1 ("),
        ("[" * 100_000, "in JSON but got something else ("),
        ("[1]", "an object but got list"),
        ("{}", "got None version None"),
        ('{"format": "teacache-calibration", "version": 9}', "version 9"),
        ('{"format": "teacache-calibration", "version": 1}', "a list but got nothing"),
    ],
)
def test_a_bad_calibration_file_is_named(tmp_path, content: str | None, message: str) -> None:
    path = tmp_path / "calibration.json"
    if content is not None:
        path.write_text(content)
    with pytest.raises(CalibrationError) as error:
        Calibration.load(path)
    assert message in str(error.value)
    assert "calibration.json" in str(error.value)


def test_recordings_that_teach_nothing_are_refused() -> None:
    nan = Recording((1.0, 0.5), (0.1,), (0.1,), ((float("nan"), 0.0), (0.0, 1.0)))
    for recordings, message in (
        ([], "at least one recording"),
        ([made_recording(0), made_recording(0, steps=10)], "equally many steps but got [10, 20]"),
        ([nan], "finite velocities"),
    ):
        with pytest.raises(CalibrationError) as error:
            Calibration.fit(recordings)
        assert message in str(error.value)


def test_a_calibration_of_another_checkpoint_is_refused() -> None:
    mine, other = (Fingerprint.of({"a": torch.randn(8, 8)}) for _ in range(2))
    calibration = Calibration.fit([made_recording(0)], mine)
    calibration.check(mine)
    calibration.check(None)
    with pytest.raises(CalibrationError, match="another checkpoint"):
        calibration.check(other)


def test_a_recorder_weighs_branches_by_guidance_and_needs_every_step() -> None:
    def recorder_of(scale: float | None) -> Recorder:
        recorder = Recorder([1.0, 0.5], scale)
        recorder.add(0, {"cond": torch.tensor([3.0]), "uncond": torch.tensor([1.0])}, None)
        return recorder

    unfinished = recorder_of(None)
    assert unfinished.finish() is None
    grams = []
    for scale in (None, 2.0):
        recorder = recorder_of(scale)
        values = {"cond": torch.tensor([7.0]), "uncond": torch.tensor([2.0])}
        recorder.add(1, values, torch.tensor(0.5))
        recording = recorder.finish()
        assert recording is not None and recording.signal_change == (0.5,)
        grams.append(recording.gram[0][0])
    # Halved differences: cond 4 and uncond 1 apart; guided: 1 + 2 * (3 - 1) = 5 and 2 + 2 * 5 = 12, 7 apart.
    assert grams == pytest.approx([2.0**2 + 0.5**2, 3.5**2])


@pytest.mark.parametrize("computed", [13, 10, 8])
def test_refining_and_balancing_shorten_the_error_of_the_whole_run(computed: int) -> None:
    sigmas, gram = linear_sigmas(20), gram_of(curved_velocities(20, seed=4))
    costs = window_costs(gram, sigmas, "forecast")
    found, _ = cheapest_steps(costs, computed)
    refined = refine(gram, sigmas, "forecast", costs, found)
    assert len(refined) == computed and refined[0] == 0

    def error(steps: list[int], damping: list[float]) -> float:
        total, computed_steps = torch.zeros(20, dtype=torch.float64), []
        for step, weight in enumerate(step_weights(sigmas)):
            if step in steps:
                computed_steps.append(step)
                continue
            b, a = computed_steps[-1], computed_steps[-2] if len(computed_steps) > 1 else None
            reach = damping[step] * horizon(sigmas[step], sigmas[b], None if a is None else sigmas[a])
            total[step] += weight
            total[b] -= weight * (1 + reach)
            if a is not None:
                total[a] += weight * reach
        return float(total @ gram @ total)

    def own(steps: list[int]) -> list[float]:
        damping = [1.0] * 20
        for index, b in enumerate(steps):
            fitted, _ = fit_forecast(gram, sigmas, "forecast", steps[max(index - 1, 0)], b)
            end = steps[index + 1] if index + 1 < len(steps) else 20
            damping[b + 1 : end] = fitted.tolist()[: end - b - 1]
        return damping

    assert error(refined, own(refined)) <= error(found, own(found)) * (1 + 1e-9)
    balanced = balance(gram, sigmas, "forecast", refined)
    assert error(refined, balanced) <= error(refined, own(refined)) * (1 + 1e-9)
    assert all(balanced[step] == 1.0 for step in refined)
