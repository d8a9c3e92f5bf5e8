"""The cache on toy denoisers: every decision and every arithmetic shows in a scalar."""

import gc
import weakref

import pytest
import torch

from teacache_core import Calibration, ClipCache, StepCache, StepCacheConfig
from teacache_core.calibration.rescale import PUBLISHED_TABLE, count_computed
from teacache_core.forecast import Line
from teacache_core.plan import ClipPlan
from tests.helpers.toy_denoiser import SmoothDenoiser, ToyDenoiser, flow_sigmas, sample

SIGMAS = [0.9, 0.8, 0.7, 0.6, 0.5, 0.0]


def scalar(value: float) -> torch.Tensor:
    return torch.full((1, 1), value)


def mask_clip(mask: str, *, reuse: bool = False) -> ClipCache:
    return ClipCache(StepCacheConfig(step_mask=mask), ClipPlan(Line(reuse), mask=mask), SIGMAS)


def call(denoiser, value: float, sigma: float) -> list[float]:
    velocities = denoiser(scalar(value), torch.tensor(sigma * 1000.0))
    return [velocities[branch].item() for branch in velocities]


@pytest.mark.parametrize(
    ("settings", "inputs", "mask", "outputs"),
    [
        ({"stored": "residual", "on_skip": "reuse"}, (10, 11), "10", (40, 41)),
        ({"stored": "residual", "on_skip": "reuse"}, (10, 11), "11", (40, 44)),
        ({"stored": "velocity", "on_skip": "reuse"}, (10, 11), "10", (40, 40)),
        ({"stored": "velocity", "on_skip": "reuse"}, (10, 11), "11", (40, 44)),
        ({"stored": "velocity", "on_skip": "line"}, (10, 11, 90), "110", (40, 44, 48)),
        ({"stored": "residual", "on_skip": "line"}, (10, 11, 90), "110", (40, 44, 90 + 36)),
        ({"stored": "velocity", "on_skip": "line"}, (10, 11, 0, 0), "1100", (40, 44, 48, 52)),
        ({"stored": "velocity", "on_skip": "line"}, (10, 0, 12, 0), "1010", (40, 40, 48, 52)),
        ({"stored": "velocity", "on_skip": "line"}, (10, 0), "00", (40, 40)),
    ],
)
def test_computed_and_skipped_steps_give_different_scalars(settings, inputs, mask, outputs) -> None:
    net = ToyDenoiser(branches=("cond",))
    cache = StepCache(StepCacheConfig(step_mask=mask, **settings))
    with cache.wrap(net, SIGMAS, 0) as cached:
        found = [call(cached, value, sigma)[0] for value, sigma in zip(inputs, SIGMAS, strict=False)]
    assert found == pytest.approx(outputs, rel=1e-5)
    assert net.computed == max(1, mask.count("1"))


def test_the_signal_decides_and_is_remembered_from_skipped_steps_too() -> None:
    """Inputs 10, 11, 12.1, ...: each changes by 10 %. Threshold 0.25: skip, skip, compute."""
    net = ToyDenoiser()
    cache = StepCache(StepCacheConfig(rel_l1_thresh=0.25, on_skip="reuse"))
    with cache.wrap(net, SIGMAS, 0) as cached:
        found = [call(cached, 10 * 1.1**index, sigma)[0] for index, sigma in enumerate(SIGMAS[:-1])]
    assert cache.report.masks() == ("10010",)
    assert found == pytest.approx([40, 40, 40, 40 * 1.1**3, 40 * 1.1**3], rel=1e-5)
    records = cache.report.records
    assert [record.rel_l1 for record in records] == [None, *[pytest.approx(0.1, rel=1e-4)] * 4]
    assert [record.accumulated_rel_l1 for record in records[1:]] == pytest.approx(
        [0.1, 0.2, 0.3, 0.1], rel=1e-4
    )


