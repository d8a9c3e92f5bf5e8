"""How strongly a net answers latents that are off is learned from the clips that are made."""

from __future__ import annotations

import json
import random
from dataclasses import replace

import pytest
import torch
from torch import Tensor

from teacache_core import Calibration, StepCache, StepCacheConfig
from teacache_core.feedback import MOST, STRENGTHS, disagreement, likeliest, shape
from teacache_core.multistep import Search
from teacache_core.step_cache import CORRECTS
from tests.helpers.toy_denoiser import flow_sigmas, sample
from tests.unit.cache.test_cache_schedule import curved_velocities, gram_of, linear_sigmas

GUIDANCE = 3.5
SIX = StepCacheConfig(target_speedup=3.3)


class Pulling:
    """A net with one run that it was made for; latents that are off it are pulled back."""

    branches = ("uncond", "cond")

    def __init__(self, strength: float) -> None:
        self.levels = flow_sigmas(20).tolist()
        self.velocities = curved_velocities(20).float()
        self.pull = strength * shape(self.levels, GUIDANCE).float()
        moved = torch.tensor(self.levels[:-1]) - torch.tensor(self.levels[1:])
        self.moved = -(moved[:, None] * self.velocities).cumsum(0)
        self.start = torch.zeros(0)

    def __call__(self, latents: Tensor, timestep: Tensor) -> dict[str, Tensor]:
        level = float(timestep) / 1000.0
        step = min(range(20), key=lambda index: abs(self.levels[index] - level))
        if step == 0:
            self.start = latents.clone()
        run = self.start if step == 0 else self.start + self.moved[step - 1]
        value = self.velocities[step] + self.pull[step] * (latents - run)
        return {"uncond": value, "cond": value.clone()}


def start(seed: int) -> Tensor:
    return torch.randn(4, 6, generator=torch.Generator().manual_seed(seed))


@pytest.fixture(scope="module")
def calibration() -> Calibration:
    cache = StepCache(StepCacheConfig(calibrate=True), guidance_scale=GUIDANCE)
    for clip in range(2):
        sample(cache, Pulling(1.0), start(clip), clip_index=clip)
    return cache.make_calibration()


@pytest.mark.parametrize("strength", [0.0, 0.5, 1.0, 2.0, 3.0])
def test_clips_show_it_and_the_next_ones_come_nearer(calibration: Calibration, strength: float) -> None:
    cache = StepCache(SIX, calibration, guidance_scale=GUIDANCE)
    distances: list[float] = []
    for clip in range(4):
        made = sample(cache, Pulling(strength), start(9), clip_index=clip)
        distances.append(float((made - sample(None, Pulling(strength), start(9))).norm()))
    assert cache.pull == pytest.approx(strength, abs=0.125)
    assert distances[-1] < max(distances[0] / 3, 0.015)
    assert (CORRECTS in cache.report.notes) == (cache.pull > 0.0)
    counts = [mask.count("1") for mask in cache.report.masks()]
    assert counts == [6] * 4, "no step more for what is understood"


@pytest.mark.parametrize("strength", [1.0, 0.0], ids=["pulls", "does not"])
def test_what_a_calibration_knows_holds_from_the_first_clip_on(
    calibration: Calibration, strength: float
) -> None:
    """And what is not so makes it worse by more than twice, so no strength can stand for all nets."""
    wanted = sample(None, Pulling(strength), start(9))
    distances = {
        pull: float((sample(cache, Pulling(strength), start(9)) - wanted).norm())
        for pull in (0.0, 1.0)
        for cache in [StepCache(SIX, replace(calibration, pull=pull), guidance_scale=GUIDANCE)]
    }
    assert distances.pop(strength) < min(distances.values()) / 2


def test_what_a_calibration_knows_no_clips_of_one_person_unlearn(calibration: Calibration) -> None:
    """One person's clips are no independent evidence: long videos would outweigh many people's."""
    cache = StepCache(SIX, replace(calibration, pull=1.0), guidance_scale=GUIDANCE)
    for clip in range(3):
        sample(cache, Pulling(3.0), start(9), clip_index=clip)
    assert cache.pull == 1.0 and CORRECTS not in cache.report.notes


def test_it_goes_on_in_another_process(calibration: Calibration) -> None:
    first, second = (StepCache(SIX, calibration, guidance_scale=GUIDANCE) for _ in range(2))
    sample(first, Pulling(1.0), start(1))
    second.take_up(json.loads(json.dumps(first.carry())))
    assert second.pull == first.pull > 0.0
    following = [sample(cache, Pulling(1.0), start(2), clip_index=1) for cache in (first, second)]
    assert torch.equal(*following)


