"""A stand-in for an Apple GPU on any machine: its tensors compute on the CPU and keep the GPU's rules.

MPS has no float64: asking for it raises, and a copy to the CPU that changes the dtype on the way does what
torch 2.14 does, which is worse: it writes nothing and says nothing. Values of two devices don't meet, and
none becomes an array.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils._pytree import tree_leaves, tree_map

MPS = torch.device("mps:0")
NO_DOUBLE = "Cannot convert a MPS Tensor to float64 dtype as the MPS framework doesn't support float64."
CROSSING = {"copy_", "to", "type_as", "__getitem__", "__setitem__"}  # what takes tensors of both devices


class MpsTensor(Tensor):
    """Says that it lives on the GPU; ``held`` is the tensor on the CPU that it stands for."""

    held: Tensor

    @staticmethod
    def __new__(cls, held: Tensor) -> MpsTensor:
        made = Tensor._make_wrapper_subclass(
            cls, held.size(), strides=held.stride(), dtype=held.dtype, device=MPS
        )
        made.held = held
        return made

    @classmethod
    def __torch_dispatch__(cls, function: Any, _types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """What torch calls inside of itself, such as detaching a new parameter."""
        return tree_map(_wrapped, function(*tree_map(_held, args), **tree_map(_held, kwargs or {})))


class _Rules(TorchFunctionMode):
    """Every call of torch that a program makes passes here."""

    def __torch_function__(self, function: Any, _types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = dict(kwargs or {})
        tensors = [value for value in tree_leaves((args, kwargs)) if isinstance(value, Tensor)]
        on_gpu = [value for value in tensors if isinstance(value, MpsTensor)]
        wanted = kwargs.get("device")
        makes_it_there = wanted is not None and torch.device(wanted).type == "mps"
        name = getattr(function, "__name__", "")
        if name == "_has_compatible_shallow_copy_type":
            return False  # a module takes new parameters where it is moved
        if name == "to":
            copy = kwargs.pop("copy", False)
            device, dtype, *_ = torch._C._nn._parse_to(*args[1:], **kwargs)
            moved = _moved(args[0], device, dtype)
            return moved.clone() if copy and moved is args[0] else moved
        if not on_gpu and not makes_it_there:
            return function(*args, **kwargs)
        return self._on_gpu(function, name, args, kwargs, tensors)

    def _on_gpu(self, function: Any, name: str, args: Any, kwargs: dict[str, Any], tensors: Any) -> Any:
        if name == "numpy":
            raise TypeError("can't convert mps:0 device type tensor to numpy. Use Tensor.cpu() first.")
        if name == "cpu":
            return _moved(args[0], torch.device("cpu"), None)
        is_mixed = any(not isinstance(value, MpsTensor) and value.ndim for value in tensors)
        if is_mixed and name not in CROSSING:
            raise RuntimeError(f"Expected all tensors on the same device but got mps:0 and cpu ({name})")
        if "device" in kwargs:
            kwargs["device"] = torch.device("cpu")
        result = function(*tree_map(_held, args), **tree_map(_held, kwargs))
        if name == "__get__" and not isinstance(result, Tensor):
            return function(*args)  # where it lives, and whether it is a parameter, it knows itself
        given = {id(value.held): value for value in tensors if isinstance(value, MpsTensor)}
        return tree_map(lambda value: given[id(value)] if id(value) in given else _wrapped(value), result)


def _moved(value: Tensor, device: torch.device | None, dtype: torch.dtype | None) -> Tensor:
    """`value.to(device, dtype)`."""
    is_there = isinstance(value, MpsTensor)
    goes_there = is_there if device is None else device.type == "mps"
    held = _held(value)
    if is_there and not goes_there:
        return held.clone() if dtype in (None, held.dtype) else torch.zeros_like(held, dtype=dtype)
    changed = held.to(dtype=dtype or held.dtype, device=device if not goes_there else None)
    if goes_there and not is_there:
        return _wrapped(changed.detach().clone())
    return value if changed is held else _wrapped(changed) if goes_there else changed


def _held(value: Any) -> Any:
    return value.held if isinstance(value, MpsTensor) else value


def _wrapped(value: Any) -> Any:
    if not isinstance(value, Tensor) or isinstance(value, MpsTensor):
        return value
    if value.dtype == torch.float64:
        raise TypeError(NO_DOUBLE)
    return MpsTensor(value)


@contextmanager
def mps_rules() -> Iterator[torch.device]:
    """Within it `torch.device("mps")` can be used on any machine."""
    with _Rules():
        yield MPS
