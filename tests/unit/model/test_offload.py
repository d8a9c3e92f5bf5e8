"""Memory that comes from RAM, piece by piece. On a device: `tests/accelerator/test_command.py`."""

from __future__ import annotations

import torch
from torch import Tensor

from memo_avatar.model.memory import LayerMemory
from memo_avatar.model.offload import Fetched, Offload

MEMORIES = [LayerMemory(torch.full((1, 2), float(index)), torch.zeros(1)) for index in range(3)]


class Watched(Offload):
    """Notes what is sent for and what is waited for, by the values of ``kv``."""

    def __init__(self) -> None:
        super().__init__(torch.device("cpu"), (True,) * len(MEMORIES))
        self.sent: list[float] = []
        self.awaited: list[float] = []

    def fetch(self, tensor: Tensor) -> Fetched:
        arrived = super().fetch(tensor)
        if tensor.ndim == 1:  # z
            return arrived
        number = float(tensor[0, 0])
        self.sent.append(number)

        def watched() -> Tensor:
            self.awaited.append(number)
            return arrived()

        return watched


def test_the_next_one_is_on_its_way_while_one_is_read() -> None:
    offload, seen = Watched(), []
    for memory in offload.bring(MEMORIES):
        seen.append((float(memory.kv[0, 0]), list(offload.sent), list(offload.awaited)))
    assert seen == [(0, [0, 1], [0]), (1, [0, 1, 2], [0, 1]), (2, [0, 1, 2], [0, 1, 2])]


def test_what_is_on_its_way_when_an_evaluation_is_broken_off_is_waited_for() -> None:
    """Else it would still be written into room that others have been given meanwhile."""
    offload = Watched()
    brought = offload.bring(MEMORIES)
    next(brought)
    brought.close()
    assert (offload.sent, offload.awaited) == ([0, 1], [0, 1])
