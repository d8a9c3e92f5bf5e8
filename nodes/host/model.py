"""MEMO's diffusion net as a MODEL of the host: a flow model whose conditioning is one clip's context.

The cond and the uncond branch of a clip share one joint context; each conditioning names its row. Batched by
the host they are the joint context again without a copy, split they are its rows, on other devices their
copies, and the numbers agree to rounding.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import comfy.conds
import comfy.latent_formats
import comfy.model_base
import comfy.model_management as management
import comfy.patcher_extension
import comfy.supported_models_base
import torch
from comfy.ldm.modules.attention import optimized_attention
from torch import Tensor

from ...memo_avatar.checkpoint.load import Checkpoint
from ...memo_avatar.model.config import UNet3DConfig
from ...memo_avatar.model.context import ClipContext, join_contexts
from ...memo_avatar.model.unet3d import UNet3D
from ...teacache_core import Fingerprint
from .memory import SUPPORTED_DTYPES, cast_dtype, fill, make_patcher, weight_dtype

ROWS_KEY = "memo_rows"
"""The key of our entry in a CONDITIONING."""

COND = "clip_context"
"""The name under which a clip's context reaches the net."""

_FULL_WIDTH = 320  # of MEMO's first level; the host's memory factor 1 means Stable Diffusion's sizes


class ClipShares:
    """One clip's joint context, and what of it other devices need: copied there once, gone with the clip."""

    def __init__(self, joint: ClipContext) -> None:
        self.joint = joint
        self._copies: dict[tuple[tuple[int, ...], torch.device], ClipContext] = {}

    def rows(self, rows: tuple[int, ...], device: torch.device | None) -> ClipContext:
        """The context of these rows, in this order; the joint one itself where they are all of it."""
        whole = rows == tuple(range(self.joint.batch))
        context = self.joint if whole else join_contexts([self.joint.row(row) for row in rows])
        if device is None or device == context.audio_tokens.device:
            return context
        if (rows, device) not in self._copies:
            self._copies[rows, device] = context.to(device)
        return self._copies[rows, device]


@dataclass(frozen=True)
class ClipRows:
    """Some rows of a clip's joint context, in this order, on ``device`` (None: where the context is)."""

    shares: ClipShares
    rows: tuple[int, ...]
    device: torch.device | None = None

    def to(self, device: torch.device) -> ClipRows:
        """The same for another device: the host splits branches over several."""
        return replace(self, device=device)

    def resolve(self) -> ClipContext:
        return self.shares.rows(self.rows, self.device)

    @property
    def passing(self) -> int:
        """Bytes of memory out of RAM that are on the device while these rows are evaluated."""
        joint = self.shares.joint
        return 0 if joint.offload is None else joint.offload.passing(joint.memory, len(self.rows))


class ClipRowsCond(comfy.conds.CONDRegular):
    """A :class:`ClipRows` as the host's conditioning object."""

    cond: ClipRows

    def process_cond(self, batch_size: int, **kwargs: Any) -> ClipRowsCond:
        """One row for each latent of the batch."""
        return ClipRowsCond(replace(self.cond, rows=self.cond.rows * batch_size))

    def can_concat(self, other: ClipRowsCond) -> bool:
        return self.cond.shares is other.cond.shares

    def concat(self, others: Sequence[ClipRowsCond]) -> ClipRows:
        rows = [row for cond in (self, *others) for row in cond.cond.rows]
        return replace(self.cond, rows=tuple(rows))

    def size(self) -> list[int]:
        """In bytes. The context is on the device before the host estimates what else it needs, but for the
        memory that comes from RAM."""
        return [self.cond.passing]


class HostUNet3D(UNet3D):
    """UNet3D called as the host calls a diffusion model; parameters, and so LoRA keys, keep their names."""

    def __init__(
        self,
        config: UNet3DConfig,
        dtype: torch.dtype | None = None,
        device: torch.device | None = None,
        operations: Any = None,
    ) -> None:
        super().__init__(
            config, operations=operations, attention=optimized_attention, dtype=dtype, device=device
        )
        self.dtype = dtype

    def forward(
        self,
        x: Tensor,
        timestep: Tensor,
        context: Any = None,
        control: Any = None,
        transformer_options: dict[str, Any] | None = None,
        **conds: Any,
    ) -> Tensor:
        """(B, 4, F, h, w) -> velocity of the same shape, through the wrappers that other nodes have put."""
        extension, options = comfy.patcher_extension, transformer_options or {}
        wrappers = extension.get_all_wrappers(extension.WrappersMP.DIFFUSION_MODEL, options)
        if wrappers:
            x = (
                x.clone()
            )  # the host's EasyCache adds to its input in place; in float32 that is the sampler's own
        executor = extension.WrapperExecutor.new_class_executor(self._forward, self, wrappers)
        return executor.execute(x, timestep, context, control, options, **conds)

    def _forward(
        self,
        x: Tensor,
        timestep: Tensor,
        context: Any = None,
        control: Any = None,
        transformer_options: dict[str, Any] | None = None,
        clip_context: ClipContext | None = None,
        **_conds: Any,
    ) -> Tensor:
        assert clip_context is not None, "extra_conds refuses conditioning without a clip's context"
        clip_context = clip_context.with_options(transformer_options=transformer_options or {})
        return super().forward(x, timestep, clip_context)