def test_threshold_zero_is_the_denoiser_itself() -> None:
    net = SmoothDenoiser()
    cache = StepCache(StepCacheConfig())
    with cache.wrap(net, flow_sigmas(20), 0) as cached:
        assert cached is net
    latents = torch.randn(4, 8)
    assert torch.equal(sample(cache, net, latents), sample(None, net, latents))
    assert cache.report.records == []


def test_a_cache_that_never_skips_is_bit_identical() -> None:
    net, latents = SmoothDenoiser(), torch.randn(4, 8)
    plain = sample(None, net, latents)
    for config in (
        StepCacheConfig(step_mask="1"),
        StepCacheConfig(calibrate=True),
        StepCacheConfig(rel_l1_thresh=1e-9),
        StepCacheConfig(rel_l1_thresh=9.0, start_percent=1.0),
        StepCacheConfig(target_speedup=1.0),
    ):
        assert torch.equal(sample(StepCache(config), net, latents), plain)


def test_cached_tensors_are_copies_and_what_is_returned_is_the_callers() -> None:
    clip = mask_clip("1000", reuse=True)
    given = torch.ones(3)
    with clip.evaluation(0.9, like=given, branches=["a"]):
        clip.store("a", given)
    given += 5
    for sigma in (0.8, 0.7):
        with clip.evaluation(sigma, like=given, branches=["a"]):
            replayed = clip.replay("a")
        assert replayed.tolist() == [1, 1, 1]
        replayed += 7


def test_latents_are_never_changed_in_place() -> None:
    net, latents = SmoothDenoiser(), torch.randn(4, 8)
    before = latents.clone()
    sample(StepCache(StepCacheConfig(rel_l1_thresh=0.3)), net, latents)
    sample(StepCache(StepCacheConfig(target_speedup=2.0)), net, latents)
    assert torch.equal(latents, before)


@pytest.mark.parametrize("apart", [False, True], ids=["together", "apart"])
@pytest.mark.parametrize("order", [("cond", "uncond"), ("uncond", "cond")])
def test_one_decision_rules_all_branches_in_any_order_and_split(order, apart: bool) -> None:
    """A host's two calls: decide once, then store or replay per branch."""

    def drive(order: tuple[str, ...], apart: bool) -> tuple[list[torch.Tensor], str]:
        net, cache = SmoothDenoiser(seed=3), StepCache(StepCacheConfig(rel_l1_thresh=0.2))
        latents, sigmas, found = torch.ones(2, 8), flow_sigmas(20), []
        with cache.clip(sigmas) as clip:
            for index, sigma in enumerate(sigmas[:-1].tolist()):
                timestep = torch.tensor(sigma * 1000)
                signal = lambda: net.modulated_input(latents, timestep)  # noqa: B023, E731
                with clip.evaluation(sigma, like=latents, branches=order, signal=signal) as decision:
                    velocity = {}
                    for part in [[branch] for branch in order] if apart else [order]:
                        whole = net(latents, timestep) if decision.compute else {}
                        for branch in part:
                            if decision.compute:
                                clip.store(branch, whole[branch])
                            velocity[branch] = whole[branch] if decision.compute else clip.replay(branch)
                found.append(velocity["cond"])
                latents = latents + (sigmas[index + 1] - sigmas[index]) * velocity["cond"]
        return found, cache.report.masks()[0]

    expected, expected_mask = drive(("uncond", "cond"), False)
    found, mask = drive(order, apart)
    assert mask == expected_mask and "0" in mask
    assert all(torch.equal(x, y) for x, y in zip(found, expected, strict=True))


def test_branches_have_stores_of_their_own() -> None:
    net = ToyDenoiser()
    with StepCache(StepCacheConfig(step_mask="10", on_skip="reuse")).wrap(net, SIGMAS, 0) as cached:
        assert call(cached, 10, 0.9) == [40, 80]
        assert call(cached, 11, 0.8) == [40, 80]


