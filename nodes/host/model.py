"""MEMO's diffusion net as a MODEL of the host: a flow model whose conditioning is one clip's context.

The cond and the uncond branch of a clip share one joint context; each conditioning names its row. Batched by
the host they are the joint context again without a copy, split they are its rows, and the numbers agree to
rounding.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
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


@dataclass(frozen=True)
class ClipRows:
    """Some rows of a clip's joint context, in this order."""

    joint: ClipContext
    rows: tuple[int, ...]

    def resolve(self) -> ClipContext:
        """The context of these rows; the joint one itself where they are all of it."""
        if self.rows == tuple(range(self.joint.batch)):
            return self.joint
        return join_contexts([self.joint.row(row) for row in self.rows])

    @property
    def passing(self) -> int:
        """Bytes of memory out of RAM that are on the device while these rows are evaluated."""
        if self.joint.offload is None:
            return 0
        return self.joint.offload.passing(self.joint.memory) * len(self.rows) // self.joint.batch


class ClipRowsCond(comfy.conds.CONDRegular):
    """A :class:`ClipRows` as the host's conditioning object."""

    cond: ClipRows

    def process_cond(self, batch_size: int, **kwargs: Any) -> ClipRowsCond:
        """One row for each latent of the batch."""
        return ClipRowsCond(ClipRows(self.cond.joint, self.cond.rows * batch_size))

    def can_concat(self, other: ClipRowsCond) -> bool:
        return self.cond.joint is other.cond.joint

    def concat(self, others: Sequence[ClipRowsCond]) -> ClipContext:
        rows = [row for cond in (self, *others) for row in cond.cond.rows]
        return ClipRows(self.cond.joint, tuple(rows)).resolve()

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

    ``fingerprint`` and ``calibration_path`` tell the step cache which checkpoint this is.
    """

    fingerprint: Fingerprint | None = None
    calibration_path: str | None = None

    def __init__(self, config: MemoModelConfig, device: torch.device | None = None) -> None:
        super().__init__(
            config, model_type=comfy.model_base.ModelType.FLOW, device=device, unet_model=HostUNet3D
        )

    def get_dtype_inference(self) -> torch.dtype:
        """What the net computes in; the oldest hosts have the parts of the answer only."""
        return self.get_dtype() if self.manual_cast_dtype is None else self.manual_cast_dtype

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


def conditioning(context: ClipContext, row: int) -> list[list[Any]]:
    """CONDITIONING for one branch of a clip."""
    return [[None, {ROWS_KEY: ClipRows(context, (row,))}]]


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
