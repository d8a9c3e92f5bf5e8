"""The host's memory management in our words: patchers, dtypes, loading.

ComfyUI 0.8.0 and 0.33.0 name some things differently; every difference is evened out in this file.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import comfy.model_management as management
import comfy.model_patcher
import comfy.ops
import torch
from torch import Tensor, nn

from ...memo_avatar.model.offload import Offload

SUPPORTED_DTYPES = [torch.bfloat16, torch.float16, torch.float32]
"""In the order of preference."""

DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}


def make_patcher(net: nn.Module, *, disable_dynamic: bool = False, **devices: torch.device) -> Any:
    """A ModelPatcher, for the main device where ``load_device`` and ``offload_device`` are not given.

    The host reassigns the class at start-up, so it is looked up here.
    """
    plain = comfy.model_patcher.ModelPatcher
    kind = plain if disable_dynamic else getattr(comfy.model_patcher, "CoreModelPatcher", plain)
    main = {
        "load_device": management.get_torch_device(),
        "offload_device": management.unet_offload_device(),
    }
    return kind(net, **{**main, **devices})


def is_dynamic(patcher: Any) -> bool:
    """Whether the host pages this model's weights in as layers run (dynamic VRAM, newer hosts)."""
    return bool(getattr(patcher, "is_dynamic", lambda: False)())


def fill(patcher: Any, net: nn.Module, state: Mapping[str, Tensor]) -> None:
    """Put checked weights into a net. Under dynamic VRAM the net takes the (mapped) tensors themselves."""
    missing, unexpected = net.load_state_dict(state, strict=False, assign=is_dynamic(patcher))
    assert not missing and not unexpected, "weights are checked against the schema before this"


def auxiliary_patcher(
    build: Callable[..., nn.Module], state: Mapping[str, Tensor], dtype: torch.dtype
) -> Any:
    """A net of ours beside the MODEL, loaded and offloaded by the host.

    ``build(operations=, dtype=, device=)`` makes it. Its layers cast to the input's dtype and device at
    every call, so it may be used even when the host has moved it out.
    """
    device = management.unet_offload_device()
    net = build(operations=comfy.ops.manual_cast, dtype=dtype, device=device).eval().requires_grad_(False)
    patcher = make_patcher(net)
    archive = getattr(management, "archive_model_dtypes", None)
    if archive is not None:
        archive(net)
    fill(patcher, net, state)
    return patcher


def weight_dtype(name: str, stored: torch.dtype, parameters: int) -> torch.dtype:
    """The dtype of a combo's name; "auto" is what the host would choose for a model of this size."""
    if name in DTYPES:
        return DTYPES[name]
    return management.unet_dtype(
        model_params=parameters, supported_dtypes=SUPPORTED_DTYPES, weight_dtype=stored
    )


def cast_dtype(dtype: torch.dtype) -> torch.dtype | None:
    """The compute dtype where it has to differ from the weights', else None."""
    return management.unet_manual_cast(dtype, management.get_torch_device(), SUPPORTED_DTYPES)


def load(patchers: Sequence[Any], memory_required: float = 0) -> None:
    """Have these models on the device together, with room for ``memory_required`` bytes of activations."""
    management.load_models_gpu(list(patchers), memory_required=memory_required)


class HostOffload(Offload):
    """Memory in RAM by the host's means: its streams and its pinned memory, where it uses them."""

    def side_stream(self) -> Any:
        return management.get_offload_stream(self.device)

    def room_in_ram(self, tensor: Tensor) -> Tensor:
        """Pinned as far as the host allows, and unpinned when the last clip has let go of it."""
        kept = torch.empty_like(tensor, device="cpu")
        if management.pin_memory(kept):
            weakref.finalize(kept, management.unpin_memory, kept.detach()).atexit = False
        return kept
