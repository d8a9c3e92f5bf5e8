"""Temporal memory that lives in RAM: a linear attention's part comes to the device when it runs.

The next one's is on its way meanwhile, so at most two are on the device: by a stream of their own where the
device has streams, out of pinned memory. What arrives is what was stored, so where the memory lives does not
show in the frames.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Generator, Iterable, Sequence
from typing import Any

import torch
from torch import Tensor

from .memory import LayerMemory, MemoryState

Fetched = Callable[[], Tensor]
"""Waits, on the device and not in Python, for a tensor that was sent for."""


class Offload:
    """Keeps the flagged memories in RAM and brings them to ``device``.

    ``in_ram`` has a flag per linear attention, in the order of the forward pass. A host that has streams and
    pinned memory of its own overrides :meth:`side_stream` and :meth:`room_in_ram`.
    """

    def __init__(self, device: torch.device, in_ram: Sequence[bool]) -> None:
        self.device, self.in_ram = device, tuple(in_ram)
        backend = None if device.type == "cpu" else getattr(torch, device.type, None)
        self._backend: Any = backend if hasattr(backend, "Stream") else None  # cuda, xpu
        self._stream: Any = None

    def side_stream(self) -> Any:
        """The stream for copies to the device, or None where copies have to wait."""
        if self._stream is None and self._backend is not None:
            self._stream = self._backend.Stream(self.device)
        return self._stream

    def room_in_ram(self, tensor: Tensor) -> Tensor:
        """An empty tensor in RAM of the same kind, pinned where the device copies faster from such memory."""
        return torch.empty_like(tensor, device="cpu", pin_memory=self._backend is not None)

    def keep(self, index: int, memory: LayerMemory) -> LayerMemory:
        """A new memory where it is to live.

        Waits until it is there: a state may be saved next, and what its old memory was fetched from may go.
        """
        if not self.in_ram[index] or self.device.type == "cpu":
            return memory
        return LayerMemory(self._stored(memory.kv), self._stored(memory.z))

    def bring(self, memories: Iterable[LayerMemory], *, ahead: int = 1) -> Generator[LayerMemory, None, None]:
        """Each memory on the device, in order, with as many more on their way.

        What one was fetched from is kept until the next one is asked for. Broken off, it waits for what is on
        its way: that would still be written into room that others have been given meanwhile.
        """
        coming: deque[tuple[LayerMemory, list[Fetched]]] = deque()
        try:
            for memory in memories:
                coming.append((memory, [self.fetch(memory.kv), self.fetch(memory.z)]))
                if len(coming) > ahead:
                    yield _arrived(coming[0][1])
                    coming.popleft()
            while coming:
                yield _arrived(coming[0][1])
                coming.popleft()
        finally:
            for _, fetched in coming:
                for wait in fetched:
                    wait()

    def on(self, device: torch.device) -> Offload:
        """The same for another device."""
        return type(self)(device, self.in_ram)

    def passing(self, state: MemoryState, rows: int) -> int:
        """Bytes on the device while so many rows' memory comes and goes: one is read, the next on its way."""
        pairs = zip(state.memories, self.in_ram, strict=True)
        parts = [memory for memory, flag in pairs if flag]
        shares = [(part.kv.nbytes + part.z.nbytes) * rows // max(rows, part.kv.shape[0]) for part in parts]
        return 2 * max(shares, default=0)

    def fetch(self, tensor: Tensor) -> Fetched:
        """Send for a tensor; it is there when what this returns was called."""
        if tensor.device == self.device:
            return lambda: tensor
        stream = self.side_stream()
        if stream is None:
            copied = tensor.to(self.device)
            return lambda: copied
        copy = torch.empty_like(tensor, device=self.device)  # of the main stream, which lets go of it, too
        stream.wait_stream(self._backend.current_stream(self.device))  # whose work on that room is done then
        with self._backend.stream(stream):
            copy.copy_(tensor, non_blocking=True)
        arrival = stream.record_event()

        def arrived() -> Tensor:
            self._backend.current_stream(self.device).wait_event(arrival)
            return copy

        return arrived

    def _stored(self, tensor: Tensor) -> Tensor:
        return self.room_in_ram(tensor).copy_(tensor)


def _arrived(fetched: list[Fetched]) -> LayerMemory:
    kv, z = (wait() for wait in fetched)
    fetched.clear()  # from here on the caller alone holds what arrived
    return LayerMemory(kv, z)
