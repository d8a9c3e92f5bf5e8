"""Calibrated weights in a clip: what they are worth, and what happens where they do not fit."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

import teacache_core.step_cache
from teacache_core import CacheSettings, Calibration, CalibrationError, StepCache, StepCacheConfig
from teacache_core.forecast import Line, Table
from teacache_core.plan import ClipPlan, Setting, misfit, plan_clip
from tests.helpers.toy_denoiser import SmoothDenoiser, flow_sigmas, sample

GUIDANCE = 2.0  # what `sample` guides with
SKIPPING = StepCacheConfig(target_speedup=3.3)
WEIGHTS, LINE = "calibrated weights of all computed ones", "the line through the last two computed ones"


def noise(seed: int) -> Tensor:
    return torch.randn(4, 8, generator=torch.Generator().manual_seed(seed))


@pytest.fixture(scope="module")
def calibration() -> Calibration:
    """Of two clips in full."""
    cache = StepCache(StepCacheConfig(calibrate=True), guidance_scale=GUIDANCE)
    for clip in range(2):
        sample(cache, SmoothDenoiser(), noise(clip), clip_index=clip)
    return cache.make_calibration()


def error(cache: StepCache, reference: Tensor, seed: int) -> float:
    return float((sample(cache, SmoothDenoiser(), noise(seed)) - reference).norm())


def test_weights_are_nearer_to_all_steps_than_the_line_at_equal_cost(calibration: Calibration) -> None:
    for seed in range(10, 14):
        reference = sample(None, SmoothDenoiser(), noise(seed))
        caches = [
            StepCache(replace(SKIPPING, on_skip=on_skip), calibration, guidance_scale=GUIDANCE)
            for on_skip in ("forecast", "line", "reuse")
        ]
        weights, line, reuse = (error(cache, reference, seed) for cache in caches)
        assert weights < line / 4 < reuse / 20
        assert [cache.report.totals().computed for cache in caches] == [6, 6, 6]


def test_the_converged_target_is_nearer_to_many_steps_than_all_steps_are(calibration: Calibration) -> None:
    for seed in range(10, 14):
        many, twenty = (sample(None, SmoothDenoiser(), noise(seed), steps=steps) for steps in (400, 20))
        config = replace(SKIPPING, target="converged")
        cache = StepCache(config, calibration, guidance_scale=GUIDANCE)
        assert error(cache, many, seed) < float((twenty - many).norm()) / 3
        assert cache.report.totals().computed == 6


def test_the_converged_target_without_weights_is_a_second_order_solver() -> None:
    many, twenty = (sample(None, SmoothDenoiser(), noise(0), steps=steps) for steps in (400, 20))
    for config in (
        StepCacheConfig(step_mask="1", target="converged"),
        StepCacheConfig(step_mask="1110", target="converged", on_skip="line"),
    ):
        assert error(StepCache(config), many, 0) < float((twenty - many).norm()) / 3


def test_the_first_clip_teaches_weights_that_hold_for_the_next_ones() -> None:
    cache = StepCache(SKIPPING, guidance_scale=GUIDANCE)
    sample(cache, SmoothDenoiser(), noise(0))
    reference = sample(None, SmoothDenoiser(), noise(1))
    learned = float((sample(cache, SmoothDenoiser(), noise(1), clip_index=1) - reference).norm())
    assert cache.report.masks()[0] == "1" * 20 and cache.report.masks()[1].count("1") == 6
    line = StepCache(replace(SKIPPING, on_skip="line"), guidance_scale=GUIDANCE)
    sample(line, SmoothDenoiser(), noise(0))
    assert learned < float((sample(line, SmoothDenoiser(), noise(1), clip_index=1) - reference).norm()) / 1.5
    assert WEIGHTS in cache.report.to_text()


@pytest.mark.parametrize(
    ("steps", "euler", "guidance", "reason"),
    [
        (30, True, GUIDANCE, "the calibration has 20 steps and this video 30"),
        (20, False, GUIDANCE, "the sampler is not euler"),
        (20, True, 3.5, "the calibration's guidance is 2 and this video's 3.5"),
        (20, True, None, "the calibration's guidance is 2 and this video's not known"),
    ],
    ids=["steps", "sampler", "guidance", "guidance unknown"],
)
def test_where_a_calibration_does_not_fit_the_line_answers_and_the_report_says_why(
    calibration: Calibration, steps: int, euler: bool, guidance: float | None, reason: str
) -> None:
    cache = StepCache(SKIPPING, calibration, guidance_scale=guidance)
    net, sigmas = SmoothDenoiser(), flow_sigmas(steps)
    with cache.wrap(net, sigmas, 0, euler=euler) as cached:
        for sigma in sigmas[:-1]:
            cached(noise(0), sigma * 1000)
    assert cache.report.totals().computed == int(steps / 3.3)
    assert f"{LINE}, because {reason}." in cache.report.to_text()


def test_other_noise_levels_do_not_fit(calibration: Calibration) -> None:
    shifted = tuple(3 * sigma / (1 + 2 * sigma) for sigma in flow_sigmas(20).tolist())
    assert "noise levels" in str(misfit(calibration, Setting(shifted, GUIDANCE)))
    assert misfit(calibration, Setting(tuple(flow_sigmas(20).tolist()), GUIDANCE)) is None


def test_a_file_of_the_second_version_is_read_and_knows_of_no_pull(calibration: Calibration) -> None:
    values = replace(calibration, pull=1.0).to_json() | {"version": 2}
    del values["pull"]
    assert Calibration.from_json(values) == replace(calibration, pull=None)


def test_a_file_of_the_first_version_is_read_and_its_guidance_is_not_known(calibration: Calibration) -> None:
    values = calibration.to_json() | {"version": 1}
    del values["guidance_scale"]
    old = Calibration.from_json(values)
    assert old == replace(calibration, guidance_scale=None)
    plan = plan_clip(SKIPPING, old, Setting(tuple(flow_sigmas(20).tolist()), GUIDANCE))
    assert isinstance(plan.forecaster, Line) and "guidance is not known" in plan.note


def test_a_clip_that_starts_over_leaves_the_table_to_the_line(calibration: Calibration) -> None:
    """Another shape in mid-clip: what is stored is not the schedule's any more, and answers stay finite."""
    cache, net = StepCache(SKIPPING, calibration, guidance_scale=GUIDANCE), SmoothDenoiser()
    sigmas = flow_sigmas(20)
    with cache.wrap(net, sigmas, 0) as cached:
        for step, sigma in enumerate(sigmas[:-1]):
            found = cached(torch.ones(4 if step < 7 else 3, 8), sigma * 1000)["cond"]
            assert found.shape[0] == (4 if step < 7 else 3) and torch.isfinite(found).all()
    assert "nothing stored yet" in [record.reason for record in cache.report.records[7:]]