@pytest.mark.parametrize(
    ("change", "sigma"),
    [
        ({"shape": (2, 3)}, 0.7),
        ({"dtype": torch.float64}, 0.7),
        ({"branches": ("a",)}, 0.7),
        ({"branches": ("a", "b", "c")}, 0.7),
        ({}, 0.95),
        ({}, 0.7),
    ],
    ids=["shape", "dtype", "branch gone", "branch new", "timestep up", "nothing"],
)
def test_a_changed_layout_or_a_timestep_that_goes_up_starts_from_unknown(change: dict, sigma: float) -> None:
    clip = ClipCache(StepCacheConfig(rel_l1_thresh=9.0), ClipPlan(threshold=9.0), [1.0, *SIGMAS])

    def evaluate(sigma: float, shape=(1, 3), dtype=torch.float32, branches=("a", "b")) -> bool:
        like = torch.ones(shape, dtype=dtype)
        with clip.evaluation(sigma, like=like, branches=branches, signal=like.clone) as decision:
            for branch in branches:
                if decision.compute:
                    clip.store(branch, like)
                else:
                    assert clip.replay(branch).shape == like.shape
        return decision.compute

    assert [evaluate(0.9), evaluate(0.8)] == [True, False]
    assert evaluate(sigma, **change) is (bool(change) or sigma > 0.8)
    assert evaluate(0.65, **change) is False  # and it goes on from there


def test_a_reset_forgets_what_was_accumulated() -> None:
    """Unknown is not zero: after a reset nothing may be skipped until something was computed."""
    clip = ClipCache(StepCacheConfig(rel_l1_thresh=0.5), ClipPlan(threshold=0.5), [1.0, *SIGMAS])
    for sigma, like in ((0.9, torch.ones(2)), (0.8, torch.ones(2)), (0.7, torch.ones(3))):
        with clip.evaluation(sigma, like=like, branches=["a"], signal=like.clone) as decision:
            if decision.compute:
                clip.store("a", like)
    records = clip.finish().records
    assert [record.computed for record in records] == [True, False, True]
    assert records[2].rel_l1 is None and records[2].reason == "nothing stored yet"


def test_samplers_that_evaluate_twice_a_step_are_counted_right() -> None:
    """Heun on a schedule mask: both evaluations at one noise level obey it, and the report counts both."""
    net, sigmas = SmoothDenoiser(), flow_sigmas(10)
    cache = StepCache(StepCacheConfig(target_speedup=2.0))

    def heun(denoise, latents):
        for index in range(10):
            gap = sigmas[index + 1] - sigmas[index]
            first = denoise(latents, sigmas[index] * 1000)["cond"]
            if index == 9:
                return latents + gap * first
            second = denoise(latents + gap * first, sigmas[index + 1] * 1000)["cond"]
            latents = latents + gap * (first + second) / 2
        return latents

    for clip in range(2):
        with cache.wrap(net, sigmas, clip) as cached:
            heun(cached, torch.ones(1, 8))
    taught, used = cache.report.clips().values()
    assert (len(taught), len(used)) == (19, 19)
    assert all(record.computed for record in taught)
    levels = {record.step: record.computed for record in used}
    assert sum(levels.values()) == 5
    assert all(record.computed == levels[record.step] for record in used)
    assert [record.step for record in used[:5]] == [0, 1, 1, 2, 2]


def test_the_first_clip_teaches_a_schedule_and_the_rest_use_it() -> None:
    net = SmoothDenoiser()
    cache = StepCache(StepCacheConfig(target_speedup=2.0), guidance_scale=2.0)
    for clip in range(3):
        sample(cache, net, torch.randn(4, 8), clip_index=clip)
    masks = cache.report.masks()
    assert masks[0] == "1" * 20
    assert masks[1] == masks[2] and masks[1].count("1") == 10
    assert net.computed == 40
    assert "learned from clip 0" in cache.report.calibration
    assert not any(record.rel_l1 for record in cache.report.clips()[1]), "a known schedule needs no signal"


