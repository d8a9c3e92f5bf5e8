"""The drop-in on upstream's own package, and the same decisions by our own net.

Runs when MEMO_UPSTREAM_PATH names a checkout of memoavatar/memo; MEMO_UPSTREAM_PYTHON is the interpreter
that has its dependencies (diffusers 0.31, transformers 4.46, einops), by default this one.
"""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

ROOT = Path(__file__).resolve().parents[2]
UPSTREAM = os.environ.get("MEMO_UPSTREAM_PATH")

pytestmark = [
    pytest.mark.skipif(UPSTREAM is None, reason="no upstream checkout (set MEMO_UPSTREAM_PATH)"),
    pytest.mark.timeout(1800),
]


@pytest.fixture(scope="module")
def facts(tmp_path_factory: pytest.TempPathFactory) -> dict:
    out = tmp_path_factory.mktemp("upstream") / "facts.json"
    python = os.environ.get("MEMO_UPSTREAM_PYTHON", sys.executable)
    script = ROOT / "tests" / "helpers" / "reference" / "upstream_cache.py"
    command = [python, script, UPSTREAM, ROOT / "tests" / "goldens" / "micro", out]
    done = subprocess.run([str(part) for part in command], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    return json.loads(out.read_text())


@pytest.mark.parametrize(
    "fact",
    [
        "zero_attaches_nothing",
        "never_skipping_identical",
        "twin_untouched",
        "finite",
        "changed",
        "removed_leaves_nothing",
        "removed_identical",
        "memory_identical",
        "script_zero_identical",
        "script_first_clip_identical",
        "script_memory_identical",
    ],
)
def test_upstream_with_the_cache(facts: dict, fact: str) -> None:
    assert facts[fact] is True


def test_skipped_steps_of_upstream_really_skip(facts: dict) -> None:
    computed = sum(mask.count("1") for mask in facts["masks"])
    assert facts["cached_calls"] == computed
    assert computed < facts["steps"] * len(facts["masks"])
    assert facts["plain_calls"] == facts["steps"] * 2
    assert all(mask.startswith("1") for mask in facts["masks"])


def test_the_original_scripts_interface_skips_after_the_first_clip(facts: dict) -> None:
    first, *others = facts["script_masks"]
    assert first == "1" * facts["steps"]
    assert all(mask.startswith("1") and "0" in mask for mask in others)
    assert facts["script_calls"] == sum(mask.count("1") for mask in facts["script_masks"])


def test_our_net_makes_the_same_decisions(facts: dict, goldens: Path) -> None:
    from memo_avatar.clips.loop import generate_clips
    from memo_avatar.clips.values import SamplingSettings
    from teacache_core import StepCache, StepCacheConfig
    from tests.helpers.memo_case import load_case

    case = load_case(goldens / "micro", clips=len(facts["masks"]))
    cache = StepCache(StepCacheConfig(rel_l1_thresh=facts["threshold"]), observe=True)
    settings = SamplingSettings(steps=facts["steps"], guidance_scale=case.info["guidance_scale"])
    clips = generate_clips(
        case.models,
        case.vae,
        case.portrait,
        case.voice,
        settings,
        seed=facts["seed"],
        wrap_denoiser=cache.wrap,
    )
    assert sum(len(clip.frames) for clip in clips) == case.voice.num_frames
    assert list(cache.report.masks()) == facts["masks"]
    ours = [record.rel_l1 for record in cache.report.records]
    known = [(x, y) for x, y in zip(ours, facts["rel_l1"], strict=True) if x is not None]
    assert len(known) == len(ours) - len(facts["masks"])
    for x, y in known:
        assert x == pytest.approx(y, rel=2e-3)
    assert torch.isfinite(torch.tensor([x for x, _ in known])).all()
