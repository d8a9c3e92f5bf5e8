"""Whatever was run before, a run gives what it gives in a process that has run nothing else."""

from __future__ import annotations

import multiprocessing
import os
import random
from dataclasses import dataclass

import pytest
import torch
from torch import Tensor

from teacache_core import StepCache, StepCacheConfig
from tests.helpers.toy_denoiser import SmoothDenoiser, sample

SEQUENCES = 200
NET_SEED = 5
SETTINGS = (
    StepCacheConfig(),
    StepCacheConfig(rel_l1_thresh=0.1),
    StepCacheConfig(rel_l1_thresh=0.4, on_skip="reuse", max_consecutive_skips=2),
    StepCacheConfig(rel_l1_thresh=0.2, start_percent=0.2, end_percent=0.9, compute_last=True),
    StepCacheConfig(rel_l1_thresh=0.3, target="converged"),
    StepCacheConfig(step_mask="1101001", on_skip="reuse"),
    StepCacheConfig(step_mask=("10", "1100110")),
)


@dataclass(frozen=True)
class Job:
    """One run: which settings, what it samples, and before which step it is interrupted."""

    settings: int
    steps: int
    rows: int
    dtype: torch.dtype
    seed: int
    clip: int
    stop_at: int | None

    @classmethod
    def draw(cls, dice: random.Random, seed: int, clip: int) -> Job:
        steps = dice.choice((3, 5, 8))
        stop_at = dice.randrange(steps) if dice.random() < 0.3 else None
        dtype = dice.choice((torch.float32, torch.float64))
        return cls(dice.randrange(len(SETTINGS)), steps, dice.randint(1, 3), dtype, seed, clip, stop_at)

    def run(self, cache: StepCache, net: SmoothDenoiser) -> Tensor:
        latents = torch.randn(self.rows, 8, generator=torch.Generator().manual_seed(self.seed))
        return sample(cache, net, latents.to(self.dtype), self.steps, self.clip, self.stop_at)


def run_afresh(job: Job) -> list[list[float]]:
    """What a process gives that does nothing but this."""
    return job.run(StepCache(SETTINGS[job.settings]), SmoothDenoiser(seed=NET_SEED)).tolist()


@pytest.mark.slow
@pytest.mark.skipif(
    not hasattr(os, "fork"), reason="a process per run is only quick where the system can fork"
)
def test_200_random_sequences_equal_fresh_processes() -> None:
    """One net for all, caches that live for a sequence, any history of settings, shapes and interrupts."""
    dice, net = random.Random(0), SmoothDenoiser(seed=NET_SEED)
    found: list[tuple[Job, list[list[float]]]] = []
    for sequence in range(SEQUENCES):
        caches = [StepCache(config) for config in SETTINGS]
        for clip in range(dice.randint(1, 4)):
            job = Job.draw(dice, sequence * 10 + clip, clip)
            if job.stop_at is None:
                found.append((job, job.run(caches[job.settings], net).tolist()))
                continue
            with pytest.raises(KeyboardInterrupt):
                job.run(caches[job.settings], net)
    context = multiprocessing.get_context("forkserver")  # its children come from a process that ran nothing
    context.set_forkserver_preload([__name__])
    with context.Pool(2, maxtasksperchild=1) as pool:
        fresh = pool.map(run_afresh, [job for job, _ in found], chunksize=1)
    assert len(found) > SEQUENCES
    different = [job for (job, mine), theirs in zip(found, fresh, strict=True) if mine != theirs]
    assert not different
