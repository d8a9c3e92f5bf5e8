"""Seconds and bytes of work on a device: a card, the simulated one, or the CPU, which has only seconds."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn

GIB = 2**30
Values = dict[str, Any]


class Meter:
    """``timed`` is False where nothing is computed, so that time means nothing."""

    def __init__(self, device: torch.device, *, timed: bool = True) -> None:
        self.device, self.timed = device, timed
        self._backend: Any = None if device.type == "cpu" else getattr(torch, device.type)

    def __call__(self, work: Callable[[], object], repeats: int) -> Values:
        """Mean seconds of some calls, and the most that was live in them, after one call to warm up."""
        work()
        with self.watched() as found:
            for _ in range(repeats):
                work()
        if "seconds" in found:
            found["seconds"] /= repeats
        return found

    @contextmanager
    def watched(self) -> Iterator[Values]:
        """What the work inside takes; filled in when it is done."""
        found: Values = {}
        self.wait()
        if self._backend is not None:
            self._backend.reset_peak_memory_stats(self.device)
        started = time.perf_counter()
        yield found
        self.wait()
        if self.timed:
            found["seconds"] = time.perf_counter() - started
        if self._backend is not None:
            found["peak_gib"] = self._backend.max_memory_allocated(self.device) / GIB
        if self.device.type == "cuda":  # with what torch keeps and other programs cannot have
            found["reserved_gib"] = torch.cuda.max_memory_reserved(self.device) / GIB

    def by_kind(self, kinds: Mapping[str, Iterable[nn.Module]], work: Callable[[], object]) -> Values:
        """Seconds of one call of ``work`` in each kind of module; what is in none of them is "rest"."""
        if not self.timed:
            work()
            return {}
        marks: dict[str, list[tuple[Any, Any]]] = {kind: [] for kind in kinds}
        timed = [(module, marks[kind]) for kind, modules in kinds.items() for module in modules]
        before = [vars(module).get("forward") for module, _ in timed]
        for module, spans in timed:
            module.forward = self._between_marks(module.forward, spans)
        try:
            whole: list[tuple[Any, Any]] = []
            self._between_marks(work, whole)()
            self.wait()
        finally:
            for (module, _), forward in zip(timed, before, strict=True):
                if forward is None:
                    del module.forward
                else:
                    module.forward = forward
        seconds = {kind: sum(map(self._seconds, spans)) for kind, spans in marks.items()}
        return {**seconds, "rest": self._seconds(whole[0]) - sum(seconds.values())}

    def wait(self) -> None:
        """Until the device has done everything."""
        if self._backend is not None:
            self._backend.synchronize(self.device)

    def _between_marks(self, call: Callable[..., Any], spans: list[tuple[Any, Any]]) -> Callable[..., Any]:
        def marked(*args: Any, **options: Any) -> Any:
            start = self._mark()
            result = call(*args, **options)
            spans.append((start, self._mark()))
            return result

        return marked

    def _mark(self) -> Any:
        """Now: on the device's own clock where it has one, so that marks make it wait for nothing."""
        if self.device.type not in ("cuda", "xpu"):
            return time.perf_counter()
        event = self._backend.Event(enable_timing=True)
        event.record()
        return event

    def _seconds(self, span: tuple[Any, Any]) -> float:
        start, end = span
        return end - start if isinstance(start, float) else start.elapsed_time(end) / 1000