class Wild(SmoothDenoiser):
    """A field that turns faster along the noise levels than the one that was calibrated."""

    def __init__(self) -> None:
        super().__init__(bend=2.5)


def test_clips_farther_from_the_calibration_make_the_next_ones_compute_more(calibration: Calibration) -> None:
    cache = StepCache(SKIPPING, calibration, guidance_scale=GUIDANCE)
    for clip, net in enumerate((SmoothDenoiser(), Wild(), SmoothDenoiser(), SmoothDenoiser())):
        sample(cache, net, noise(20 + clip), clip_index=clip)
    counts = [mask.count("1") for mask in cache.report.masks()]
    assert counts[0] == counts[1] == 6 and counts[2] > 6 and counts[3] == 6
    more, less = [note for note in cache.report.notes if "from the calibration's forecasts" in note]
    assert more.startswith("Clip 1 was ") and f"compute {counts[2]} of 20 steps" in more
    assert less.startswith("Clip 2 was ") and "compute 6 of 20 steps" in less


@pytest.mark.parametrize("speedup", [1.5, 2.0, 2.5, 3.3, 4.0])
@pytest.mark.parametrize("target", ["same", "converged"])
def test_after_one_wild_clip_calm_ones_are_computed_as_asked_again(
    calibration: Calibration, speedup: float, target: Any
) -> None:
    config = StepCacheConfig(target_speedup=speedup, target=target)
    cache = StepCache(config, calibration, guidance_scale=GUIDANCE)
    for clip, net in enumerate((SmoothDenoiser(), Wild(), *[SmoothDenoiser()] * 3)):
        sample(cache, net, noise(20 + clip), clip_index=clip)
    counts = [mask.count("1") for mask in cache.report.masks()]
    assert counts[0] < counts[2] < 20 and counts[-1] == counts[0]


