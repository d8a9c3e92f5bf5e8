"""The interface of the original TeaCache4Memo script, on the published `memo` package.

    from memo.models.unet_3d import UNet3DConditionModel
    from teacache_memo import teacache_forward

    UNet3DConditionModel.forward = teacache_forward
    UNet3DConditionModel.enable_teacache = True
    UNet3DConditionModel.num_steps = 20
    UNet3DConditionModel.rel_l1_thresh = 0.15

The class says what is wanted; what is remembered belongs to each instance (`teacache_report(net)`). The first
clip is computed in full and gives the threshold its meaning. Clips and steps are recognised by their noise
levels, so `cnt`, `accumulated_rel_l1_distance`, `previous_modulated_input` and `previous_residual` may be set
as the script sets them, and need not be.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from typing import Any

from teacache_core import CacheConfigError, CacheSettings, StepCacheConfig

from .published_memo import Attached, attached_to, detach, flow_sigmas

_MARK = "is_teacache_forward"


def published_forward() -> Callable[..., Any]:
    """What `UNet3DConditionModel.forward` is to be replaced with."""
    try:
        from memo.models.unet_3d import UNet3DConditionModel
    except ImportError as error:
        raise ImportError(
            f"expected the published memo package but got {error} (teacache_forward). Install "
            "memoavatar/memo, or use `python teacache_memo.py`, which needs none of it."
        ) from error
    forward = UNet3DConditionModel.forward
    return forward if hasattr(forward, _MARK) else cached(forward)


def cached(forward: Callable[..., Any]) -> Callable[..., Any]:
    """A class's forward that obeys the class attributes of the script."""

    @wraps(forward)
    def teacache_forward(self: Any, *args: Any, **kwargs: Any) -> Any:
        wanted = _wanted(self)
        attached = attached_to(self)
        if attached is not None and wanted != (attached.cache.config.rel_l1_thresh, len(attached.sigmas) - 1):
            detach(self)
            attached = None
        if wanted is None:
            return forward(self, *args, **kwargs)
        if attached is None:
            threshold, steps = wanted
            cache = CacheSettings(StepCacheConfig(rel_l1_thresh=threshold)).start(None, None, observe=True)
            attached = Attached(self, forward.__get__(self), cache, flow_sigmas(steps))
        return attached(*args, **kwargs)

    setattr(teacache_forward, _MARK, True)
    return teacache_forward


def _wanted(net: Any) -> tuple[float, int] | None:
    """Threshold and steps; None where nothing is to be skipped."""
    threshold, steps = getattr(net, "rel_l1_thresh", 0.0), getattr(net, "num_steps", None)
    if not getattr(net, "enable_teacache", False) or threshold == 0:
        return None
    if isinstance(steps, bool) or not isinstance(steps, int) or steps < 1:
        raise CacheConfigError(
            f"expected num_steps of 1 or more but got {steps} (teacache_forward). Set it to the pipeline's "
            "num_inference_steps."
        )
    return float(threshold), steps