def test_a_known_schedule_never_asks_for_the_signal() -> None:
    net = ToyDenoiser()
    for config in (StepCacheConfig(step_mask="101"), StepCacheConfig(step_mask="1")):
        with StepCache(config).wrap(net, SIGMAS, 0) as cached:
            for sigma in SIGMAS[:-1]:
                call(cached, 1.0, sigma)
    assert net.watched == 0


def test_a_run_cut_short_teaches_nothing() -> None:
    net, cache = SmoothDenoiser(), StepCache(StepCacheConfig(target_speedup=2.0))
    with pytest.raises(KeyboardInterrupt):
        sample(cache, net, torch.ones(1, 8), stop_at=7)
    assert cache.calibration is None
    assert len(cache.report.records) == 7
    sample(cache, net, torch.ones(1, 8), clip_index=1)
    assert cache.calibration is not None


def test_a_clip_of_nan_teaches_nothing_and_the_report_says_so() -> None:
    cache = StepCache(StepCacheConfig(target_speedup=2.0))
    sample(cache, SmoothDenoiser(), torch.full((1, 8), float("nan")))
    assert cache.calibration is None
    assert "taught nothing" in cache.report.notes[0]


def test_recording_a_video_gives_a_calibration_that_works_at_other_step_counts() -> None:
    net, cache = SmoothDenoiser(), StepCache(StepCacheConfig(calibrate=True))
    for clip in range(2):
        sample(cache, net, torch.randn(4, 8), clip_index=clip)
    calibration = Calibration.from_json(cache.make_calibration().to_json())
    assert len(calibration.recordings) == 2
    for steps, computed in ((20, 10), (30, 15), (12, 6)):
        planned = StepCache(StepCacheConfig(target_speedup=2.0), calibration)
        sample(planned, net, torch.randn(4, 8), steps=steps)
        assert planned.report.totals().computed == computed
        adaptive = StepCache(StepCacheConfig(rel_l1_thresh=0.15), calibration)
        sample(adaptive, net, torch.randn(4, 8), steps=steps)
        assert adaptive.report.totals().speedup == pytest.approx(2.0, rel=0.25)


def test_any_run_can_be_replayed_from_its_report() -> None:
    net, cache = SmoothDenoiser(), StepCache(StepCacheConfig(rel_l1_thresh=0.15, calibrate_online=True))
    noise = [torch.randn(4, 8) for _ in range(3)]
    videos = [sample(cache, net, latents, clip_index=clip) for clip, latents in enumerate(noise)]
    assert len(set(cache.report.masks())) > 1
    again = StepCache(StepCacheConfig(step_mask=cache.report.masks()))
    for clip, latents in enumerate(noise):
        assert torch.equal(sample(again, net, latents, clip_index=clip), videos[clip])
    assert again.report.masks() == cache.report.masks()


@pytest.mark.parametrize("compute_last", [False, True])
@pytest.mark.parametrize("threshold", [threshold for threshold, _ in PUBLISHED_TABLE])
def test_a_run_computes_what_its_calibration_counted(threshold: float, compute_last: bool) -> None:
    net, recorder = SmoothDenoiser(), StepCache(StepCacheConfig(calibrate=True))
    net.weight.zero_()  # a signal of the timestep alone: skipped steps do not change it
    sample(recorder, net, torch.randn(1, 4, 8, generator=torch.Generator().manual_seed(0)))
    calibration = recorder.make_calibration()
    effective = calibration.effective_threshold(threshold, compute_last=compute_last)
    counted = count_computed(calibration.increments[0], effective, compute_last=compute_last)
    cache = StepCache(StepCacheConfig(rel_l1_thresh=threshold, compute_last=compute_last), calibration)
    sample(cache, net, torch.randn(1, 4, 8, generator=torch.Generator().manual_seed(1)))
    assert cache.report.totals().computed == counted < 20
    assert cache.report.masks()[0].endswith("1") or not compute_last