def test_no_plan_is_searched_for_twice_however_wild_the_clips(
    calibration: Calibration, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A search takes up to a second, and each wild clip asks for several plans."""
    asked: list[tuple[int, float]] = []

    def counted(*setting: Any, more_steps: int, pull: float) -> ClipPlan:
        asked.append((more_steps, pull))
        return plan_clip(*setting, more_steps=more_steps, pull=pull)

    monkeypatch.setattr(teacache_core.step_cache, "plan_clip", counted)
    cache = StepCache(SKIPPING, calibration, guidance_scale=GUIDANCE)
    for clip, net in enumerate((Wild(), Wild(), SmoothDenoiser(), Wild())):
        sample(cache, net, noise(20 + clip), clip_index=clip)
    assert max(asked) > (0, 0.0) and len(asked) == len(set(asked))


def test_a_broken_clip_changes_no_later_one(calibration: Calibration) -> None:
    cache = StepCache(SKIPPING, calibration, guidance_scale=GUIDANCE)
    with pytest.raises(KeyboardInterrupt):
        sample(cache, Wild(), noise(0), stop_at=15)
    sample(cache, SmoothDenoiser(), noise(1), clip_index=1)
    assert cache.report.masks()[1].count("1") == 6


def test_a_video_goes_on_in_another_process_as_if_it_had_not_been_stopped(calibration: Calibration) -> None:
    nets = (SmoothDenoiser(), Wild(), SmoothDenoiser())
    whole, first = (StepCache(SKIPPING, calibration, guidance_scale=GUIDANCE) for _ in range(2))
    expected = [sample(whole, net, noise(clip), clip_index=clip) for clip, net in enumerate(nets)]
    for clip in range(2):
        sample(first, nets[clip], noise(clip), clip_index=clip)
    second = StepCache(SKIPPING, guidance_scale=GUIDANCE)
    second.take_up(json.loads(json.dumps(first.carry())))
    assert torch.equal(sample(second, nets[2], noise(2), clip_index=2), expected[2])
    assert second.report.masks()[0].count("1") > 6


UNKNOWN = {"calibration": None, "more_steps": 0}


@pytest.mark.parametrize(
    "carried",
    [None, [], {"calibration": None}, {"calibration": {}, "more_steps": 0}]
    + [UNKNOWN | {"evidence": evidence} for evidence in (None, 1.0, [0.0], ["1"] * 25, [float("nan")] * 25)],
)
def test_what_nobody_carried_is_refused(carried: object) -> None:
    with pytest.raises(CalibrationError):
        StepCache(SKIPPING).take_up(carried)


def test_a_front_doors_threshold_without_a_calibration_learns_from_the_first_clip() -> None:
    cache = CacheSettings(StepCacheConfig(rel_l1_thresh=0.25)).start(None, GUIDANCE)
    for clip in range(2):
        sample(cache, SmoothDenoiser(), noise(clip), clip_index=clip)
    first, second = cache.report.masks()
    assert "0" not in first and "0" in second


def test_the_demos_calibration_gives_weights_at_its_guidance() -> None:
    known = Calibration.load("demo/checkpoint/calibration.json")
    setting = Setting((*known.sigmas, 0.0), 1.5)
    plan = plan_clip(StepCacheConfig(target_speedup=3.3), known, setting)
    assert isinstance(plan.forecaster, Table) and plan.schedule is not None and plan.schedule.count("1") == 6
