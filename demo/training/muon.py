"""Muon: momentum, orthogonalised (Jordan et al. 2024), for the weights that are matrices; AdamW for the rest.

Small nets have hundreds of small matrices, so those of one shape are orthogonalised together.
"""

from collections import defaultdict
from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, nn


def orthogonalize(matrices: Tensor, steps: int = 5) -> Tensor:
    """(N, R, C) -> the nearest semi-orthogonal matrices, roughly, by a quintic Newton-Schulz iteration."""
    a, b, c = 3.4445, -4.7750, 2.0315
    tall = matrices.shape[1] > matrices.shape[2]
    x = matrices.transpose(1, 2) if tall else matrices
    x = x / (x.norm(dim=(1, 2), keepdim=True) + 1e-7)
    for _ in range(steps):
        gram = x @ x.transpose(1, 2)
        x = a * x + (b * gram + c * gram @ gram) @ x
    return x.transpose(1, 2) if tall else x


class Muon:
    """Both optimisers behind one `step(scale)`; `scale` is the schedule's factor on either learning rate."""

    def __init__(
        self,
        named: Iterable[tuple[str, nn.Parameter]],
        *,
        lr: float,
        adam_lr: float,
        momentum: float = 0.95,
        weight_decay: float = 0.0,
    ) -> None:
        self.lr, self.adam_lr, self.momentum, self.weight_decay = lr, adam_lr, momentum, weight_decay
        self.groups: dict[tuple[int, int], list[nn.Parameter]] = defaultdict(list)
        others = []
        for name, parameter in named:
            if not parameter.requires_grad:
                continue
            # First and last layers and tables have no matrix structure worth keeping.
            edge = any(part in name for part in ("conv_in", "conv_out", "embedding_table", "quant_conv"))
            if parameter.ndim < 2 or edge:
                others.append(parameter)
            else:
                self.groups[(parameter.shape[0], parameter[0].numel())].append(parameter)
        self.velocity = {shape: torch.zeros(len(group), *shape) for shape, group in self.groups.items()}
        self.adam = torch.optim.AdamW(others, lr=adam_lr, betas=(0.9, 0.99), weight_decay=0.0)

    def zero_grad(self) -> None:
        """Forget every gradient."""
        self.adam.zero_grad(set_to_none=True)
        for group in self.groups.values():
            for parameter in group:
                parameter.grad = None

    @torch.no_grad()
    def step(self, scale: float) -> None:
        """Update every weight at `scale` times its learning rate."""
        for group in self.adam.param_groups:
            group["lr"] = self.adam_lr * scale
        self.adam.step()
        for shape, group in self.groups.items():
            gradients = [p.grad if p.grad is not None else torch.zeros_like(p) for p in group]
            gradient = torch.stack([g.reshape(shape) for g in gradients])
            velocity = self.velocity[shape] = self.velocity[shape].to(gradient.device)
            velocity.lerp_(gradient, 1 - self.momentum)
            update = orthogonalize(gradient.lerp(velocity, self.momentum))
            # An update of root mean square 0.2 * lr per weight, about what Adam's would be.
            update *= -0.2 * self.lr * scale * max(shape) ** 0.5
            for parameter, change in zip(group, update, strict=True):
                parameter.mul_(1 - self.lr * scale * self.weight_decay).add_(change.view_as(parameter))

    def state_dict(self) -> dict[str, Any]:
        """What a training checkpoint keeps."""
        return {"adam": self.adam.state_dict(), "velocity": self.velocity}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue from `state_dict`."""
        self.adam.load_state_dict(state["adam"])
        self.velocity = state["velocity"]
