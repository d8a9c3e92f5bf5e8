"""Settings, the change metric, the replay weights and the decision rule, as tables."""

import json
from dataclasses import replace

import pytest
import torch

from teacache_core import CacheConfigError, StepCacheConfig
from teacache_core.forecast import MAX_HORIZON, Line, Table, combine, horizon
from teacache_core.metric import Rescale, polynomial, rel_l1
from teacache_core.policy import Observation, PolicyState, Reason, decide


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"rel_l1_thresh": -0.1}, "expected rel_l1_thresh of 0"),
        ({"rel_l1_thresh": float("nan")}, "got nan"),
        ({"target_speedup": 0.5}, "target_speedup of 1 or more but got 0.5"),
        ({"rel_l1_thresh": 0.1, "target_speedup": 2.0}, "got rel_l1_thresh and target_speedup"),
        ({"step_mask": ""}, "expected step_mask"),
        ({"step_mask": "10x1"}, "text of 1 (compute) and 0 (skip)"),
        ({"start_percent": 0.9, "end_percent": 0.1}, "got 0.9 and 0.1"),
        ({"max_consecutive_skips": 0}, "max_consecutive_skips of 1 or more"),
        ({"on_skip": "guess"}, "on_skip to be forecast, line or reuse but got 'guess'"),
        ({"target": "noise"}, "target to be same or converged"),
        ({"stored": "noise"}, "stored to be velocity or residual"),
        ({"target": "converged", "stored": "residual"}, "stored velocity with target converged"),
    ],
)
def test_a_setting_that_cannot_work_is_refused(values: dict, message: str) -> None:
    with pytest.raises(CacheConfigError) as error:
        StepCacheConfig(**values)
    assert message in str(error.value)


@pytest.mark.parametrize(
    ("config", "mode"),
    [
        (StepCacheConfig(), "off"),
        (StepCacheConfig(rel_l1_thresh=0.1), "teacache"),
        (StepCacheConfig.published(0.1), "teacache"),
        (StepCacheConfig(target_speedup=2.0), "schedule"),
        (StepCacheConfig(step_mask="1101"), "mask"),
        (StepCacheConfig(calibrate=True), "calibrate"),
    ],
)
def test_the_mode_follows_from_the_settings(config: StepCacheConfig, mode: str) -> None:
    assert config.mode == mode
    assert json.loads(json.dumps(config.to_json()))["target"] == "same"


def test_masks_are_split_at_spaces_and_commas() -> None:
    assert StepCacheConfig(step_mask="110, 101").masks == ("110", "101")


def test_rel_l1_is_relative_to_the_previous_tensor() -> None:
    assert rel_l1(torch.tensor([1.0, 5.0]), torch.tensor([2.0, 4.0])).item() == pytest.approx(2 / 6)
    assert torch.isfinite(rel_l1(torch.ones(2), torch.zeros(2)))


def test_a_polynomial_is_given_highest_power_first_and_never_rescales_below_zero() -> None:
    assert polynomial((2.0, -3.0, 1.0), 4.0) == 2 * 16 - 3 * 4 + 1
    assert Rescale((1.0, -1.0))(0.5) == 0.0
    assert Rescale((2.0, 0.0), low=1.0, high=3.0)(9.0) == 6.0


@pytest.mark.parametrize(
    ("sigma", "newest", "previous", "gaps"),
    [
        (0.5, 0.6, None, 0.0),
        (0.4, 0.6, 0.8, 1.0),
        (0.5, 0.6, 0.8, 0.5),
        (0.5, 0.6, 0.6, 0.0),
        (0.0, 0.9, 1.0, MAX_HORIZON),
    ],
    ids=["one value", "same gap", "half gap", "no gap", "clamped"],
)
def test_horizons(sigma, newest, previous, gaps) -> None:
    assert horizon(sigma, newest, previous) == pytest.approx(gaps)


def test_a_line_has_weights_that_sum_to_one_and_reuse_looks_at_the_newest_only() -> None:
    assert Line(reuse=True).answer(2, 0.4, [0.8, 0.6]) == (0.0, 1.0)
    assert Line().answer(1, 0.6, [0.8, 0.6]) == (0.0, 1.0)
    assert Line().answer(0, 0.6, [0.8]) == (1.0,)
    assert Line().answer(2, 0.5, [0.8, 0.6]) == pytest.approx((-0.5, 1.5))
    assert Line(damping=(1.0, 1.0, 0.5)).answer(2, 0.5, [0.9, 0.8, 0.6]) == pytest.approx((0.0, -0.25, 1.25))


