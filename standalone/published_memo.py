"""The cache on the original `memo` package's own net, by wrapping one instance's `forward`.

    apply_teacache(pipeline.diffusion_net, rel_l1_thresh=0.15, num_inference_steps=20)
    ...
    report = teacache_report(pipeline.diffusion_net)
    remove_teacache(pipeline.diffusion_net)

The net's own forward runs whole or not at all: memory, reference features, audio and emotion are its business
and stay intact. Upstream updates its memory in the first step of a clip, so that step is always computed.
Nothing of upstream is imported; the net is recognised by the submodules that the signal needs.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from typing import Any, cast

import torch
from torch import Tensor, nn

from teacache_core import CacheReport, Calibration, ClipCache, StepCache, StepCacheConfig
from teacache_core.denoiser import noise_level
from teacache_core.metric import to_floats

_ATTRIBUTE = "_teacache"
_JOINT = "joint"
_FIRST_SIGMA, _LAST_SIGMA = 1.0, 0.001  # FlowMatchEulerDiscreteScheduler with its defaults


def apply_teacache(
    net: nn.Module,
    rel_l1_thresh: float = 0.15,
    num_inference_steps: int = 20,
    *,
    config: StepCacheConfig | None = None,
    calibration: Calibration | None = None,
    sigmas: Sequence[float] | None = None,
) -> nn.Module:
    """The net, an `UNet3DConditionModel`, with its steps cached; other instances are untouched.

    config: everything else a `StepCacheConfig` offers, in place of `rel_l1_thresh`. sigmas: the noise levels,
    if they are not those of upstream's scheduler. A threshold of 0 attaches nothing.
    """
    if _ATTRIBUTE in vars(net):
        raise ValueError(
            f"expected a net without TeaCache but got one that has it ({type(net).__name__}). Call "
            "remove_teacache first."
        )
    config = StepCacheConfig(rel_l1_thresh=rel_l1_thresh) if config is None else config
    if config.stored != "velocity":
        raise ValueError(
            f"expected stored velocity but got {config.stored} ({type(net).__name__}): its forward cannot be "
            "cut. Leave stored at velocity."
        )
    if config.mode == "off":
        return net
    levels = flow_sigmas(num_inference_steps) if sigmas is None else [float(level) for level in sigmas]
    cache = StepCache(config, calibration, observe=True)
    object.__setattr__(net, "forward", Attached(net, net.forward, cache, levels))
    return net


def remove_teacache(net: nn.Module) -> nn.Module:
    """Undo `apply_teacache`; the net is as it was. Does nothing to a net without it."""
    attached = detach(net)
    if attached is not None and vars(net).get("forward") is attached:
        del vars(net)["forward"]
        if attached.own_forward is not None:
            object.__setattr__(net, "forward", attached.own_forward)
    return net


def teacache_report(net: nn.Module) -> CacheReport:
    """What the cache on this net has done so far. Ends the clip at hand."""
    attached = attached_to(net)
    if attached is None:
        return CacheReport(StepCacheConfig())
    attached.end_clip()
    return attached.cache.report


def attached_to(net: nn.Module) -> Attached | None:
    """The cache of this instance."""
    return vars(net).get(_ATTRIBUTE)


def detach(net: nn.Module) -> Attached | None:
    """End the clip at hand and forget the cache; its forward stays what it is."""
    attached = vars(net).pop(_ATTRIBUTE, None)
    if attached is not None:
        attached.end_clip()
    return attached


def flow_sigmas(steps: int) -> list[float]:
    """The noise levels of upstream's scheduler: `steps` from 1 to 0.001, then 0."""
    levels = torch.linspace(_FIRST_SIGMA, _LAST_SIGMA, steps, dtype=torch.float64).float()
    return [*to_floats(levels), 0.0]


def modulated_input(
    net: Any, sample: Tensor, timestep: Tensor | float, offset: Tensor | None = None
) -> Tensor:
    """The first ResNet's activation up to its second norm, time embedding added: (B, C, F, h, w)."""
    if getattr(net.config, "center_input_sample", False):
        sample = 2 * sample - 1.0
    timesteps = torch.as_tensor(timestep, device=sample.device).reshape(-1).expand(sample.shape[0])
    temb = net.time_embedding(net.time_proj(timesteps).to(sample.dtype))
    hidden_states = net.conv_in(sample)
    if offset is not None:
        hidden_states = hidden_states + offset
    resnet = net.down_blocks[0].resnets[0]
    hidden_states = resnet.conv1(resnet.nonlinearity(resnet.norm1(hidden_states)))
    shift = resnet.time_emb_proj(resnet.nonlinearity(temb))
    return resnet.norm2(hidden_states + shift[:, :, None, None, None])


