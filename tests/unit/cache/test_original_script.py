"""The original script's interface, on a net with upstream's names and upstream's call."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from standalone.original_script import cached
from standalone.published_memo import attached_to, teacache_report
from teacache_core import CacheConfigError
from tests.unit.cache.test_cache_upstream import STEPS, FakeUNet, clip

ROOT = Path(__file__).resolve().parents[3]


class Published(FakeUNet):
    """The class that the script changes."""


@pytest.fixture(autouse=True)
def script() -> Iterator[None]:
    """What the script does to the class, undone afterwards."""
    Published.forward = cached(FakeUNet.forward)
    Published.enable_teacache = True
    Published.num_steps = STEPS
    Published.rel_l1_thresh = 0.5
    Published.cnt = 0
    Published.accumulated_rel_l1_distance = 0
    Published.previous_modulated_input = None
    Published.previous_residual = None
    yield
    for name in [name for name in vars(Published) if not name.startswith("__")]:
        delattr(Published, name)


def video(net: FakeUNet, clips: int = 3) -> torch.Tensor:
    return torch.stack([clip(net, index, first=index == 0) for index in range(clips)])


@torch.no_grad()
def test_the_first_clip_is_whole_and_the_others_skip() -> None:
    net = Published()
    video(net)
    first, *others = teacache_report(net).masks()
    assert first == "1" * STEPS
    assert all(mask.startswith("1") and "0" in mask for mask in others)
    assert net.bodies == sum(mask.count("1") for mask in (first, *others))
    assert net.updates == 3, "memory is updated once a clip"


@torch.no_grad()
@pytest.mark.parametrize(("name", "value"), [("rel_l1_thresh", 0.0), ("enable_teacache", False)])
def test_off_is_the_published_forward_bit_for_bit(name: str, value: object) -> None:
    setattr(Published, name, value)
    net = Published()
    assert torch.equal(video(net), video(FakeUNet()))
    assert attached_to(net) is None and net.bodies == 3 * STEPS


@torch.no_grad()
def test_instances_do_not_see_each_other() -> None:
    alone, other = Published(), Published()
    expected = video(alone)
    net = Published()
    found = [clip(net, 0)]
    clip(other, 7)
    found += [clip(net, 1, first=False), clip(net, 2, first=False)]
    assert torch.equal(torch.stack(found), expected)
    assert len(teacache_report(other).masks()) == 1


@torch.no_grad()
def test_switched_on_and_off_between_videos_it_obeys_at_once() -> None:
    net = Published()
    video(net)
    Published.enable_teacache = False
    assert torch.equal(video(net), video(FakeUNet()))
    Published.enable_teacache = True
    video(net)
    assert teacache_report(net).masks()[0] == "1" * STEPS, "it starts anew"


@torch.no_grad()
@pytest.mark.parametrize("steps", [None, 0, 2.5, True])
def test_steps_that_are_none_are_refused(steps: object) -> None:
    Published.num_steps = steps
    with pytest.raises(CacheConfigError, match="num_steps of 1 or more but got"):
        clip(Published())


def test_without_the_published_package_the_import_says_what_is_missing() -> None:
    code = "import sys; sys.modules['memo'] = None\nfrom teacache_memo import teacache_forward"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert "expected the published memo package" in done.stderr.splitlines()[-1]