def test_a_line_that_looks_ahead_is_second_order_adams_bashforth() -> None:
    """Uneven steps of 0.2 and 0.3: v + (v - before) * 0.3 / (2 * 0.2). Its guess is of the value itself."""
    ahead = Line(ahead=(0.6, 0.3))
    assert ahead.answer(1, 0.6, [0.8, 0.6]) == pytest.approx((-0.75, 1.75))
    assert ahead.guess(1, 0.6, [0.9, 0.8]) == pytest.approx((-2.0, 3.0))
    assert ahead.solves and not Line().solves


TABLE = Table(
    levels=(0.8, 0.4),
    answers=((1.0, 0.0), (1.0, 0.0), (-0.3, 1.3), (-0.3, 1.3)),
    guesses=((0.0, 0.0), (1.0, 0.0)),
    line=Line(),
)


def test_a_table_answers_while_the_values_are_its_schedules() -> None:
    assert TABLE.answer(0, 0.8, [0.8]) == (1.0,)
    assert TABLE.answer(1, 0.6, [0.8]) == (1.0,)
    assert TABLE.answer(3, 0.2, [0.8, 0.4]) == (-0.3, 1.3)
    assert TABLE.guess(2, 0.4, [0.8]) == (1.0,)


@pytest.mark.parametrize("known", [[0.6], [0.8, 0.6], [0.8]], ids=["reset", "another step", "one missing"])
def test_a_table_leaves_values_that_are_not_its_schedules_to_the_line(known: list[float]) -> None:
    assert TABLE.answer(3, 0.2, known) == Line().answer(3, 0.2, known)
    assert TABLE.guess(3, 0.2, known) == Line().guess(3, 0.2, known)


def test_a_forecast_continues_a_line_exactly_and_changes_nothing_it_is_given() -> None:
    newest, previous = torch.tensor([3.0]), torch.tensor([5.0])
    value = combine([previous, newest], Line().answer(0, 0.5, [0.7, 0.6]))
    assert value.item() == pytest.approx(1.0)
    assert (newest.item(), previous.item()) == (3.0, 5.0)
    reused = combine([newest], (1.0,))
    reused += 1
    assert newest.item() == 3.0


CONFIG = StepCacheConfig(rel_l1_thresh=0.2)
HALFWAY = Observation(progress=0.5, change=0.1)


@pytest.mark.parametrize(
    ("config", "state", "seen", "compute", "reason"),
    [
        (CONFIG, PolicyState(), HALFWAY, False, Reason.BELOW_THRESHOLD),
        (CONFIG, PolicyState(0.1), HALFWAY, True, Reason.THRESHOLD_REACHED),
        (CONFIG, PolicyState(0.05, 3), HALFWAY, False, Reason.BELOW_THRESHOLD),
        (CONFIG, PolicyState(), replace(HALFWAY, change=None), True, Reason.NO_SIGNAL),
        (CONFIG, PolicyState(), replace(HALFWAY, change=float("nan")), True, Reason.THRESHOLD_REACHED),
        (CONFIG, PolicyState(), replace(HALFWAY, replayable=False), True, Reason.NOTHING_STORED),
        (CONFIG, PolicyState(), replace(HALFWAY, planned=True), True, Reason.PLANNED_COMPUTE),
        (CONFIG, PolicyState(9.0), replace(HALFWAY, planned=False), False, Reason.PLANNED_SKIP),
        (
            CONFIG,
            PolicyState(),
            replace(HALFWAY, planned=False, replayable=False),
            True,
            Reason.NOTHING_STORED,
        ),
        (CONFIG, PolicyState(), replace(HALFWAY, calibrating=True), True, Reason.CALIBRATING),
        (replace(CONFIG, start_percent=0.6), PolicyState(), HALFWAY, True, Reason.OUTSIDE_WINDOW),
        (replace(CONFIG, end_percent=0.4), PolicyState(), HALFWAY, True, Reason.OUTSIDE_WINDOW),
        (
            replace(CONFIG, compute_last=True),
            PolicyState(),
            replace(HALFWAY, is_last_step=True),
            True,
            Reason.LAST_STEP,
        ),
        (CONFIG, PolicyState(), replace(HALFWAY, is_last_step=True), False, Reason.BELOW_THRESHOLD),
        (replace(CONFIG, max_consecutive_skips=2), PolicyState(0.0, 2), HALFWAY, True, Reason.SKIP_LIMIT),
        (
            replace(CONFIG, max_consecutive_skips=2),
            PolicyState(0.0, 1),
            HALFWAY,
            False,
            Reason.BELOW_THRESHOLD,
        ),
    ],
)
def test_decisions(config, state, seen, compute, reason) -> None:
    decision, after = decide(config, config.rel_l1_thresh, state, seen)
    assert (decision.compute, decision.reason) == (compute, reason)
    if compute:
        assert after == PolicyState()
    else:
        assert after.consecutive_skips == state.consecutive_skips + 1
        assert after.accumulated == pytest.approx(state.accumulated + seen.change)
