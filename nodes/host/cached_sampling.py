"""The step cache inside the host's sampling: its wrappers, and where a run's state lives.

One `sample()` call is one clip of the cache. The decision is taken where the host evaluates all branches
(CALC_COND_BATCH) and obeyed where it evaluates some of them (APPLY_MODEL), so it does not matter whether it
batches cond and uncond; and both lie outside what core's TorchCompileModel compiles. State lives in the
run's own copy of the model options and dies with it; the MODEL carries frozen settings only.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any

import comfy.k_diffusion.sampling as k_diffusion
import comfy.model_patcher
import torch
from comfy.patcher_extension import WrappersMP
from torch import Tensor

from ...teacache_core import CacheSettings, CalibrationError, ClipCache, Decision, StepCache
from .model import MemoModel

KEY = "memo_teacache"
_VIDEO_KEY = f"{KEY}_video"
_CLIP_KEY = f"{KEY}_clip"
_BRANCHES = ("cond", "uncond")  # by the host's index


class _Shared:
    """Something that every copy of the model options has to share; older hosts copy them deeply."""

    def __deepcopy__(self, _memo: dict[int, Any]) -> _Shared:
        return self


class CachedVideo(_Shared):
    """The cache of the video being made, and the clip that is sampled now."""

    def __init__(self, cache: StepCache) -> None:
        self.cache = cache
        self.clip_index = 0


class _ActiveClip(_Shared):
    """The clip that is sampled now. `levels` are those of its evaluations, where the sampler makes one a
    step: counting them spares the host a wait for its device.
    """

    def __init__(self, clip: ClipCache, levels: Sequence[float] | None) -> None:
        self.clip = clip
        self.levels = None if levels is None else iter(levels)
        self.decision: Decision | None = None

    def level(self, sigma: Tensor) -> float | Tensor:
        """The noise level of the evaluation that begins now."""
        return sigma.reshape(-1)[0] if self.levels is None else next(self.levels)


def attach(model: Any, settings: CacheSettings) -> Any:
    """A clone of ``model`` with the cache; settings put on it before are replaced."""
    if not isinstance(model.model, MemoModel):
        raise TypeError(
            "expected a MODEL from Load MEMO but got a model of another kind (TeaCache for MEMO). "
            "Use the host's EasyCache for other models."
        )
    _check_origin(settings, model)
    model = model.clone()
    model.model_options["transformer_options"][KEY] = settings
    wrappers = (
        (WrappersMP.OUTER_SAMPLE, _outer_sample),
        (WrappersMP.CALC_COND_BATCH, _calc_cond_batch),
        (WrappersMP.APPLY_MODEL, _apply_model),
    )
    for kind, wrapper in wrappers:
        model.remove_wrappers_with_key(kind, KEY)
        model.add_wrapper_with_key(kind, KEY, wrapper)
    return model


def _check_origin(settings: CacheSettings, model: Any) -> None:
    """Raise for a calibration of another checkpoint, in words; by which numbers it is known, the log says."""
    try:
        if settings.calibration is not None:
            settings.calibration.check(model.model.fingerprint)
    except CalibrationError as error:
        raise CalibrationError(
            "expected a calibration of this checkpoint but got one of another checkpoint (calibration). "
            "Choose another calibration, or make one of this checkpoint with TeaCache Calibrate."
        ) from error


def settings_of(model: Any) -> CacheSettings | None:
    """What the TeaCache node left on ``model``, if it did."""
    return model.model_options.get("transformer_options", {}).get(KEY)


def start_video(model: Any, guidance_scale: float) -> tuple[Any, CachedVideo | None]:
    """``model`` for the clips of one video, and the video's cache where the TeaCache node asked for one."""
    settings = settings_of(model)
    if settings is None:
        return model, None
    video = CachedVideo(settings.start(model.model.fingerprint, guidance_scale, observe=True))
    model = model.clone()
    model.model_options["transformer_options"][_VIDEO_KEY] = video
    return model, video