def test_a_threshold_without_a_calibration_says_that_it_has_no_fixed_meaning() -> None:
    assert "no fixed meaning" in StepCache(StepCacheConfig(rel_l1_thresh=0.1)).report.notes[0]
    assert StepCache(StepCacheConfig(rel_l1_thresh=0.1, calibrate_online=True)).report.notes == []


def test_an_output_only_denoiser_can_be_cached() -> None:
    class OutputOnly:
        branches = ("cond", "uncond")

        def __call__(self, latents, timestep):
            return dict.fromkeys(self.branches, latents * 2)

    cache = StepCache(StepCacheConfig(rel_l1_thresh=0.5))
    sample(cache, OutputOnly(), torch.ones(1, 8))
    assert 1 < cache.report.totals().computed < 20


def stored_tensors(clip: ClipCache) -> list[weakref.ref]:
    tensors = [tensor for branch in clip._state.branches.values() for tensor in branch.values]
    tensors += [] if clip._state.signal is None else [clip._state.signal]
    if clip._recorder is not None:
        tensors += [value for step in clip._recorder._outputs.values() for value in step.values()]
    return [weakref.ref(tensor) for tensor in tensors]


@pytest.mark.parametrize(
    "config",
    [StepCacheConfig(rel_l1_thresh=0.3), StepCacheConfig(calibrate=True), StepCacheConfig(step_mask="1101")],
    ids=lambda config: config.mode,
)
@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt, None])
def test_nothing_outlives_a_clip_however_it_ends(config, error) -> None:
    net, cache = SmoothDenoiser(), StepCache(config)
    held: list[weakref.ref] = []
    kept = None
    try:
        with cache.wrap(net, flow_sigmas(20), 0) as cached:
            for sigma in flow_sigmas(20)[:7]:
                cached(torch.randn(2, 8), sigma * 1000)
            held = stored_tensors(cached.clip)
            if error:
                raise error
    except BaseException as caught:
        kept = caught  # even a kept traceback keeps no tensor
    gc.collect()
    assert len(held) >= 4
    assert not any(reference() is not None for reference in held)
    assert (kept is None) is (error is None)
    with pytest.raises(RuntimeError, match="after its end"):
        cached(torch.randn(2, 8), torch.tensor(500.0))


def test_an_exception_in_the_net_forgets_the_state_and_a_retry_computes() -> None:
    clip = mask_clip("10")
    with clip.evaluation(0.9, like=torch.ones(1), branches=["a"]):
        clip.store("a", torch.ones(1))
    held = weakref.ref(clip._state.branches["a"].values[-1])
    with pytest.raises(ValueError), clip.evaluation(0.8, like=torch.ones(1), branches=["a"]):
        raise ValueError
    assert held() is None and not clip._state.branches
    with clip.evaluation(0.8, like=torch.ones(1), branches=["a"]) as decision:
        assert decision.compute
        clip.store("a", torch.ones(1))


def test_store_and_replay_outside_an_evaluation_are_refused() -> None:
    with pytest.raises(RuntimeError, match="inside an evaluation"):
        mask_clip("1").store("a", torch.ones(1))


def test_interleaved_runs_do_not_see_each_other() -> None:
    net = SmoothDenoiser()
    noise = [torch.randn(2, 8) for _ in range(2)]
    config = StepCacheConfig(rel_l1_thresh=0.3)
    alone = [sample(StepCache(config), net, latents) for latents in noise]
    sigmas = flow_sigmas(20)
    caches = [StepCache(config) for _ in noise]
    with caches[0].wrap(net, sigmas, 0) as first, caches[1].wrap(net, sigmas, 0) as second:
        latents = list(noise)
        for step in range(20):
            for index, denoise in enumerate((first, second)):
                v = denoise(latents[index], sigmas[step] * 1000)
                guided = v["uncond"] + 2.0 * (v["cond"] - v["uncond"])
                latents[index] = latents[index] + (sigmas[step + 1] - sigmas[step]) * guided
    assert all(torch.equal(x, y) for x, y in zip(latents, alone, strict=True))