def test_interrupts_a_cache_beside_it_and_other_processes_change_no_clip(calibration: Calibration) -> None:
    dice = random.Random(0)
    for _ in range(12):
        strength = dice.choice((0.0, 1.0, 3.0))
        cache, beside, undisturbed = (StepCache(SIX, calibration, guidance_scale=GUIDANCE) for _ in range(3))
        for clip in range(4):
            if dice.random() < 0.4:
                with pytest.raises(KeyboardInterrupt):
                    sample(cache, Pulling(3.0 - strength), start(50 + clip), 20, clip, dice.randrange(20))
            if dice.random() < 0.4:
                sample(beside, Pulling(3.0 - strength), start(90 + clip), clip_index=clip)
            if dice.random() < 0.4:
                carried, cache = cache.carry(), StepCache(SIX, calibration, guidance_scale=GUIDANCE)
                cache.take_up(json.loads(json.dumps(carried)))
            mine, theirs = (
                sample(each, Pulling(strength), start(clip), clip_index=clip) for each in (cache, undisturbed)
            )
            assert torch.equal(mine, theirs) and cache.pull == undisturbed.pull


def test_misses_of_a_plan_on_a_net_as_it_took_it_are_what_it_expected() -> None:
    gram, sigmas = gram_of(curved_velocities(20)), linear_sigmas(20)
    for pull in (0.0, 1.5):
        search = Search(gram, sigmas, SIX, pull=pull, guidance_scale=3.5)
        planned = search.plan(6)
        assert torch.allclose(search.misses(planned, pull), planned.errors, rtol=1e-6)
        assert (search.misses(planned, pull + 0.5)[2:] > planned.errors[2:]).all()


def grow(strength: float) -> Tensor:
    return torch.tensor([1.0, 1.0 + strength], dtype=torch.float64)


class Spoilt(Pulling):
    """One element of the last of six computed values is far off."""

    def __init__(self, by: float, dtype: torch.dtype) -> None:
        super().__init__(1.0)
        self.by, self.dtype, self.asked = by, dtype, 0

    def __call__(self, latents: Tensor, timestep: Tensor) -> dict[str, Tensor]:
        answer = super().__call__(latents, timestep)
        self.asked += 1
        if self.asked == 6:
            for value in answer.values():
                value[0, 0] += self.by
        return {branch: value.to(self.dtype) for branch, value in answer.items()}


@pytest.mark.parametrize(
    ("by", "dtype"), [(1e25, torch.float32), (300.0, torch.float16)], ids=["beyond", "half"]
)
def test_after_a_spoilt_clip_the_video_can_be_gone_on_with(
    calibration: Calibration, by: float, dtype: torch.dtype
) -> None:
    """What is carried has to be believed later, or finished clips of an unfinished video are made anew."""
    cache, other = (StepCache(SIX, calibration, guidance_scale=GUIDANCE) for _ in range(2))
    sample(cache, Pulling(1.0), start(1))
    sample(cache, Spoilt(by, dtype), start(2), clip_index=1)
    other.take_up(json.loads(json.dumps(cache.carry())))
    assert other.pull == cache.pull > 0.0
    assert not any("inf times" in note for note in cache.report.notes)


@pytest.mark.parametrize(
    "found",
    [[5.0], [0.0, 1.0], [1.0, float("nan")], [1.0, float("inf")]],
    ids=["one", "nothing", "broken", "endless"],
)
def test_misses_that_say_nothing_change_nothing(found: list[float]) -> None:
    shown = disagreement(torch.tensor(found, dtype=torch.float64), grow)
    assert shown == [0.0] * len(STRENGTHS) and likeliest(shown) == 0.0


def test_how_large_misses_are_is_the_clips_own_matter() -> None:
    assert disagreement(7 * grow(0.75), grow) == pytest.approx(disagreement(grow(0.75), grow))
    assert disagreement(grow(0.75), grow)[STRENGTHS.index(0.75)] == pytest.approx(0.0, abs=1e-12)


def test_many_clips_outweigh_the_doubt() -> None:
    one = disagreement(grow(2.0), grow)
    found = [likeliest([clips * cost for cost in one]) for clips in (1, 10, 1000)]
    assert 0.0 < found[0] < found[1] < found[2] == 2.0
    assert likeliest(disagreement(torch.tensor([1.0, 1e9], dtype=torch.float64), grow)) == MOST


def test_guidance_makes_a_net_answer_more_up_to_what_was_measured() -> None:
    sigmas = linear_sigmas(20)
    assert torch.equal(shape(sigmas, None), shape(sigmas, 1.0)) and (shape(sigmas, 1.0) >= 0).all()
    assert (shape(sigmas, 3.5) > shape(sigmas, 1.5)).all()
    assert torch.equal(shape(sigmas, 20.0), shape(sigmas, 3.5))