def _outer_sample(
    executor: Any,
    noise: Tensor,
    latent_image: Tensor,
    sampler: Any,
    sigmas: Tensor,
    *args: Any,
    **kwargs: Any,
) -> Tensor:
    guider = executor.class_obj
    original = guider.model_options
    options = original["transformer_options"]
    video = options.get(_VIDEO_KEY)
    if video is None:  # sampled by another node, one clip at a time
        fingerprint = guider.model_patcher.model.fingerprint
        video = CachedVideo(options[KEY].start(fingerprint, guider.cfg))
    guider.model_options = comfy.model_patcher.create_model_options_clone(original)
    try:
        with video.cache.clip(sigmas, video.clip_index, euler=_is_euler(sampler)) as clip:
            levels = sigmas[:-1].tolist() if _evaluates_once_a_step(sampler) else None
            guider.model_options["transformer_options"][_CLIP_KEY] = _ActiveClip(clip, levels)
            return executor(noise, latent_image, sampler, sigmas, *args, **kwargs)
    finally:
        guider.model_options = original


def _calc_cond_batch(
    executor: Any, model: Any, conds: Sequence[Any], x: Tensor, sigma: Tensor, model_options: dict[str, Any]
) -> list[Tensor]:
    active = model_options["transformer_options"].get(_CLIP_KEY)
    branches = [name for name, cond in zip(_BRANCHES, conds, strict=False) if cond is not None]
    one_each = len(conds) <= len(_BRANCHES) and all(cond is None or len(cond) == 1 for cond in conds)
    if active is None or not one_each:
        return executor(model, conds, x, sigma, model_options)
    signal = partial(_signal, model, x, sigma)
    level = active.level(sigma)
    with active.clip.evaluation(level, like=x, branches=branches, signal=signal) as decision:
        active.decision = decision
        try:
            return executor(model, conds, x, sigma, model_options)
        finally:
            active.decision = None


def _apply_model(
    executor: Any,
    x: Tensor,
    sigma: Tensor,
    c_concat: Any,
    c_crossattn: Any,
    control: Any,
    transformer_options: dict[str, Any],
    **conds: Any,
) -> Tensor:
    """Some branches of one evaluation, as denoised latents: computed and stored, or replayed."""
    active = transformer_options.get(_CLIP_KEY)
    if active is None or active.decision is None:
        return executor(x, sigma, c_concat, c_crossattn, control, transformer_options, **conds)
    names = [_BRANCHES[index] for index in transformer_options["cond_or_uncond"]]
    scale = sigma.reshape(-1, *[1] * (x.ndim - 1))
    if not active.decision.compute:
        return x - torch.cat([active.clip.replay(name) for name in names]).to(x) * scale
    denoised = executor(x, sigma, c_concat, c_crossattn, control, transformer_options, **conds)
    velocities = ((x - denoised) / scale).chunk(len(names))
    answers = [active.clip.store(name, part) for name, part in zip(names, velocities, strict=True)]
    if all(answer is velocity for answer, velocity in zip(answers, velocities, strict=True)):
        return denoised
    return x - torch.cat(answers).to(x) * scale


ONCE_A_STEP = (
    "euler",
    "euler_ancestral",
    "lms",
    "dpmpp_2m",
    "ipndm",
    "ipndm_v",
    "deis",
    "res_multistep",
    "gradient_estimation",
)
"""The host's samplers that evaluate each level of the schedule once, in order; the tests hold it."""


def _is_euler(sampler: Any) -> bool:
    """Whether it is Euler's method and nothing more."""
    churned = getattr(sampler, "extra_options", {}).get("s_churn", 0.0)
    return _function(sampler) is _host_function("euler") and not churned


def _evaluates_once_a_step(sampler: Any) -> bool:
    found = _function(sampler)
    return found is not None and any(found is _host_function(name) for name in ONCE_A_STEP)


def _function(sampler: Any) -> Any:
    return getattr(sampler, "sampler_function", None)


def _host_function(name: str) -> Any:
    return getattr(k_diffusion, f"sample_{name}", None)


def _signal(model: Any, x: Tensor, sigma: Tensor) -> Tensor:
    """The first ResNet's time-modulated activation: what the decision watches, at < 1 % of an evaluation."""
    net, dtype = model.diffusion_model, model.get_dtype_inference()
    timestep = model.model_sampling.timestep(sigma).float()
    temb = net.embed_timestep(timestep, x.shape[0], dtype)
    return net.modulated_input(net.stem(x.to(dtype)), temb)
