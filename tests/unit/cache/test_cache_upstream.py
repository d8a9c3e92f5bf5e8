"""The drop-in on a net with upstream's names and upstream's call, small enough for every run of the suite."""

from __future__ import annotations

import gc
import weakref
from dataclasses import dataclass
from types import SimpleNamespace

import pytest
import torch
from torch import nn

from standalone.published_memo import apply_teacache, flow_sigmas, remove_teacache, teacache_report
from teacache_core import StepCacheConfig

STEPS = 6


@dataclass
class Output:
    sample: torch.Tensor

    def __getitem__(self, index: int) -> torch.Tensor:
        return (self.sample,)[index]


class Resnet(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.norm1, self.norm2 = nn.GroupNorm(2, 4), nn.GroupNorm(2, 4)
        self.conv1, self.nonlinearity = nn.Conv3d(4, 4, 1), nn.SiLU()
        self.time_emb_proj = nn.Linear(4, 4)


class FakeUNet(nn.Module):
    """Upstream's submodules and forward signature; counts its bodies and its memory updates."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.config = SimpleNamespace(center_input_sample=False)
        self.conv_in = nn.Conv3d(4, 4, 1)
        self.time_proj = lambda t: torch.stack([t.float() / 1000, t.float().cos()] * 2, dim=-1)
        self.time_embedding = nn.Linear(4, 4)
        self.down_blocks = nn.ModuleList([nn.ModuleDict({})])
        self.down_blocks[0].resnets = nn.ModuleList([Resnet()])
        self.bodies, self.updates, self.fail_at = 0, 0, -1

    def forward(
        self,
        sample,
        ref_features,
        timestep,
        encoder_hidden_states,
        return_dict=True,
        is_new_audio=True,
        update_past_memory=False,
    ):
        self.bodies += 1
        if self.bodies == self.fail_at:
            raise RuntimeError("out of memory")
        self.updates += bool(update_past_memory)
        velocity = torch.tanh(self.conv_in(sample)) + timestep / 1000
        return Output(velocity) if return_dict else (velocity,)


def clip(net: FakeUNet, seed: int = 0, return_dict: bool = True, first: bool = True) -> torch.Tensor:
    """One clip as upstream's pipeline calls its net."""
    sigmas = torch.tensor(flow_sigmas(STEPS))
    latents = torch.randn(2, 4, 3, 2, 2, generator=torch.Generator().manual_seed(seed))
    for step in range(STEPS):
        output = net(
            latents,
            {},
            sigmas[step] * 1000,
            encoder_hidden_states=None,
            return_dict=return_dict,
            is_new_audio=first,
            update_past_memory=step == 0,
        )
        velocity = output.sample if return_dict else output[0]
        latents = latents + (sigmas[step + 1] - sigmas[step]) * velocity
    return latents


@torch.no_grad()
def test_a_cached_net_skips_bodies_and_updates_its_memory_once_a_clip() -> None:
    net = FakeUNet()
    apply_teacache(net, config=StepCacheConfig(step_mask=("010110", "101000")), num_inference_steps=STEPS)
    for index in range(2):
        clip(net, index, first=index == 0)
    assert net.bodies == 4 + 2
    assert net.updates == 2
    report = teacache_report(net)
    assert report.masks() == ("110110", "101000")


@torch.no_grad()
@pytest.mark.parametrize("return_dict", [True, False])
def test_a_threshold_decides_and_both_kinds_of_output_are_rebuilt(return_dict: bool) -> None:
    net = FakeUNet()
    plain = clip(net, return_dict=return_dict)
    apply_teacache(net, rel_l1_thresh=0.5, num_inference_steps=STEPS)
    cached = clip(net, return_dict=return_dict)
    assert STEPS < net.bodies < 2 * STEPS
    assert cached.shape == plain.shape and not torch.equal(cached, plain)


@torch.no_grad()
def test_off_attaches_nothing_and_removed_leaves_nothing() -> None:
    net, twin = FakeUNet(), FakeUNet()
    plain, before = clip(net), dict(vars(net))
    apply_teacache(net, rel_l1_thresh=0.0)
    assert vars(net).keys() == before.keys()
    assert teacache_report(net).config.mode == "off"
    apply_teacache(net, rel_l1_thresh=1e-9, num_inference_steps=STEPS)
    assert "forward" not in vars(twin)
    assert torch.equal(clip(net), plain)
    remove_teacache(net)
    assert vars(net).keys() == before.keys()
    assert torch.equal(clip(net), plain)
    assert remove_teacache(net) is net


def test_a_forward_that_somebody_else_wrapped_is_kept() -> None:
    net = FakeUNet()
    theirs = net.forward
    object.__setattr__(net, "forward", theirs)
    apply_teacache(net, rel_l1_thresh=0.5, num_inference_steps=STEPS)
    remove_teacache(net)
    assert vars(net)["forward"] is theirs


@torch.no_grad()
def test_an_exception_leaves_no_tensor_and_the_next_clip_is_fresh() -> None:
    net = FakeUNet()
    apply_teacache(net, config=StepCacheConfig(step_mask="110111"), num_inference_steps=STEPS)
    expected = clip(net)
    net.bodies, net.fail_at = 0, 3
    held = []

    def keep(module, args, output):
        attached = vars(net)["_teacache"]
        if attached._clip is not None and attached._clip.has("joint"):
            held.append(weakref.ref(attached._clip._state.branches["joint"].values[-1]))

    hook = net.register_forward_hook(keep)
    with pytest.raises(RuntimeError, match="out of memory"):
        clip(net)
    hook.remove()
    gc.collect()
    assert held and not any(reference() is not None for reference in held)
    net.fail_at = -1
    assert torch.equal(clip(net), expected)


@torch.no_grad()
def test_a_clip_starts_anew_when_the_noise_level_goes_up_even_if_nobody_says_so() -> None:
    net = FakeUNet()
    apply_teacache(net, config=StepCacheConfig(step_mask="100000"), num_inference_steps=STEPS)
    for timestep in (1000.0, 800.0, 1000.0, 800.0):
        net(torch.ones(2, 4, 3, 2, 2), {}, torch.tensor(timestep), None)
    assert net.bodies == 2
    assert teacache_report(net).masks() == ("10", "10")


@pytest.mark.parametrize(
    ("make", "settings", "error", "message"),
    [
        (lambda: nn.Linear(1, 1), {}, TypeError, "MEMO's UNet3DConditionModel but got Linear"),
        (
            FakeUNet,
            {"config": StepCacheConfig(rel_l1_thresh=0.1, stored="residual")},
            ValueError,
            "stored velocity but got residual",
        ),
        (
            lambda: apply_teacache(FakeUNet(), rel_l1_thresh=0.1),
            {},
            ValueError,
            "without TeaCache but got one that has it",
        ),
    ],
    ids=["another net", "residual", "twice"],
)
def test_what_cannot_be_cached_is_refused(make, settings: dict, error, message: str) -> None:
    with pytest.raises(error) as raised:
        apply_teacache(make(), **settings)
    assert message in str(raised.value)