def _check_net(net: Any) -> None:
    try:
        resnet = net.down_blocks[0].resnets[0]
        parts = (
            net.conv_in,
            net.time_proj,
            net.time_embedding,
            resnet.norm1,
            resnet.conv1,
            resnet.time_emb_proj,
        )
    except (AttributeError, IndexError, TypeError) as error:
        raise TypeError(
            f"expected MEMO's UNet3DConditionModel but got {type(net).__name__} ({error}). Give "
            "pipeline.diffusion_net."
        ) from error
    if any(part is None for part in parts):
        raise TypeError(
            f"expected MEMO's UNet3DConditionModel but got {type(net).__name__} without a time embedding. "
            "Give pipeline.diffusion_net."
        )


class Attached:
    """Stands in for one instance's forward, and is kept on it. Owns the cache of the clip at hand."""

    def __init__(
        self, net: nn.Module, forward: Callable[..., Any], cache: StepCache, sigmas: list[float]
    ) -> None:
        _check_net(net)
        self.net = net
        self.cache = cache
        self.sigmas = sigmas
        self.own_forward: Callable[..., Any] | None = vars(net).get("forward")
        self.forward = forward
        self.signature = inspect.signature(forward)
        self.clip_index = -1
        self._context: AbstractContextManager[ClipCache] | None = None
        self._clip: ClipCache | None = None
        self._sigma = 0.0
        self._as_output: Callable[[Tensor], Any] | None = None
        object.__setattr__(net, _ATTRIBUTE, self)

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """The original forward, or what it would nearly have returned."""
        given = self.signature.bind(*args, **kwargs)
        given.apply_defaults()
        sample, timestep = given.arguments["sample"], given.arguments["timestep"]
        sigma = noise_level(timestep, self.sigmas)
        clip = self._clip_for(sigma, starts_clip=bool(given.arguments.get("update_past_memory", False)))
        try:
            output = self._evaluate(clip, sigma, sample, timestep, given, args, kwargs)
        except BaseException:
            self.end_clip()
            raise
        if sigma <= self.sigmas[-2]:
            self.end_clip()
        return output

    def _evaluate(
        self,
        clip: ClipCache,
        sigma: float,
        sample: Tensor,
        timestep: Tensor | float,
        given: inspect.BoundArguments,
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
    ) -> Any:
        offset = given.arguments.get("mask_cond_fea")

        def signal() -> Tensor:
            with torch.no_grad():
                return modulated_input(self.net, sample, timestep, offset)

        with clip.evaluation(sigma, like=sample, branches=(_JOINT,), signal=signal) as decision:
            if not decision.compute and self._as_output is not None:
                return self._as_output(clip.replay(_JOINT))
            output = self.forward(*args, **kwargs)
            self._as_output = _rebuild(output)
            answer = clip.store(_JOINT, output[0])
            return output if answer is output[0] else self._as_output(answer)

    def _clip_for(self, sigma: float, starts_clip: bool) -> ClipCache:
        """The run at hand, or a new one where a clip starts: upstream says so, or the noise level goes up."""
        if self._clip is None or starts_clip or sigma > self._sigma:
            self.end_clip()
            self.clip_index += 1
            self._context = self.cache.clip(self.sigmas, self.clip_index)
            self._clip = self._context.__enter__()
        self._sigma = sigma
        return self._clip

    def end_clip(self) -> None:
        """Report the clip at hand and drop its tensors."""
        context, self._context, self._clip, self._as_output = self._context, None, None, None
        if context is not None:
            context.__exit__(None, None, None)


def _rebuild(output: Any) -> Callable[[Tensor], Any]:
    """How to make an output like this one from another sample."""
    if isinstance(output, tuple):
        return lambda sample: (sample,)
    make = cast("Callable[..., Any]", type(output))
    return lambda sample: make(sample=sample)