class MemoModelConfig(comfy.supported_models_base.BASE):
    """What the host asks a model family for."""

    unet_extra_config = {}  # noqa: RUF012 - the host's own way to say it
    latent_format = comfy.latent_formats.SD15
    sampling_settings = {"shift": 1.0, "multiplier": 1000}  # noqa: RUF012
    supported_inference_dtypes = SUPPORTED_DTYPES


class MemoModel(comfy.model_base.BaseModel):
    """MEMO as a flow model: timestep = 1000 sigma, and the net's output is the velocity.

    ``fingerprint`` and ``calibration_path`` tell the step cache which checkpoint this is, ``checkpoint_path``
    whoever saves it.
    """

    fingerprint: Fingerprint | None = None
    calibration_path: str | None = None
    checkpoint_path: str | None = None

    def __init__(self, config: MemoModelConfig, device: torch.device | None = None) -> None:
        super().__init__(
            config, model_type=comfy.model_base.ModelType.FLOW, device=device, unet_model=HostUNet3D
        )

    def get_dtype_inference(self) -> torch.dtype:
        """What the net computes in; the oldest hosts have the parts of the answer only."""
        return self.get_dtype() if self.manual_cast_dtype is None else self.manual_cast_dtype

    def _apply_model(self, x: Tensor, t: Tensor, *rest: Any, **conds: Any) -> Tensor:
        """Rows become their context here: on the device the host has chosen, outside what is compiled."""
        if COND in conds:
            conds[COND] = conds[COND].resolve()
        return super()._apply_model(x, t, *rest, **conds)

    def memory_required(self, input_shape: Any, cond_shapes: Any = None) -> float:
        """The host's estimate of activations, and what comes from RAM meanwhile."""
        shapes = cond_shapes or {}
        return super().memory_required(input_shape, shapes) + sum(map(math.prod, shapes.get(COND, ())))

    def extra_conds_shapes(self, **kwargs: Any) -> dict[str, list[int]]:
        rows = kwargs.get(ROWS_KEY)
        return {} if rows is None else {COND: [rows.passing]}

    def extra_conds(self, **kwargs: Any) -> dict[str, Any]:
        rows = kwargs.get(ROWS_KEY)
        if rows is None:
            raise ValueError(
                "expected conditioning of a MEMO clip but got another kind (MEMO model). "
                "Sample this MODEL with the MEMO Sampler, which makes it from a portrait and a voice."
            )
        return {COND: ClipRowsCond(rows)}


def conditioning(shares: ClipShares, row: int) -> list[list[Any]]:
    """CONDITIONING for one branch of a clip."""
    return [[None, {ROWS_KEY: ClipRows(shares, (row,))}]]


def load_model_patcher(checkpoint: Checkpoint, dtype_name: str, *, disable_dynamic: bool = False) -> Any:
    """The MODEL of an opened checkpoint."""
    part = checkpoint.parts["diffusion_net"]
    parameters = sum(math.prod(shape) for shape in part.shapes.values())
    dtype = weight_dtype(dtype_name, checkpoint.dtype, parameters)
    config = MemoModelConfig({"config": checkpoint.config.diffusion_net})
    config.set_inference_dtype(dtype, cast_dtype(dtype))
    config.memory_usage_factor = checkpoint.config.diffusion_net.block_out_channels[0] / _FULL_WIDTH
    model = MemoModel(config, device=management.unet_offload_device()).eval().requires_grad_(False)
    patcher = make_patcher(model, disable_dynamic=disable_dynamic)
    state = checkpoint.read("diffusion_net", dtype)
    fill(patcher, model.diffusion_model, state)
    model.fingerprint = Fingerprint.of(state)
    return patcher
