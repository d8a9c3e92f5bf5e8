"""The simulated accelerator (`simulated.cpp`) in this process: built once per torch, then a device by name.

    cards = simulated.install("sim", limits=[2**30])      # torch.device("sim"), torch.sim
    cards.counters()["peak"]

ComfyUI knows accelerators by their makers' names: there it is called "npu". Elsewhere that name would send
other libraries to torch_npu, so there it is "sim". A process has one accelerator, installed once.
"""

from __future__ import annotations

import hashlib
import importlib.machinery
import importlib.util
import os
import shutil
import subprocess
import sys
import sysconfig
import types
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

SOURCE = Path(__file__).with_name("simulated.cpp")
ROOT = Path(__file__).resolve().parents[2]
COMPILER = os.environ.get("CXX", "g++")
NO_LIMIT = 2**62


def missing_tools() -> str | None:
    """What a build lacks on this machine, in words; None where it has everything."""
    if sys.platform != "linux":
        return "the simulated accelerator is built on Linux only"
    if shutil.which(COMPILER) is None:
        return f"no {COMPILER} to build the simulated accelerator"
    if not (Path(sysconfig.get_paths()["include"]) / "Python.h").is_file():
        return "no Python headers to build the simulated accelerator"
    return None


def build() -> Path:
    """The compiled accelerator for this Python and torch, from the cache where it is there already."""
    import torch

    key = (SOURCE.read_bytes(), torch.__version__, sys.version, sysconfig.get_platform())
    digest = hashlib.sha256(repr(key).encode()).hexdigest()[:16]
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "teacache-memo"
    library = cache / f"simulated_{digest}.so"
    if not library.is_file():
        cache.mkdir(parents=True, exist_ok=True)
        partial = library.with_suffix(f".{os.getpid()}.partial")
        done = subprocess.run(_command(partial), capture_output=True, text=True, check=False)
        if done.returncode != 0:
            raise RuntimeError(f"the simulated accelerator does not build:\n{done.stderr[-4000:]}")
        partial.replace(library)  # another process may have been as fast: either file will do
    return library


def _command(library: Path) -> list[str]:
    from torch.utils import cpp_extension

    includes = [*cpp_extension.include_paths(), sysconfig.get_paths()["include"]]
    folders = cpp_extension.library_paths()
    return [
        *(COMPILER, "-O1", "-w", "-std=c++20", "-fPIC", "-shared", str(SOURCE), "-o", str(library)),
        *("-DTORCH_EXTENSION_NAME=simulated", "-DTORCH_API_INCLUDE_EXTENSION_H"),
        *(f"-I{folder}" for folder in includes),
        *(f"-L{folder}" for folder in folders),
        *("-lc10", "-ltorch_cpu", "-ltorch", "-ltorch_python"),
    ]


def _load(library: Path) -> Any:
    loader = importlib.machinery.ExtensionFileLoader("simulated", str(library))
    spec = importlib.util.spec_from_loader("simulated", loader)
    assert spec is not None
    native = importlib.util.module_from_spec(spec)
    loader.exec_module(native)
    return native


class Cards:
    """The simulated cards of this process: limits, counters, waits."""

    def __init__(self, native: Any, limits: Sequence[int]) -> None:
        self.native = native
        self._peaks: list[list[int]] = []
        self._listeners: list[Callable[[str, int], None]] = []
        native.set_listener(lambda what, bytes: [listen(what, bytes) for listen in self._listeners])
        for card, limit in enumerate(limits):
            native.set_limit(card, limit)

    def counters(self, card: int = 0) -> dict[str, int]:
        """Bytes: live, peak, limit, received, sent; and counts: waits, refused allocations."""
        return dict(self.native.counters(card))

    def live(self) -> int:
        """Bytes on all cards."""
        return sum(self.counters(card)["live"] for card in range(self.native.card_count()))

    @contextmanager
    def measured(self, card: int = 0) -> Iterator[dict[str, int]]:
        """What the work inside took of one card: its counters' growth; `peak` and `live` are levels."""
        before, found = self.counters(card), dict[str, int]()
        self.start_peak()
        self._peaks.append([0] * self.native.card_count())
        try:
            yield found
        finally:
            self.start_peak()
            after = self.counters(card) | {"peak": self._peaks.pop()[card]}
            levels = ("live", "peak", "limit")
            found |= {name: value - before[name] * (name not in levels) for name, value in after.items()}

    def start_peak(self) -> None:
        """The peak so far belongs to all measurements that run; then the cards start a new one."""
        for card in range(self.native.card_count()):
            peak = self.counters(card)["peak"]
            for levels in self._peaks:
                levels[card] = max(levels[card], peak)
        self.native.reset_peak()

    @contextmanager
    def waits(self) -> Iterator[Counter[str]]:
        """Every time the program waits for a card, by the line of the product or else of its host."""
        with self._heard(("item", "copy"), lambda _bytes: 1, _line) as found:
            yield found

    @contextmanager
    def crossings(self, place: Callable[[], str]) -> Iterator[Counter[str]]:
        """Bytes that cross to or from a card, by direction and what `place` makes of the caller's frames."""
        with self._heard(("up", "down"), lambda bytes: bytes, place) as found:
            yield found

    @contextmanager
    def _heard(
        self, kinds: Sequence[str], weight: Callable[[int], int], place: Callable[[], str]
    ) -> Iterator[Counter[str]]:
        found: Counter[str] = Counter()

        def listen(what: str, bytes: int) -> None:
            if what in kinds:
                found[f"{what} at {place()}"] += weight(bytes)

        self._listeners.append(listen)
        try:
            yield found
        finally:
            self._listeners.remove(listen)


def frames() -> Iterator[tuple[Path, int, str]]:
    """File, line and function of the callers, innermost first, this file left out."""
    frame = sys._getframe(1)
    while frame is not None:
        path = Path(frame.f_code.co_filename)
        if path != Path(__file__):
            yield path, frame.f_lineno, frame.f_code.co_name
        frame = frame.f_back


def _line() -> str:
    """The innermost frame that is the product's own, else the innermost one outside torch."""
    others = []
    for path, line, function in frames():
        if "site-packages" in path.parts or path.suffix != ".py":
            continue
        if path.is_relative_to(ROOT) and not path.is_relative_to(ROOT / "tests"):
            return f"{path.relative_to(ROOT)}:{line} {function}"
        others.append(f"{path.name}:{line} {function}")
    return others[0] if others else "?"


def install(name: str, limits: Sequence[int] = (NO_LIMIT,)) -> Cards:
    """Make `torch.device(name)` and `torch.<name>` with a card for each limit in bytes."""
    import torch

    native = _load(build())
    native.register(len(limits))
    cards = Cards(native, limits)
    torch.version.cuda = None  # a build for CUDA without a GPU: who asks for CUDA first must not find it
    torch.utils.rename_privateuse1_backend(name)
    torch._register_device_module(name, _device_module(name, cards))
    torch.utils.generate_methods_for_privateuse1_backend(for_packed_sequence=False)
    if name == "npu":  # ComfyUI imports torch_npu to see whether there is one
        marker = types.ModuleType("torch_npu")
        marker.__spec__ = importlib.machinery.ModuleSpec("torch_npu", None)
        sys.modules["torch_npu"] = marker
    return cards


def _device_module(name: str, cards: Cards) -> types.ModuleType:
    """`torch.<name>`: what torch and ComfyUI ask of a device's module. There is no caching allocator, so what
    is reserved is what is live."""
    native, module = cards.native, types.ModuleType(f"torch.{name}")

    def index(device: Any = None) -> int:
        found = getattr(device, "index", device)
        if isinstance(found, str):
            found = int(found.rpartition(":")[2])
        return native.current_card() if found is None else found

    def mem_get_info(device: Any = None) -> tuple[int, int]:
        now = cards.counters(index(device))
        return now["limit"] - now["live"], now["limit"]

    def memory_stats(device: Any = None) -> dict[str, int]:
        live = cards.counters(index(device))["live"]
        return {"active_bytes.all.current": live, "reserved_bytes.all.current": live}

    def properties(device: Any = None) -> Any:
        total = cards.counters(index(device))["limit"]
        return types.SimpleNamespace(name="simulated", major=9, minor=0, has_fp16=True, total_memory=total)

    def nothing(*_args: Any, **_options: Any) -> None: ...

    functions: dict[str, Any] = {
        **{"is_available": lambda: True, "is_initialized": lambda: True, "_is_in_bad_fork": lambda: False},
        **dict.fromkeys(("_lazy_init", "empty_cache", "manual_seed", "manual_seed_all"), nothing),
        "current_device": native.current_card,
        "device_count": native.card_count,
        "set_device": lambda device: native.set_card(index(device)),
        "synchronize": lambda _device=None: native.arrive(SideStream.ID),
        "get_device_name": lambda _device=None: "simulated accelerator",
        "get_device_properties": properties,
        "get_amp_supported_dtype": list,
        "mem_get_info": mem_get_info,
        "memory_stats": memory_stats,
        "max_memory_allocated": lambda device=None: cards.counters(index(device))["peak"],
        "reset_peak_memory_stats": lambda _device=None: cards.start_peak(),
        "Stream": lambda _device=None: SideStream(native),
        "current_stream": lambda _device=None: MainStream(native),
        "stream": side_stream,
    }
    vars(module).update(functions)
    return module


class MainStream:
    """What a program works on: each operator is done when it is called."""

    def __init__(self, native: Any) -> None:
        self.native = native

    def wait_stream(self, other: SideStream) -> None:
        self.native.arrive(other.ID)

    wait_event = wait_stream

    def synchronize(self) -> None: ...


class SideStream:
    """A stream beside it: its non-blocking copies are done when it is waited for."""

    ID = 1

    def __init__(self, native: Any) -> None:
        self.native = native

    def wait_stream(self, _main: MainStream) -> None: ...

    def record_event(self) -> SideStream:
        return self

    def synchronize(self) -> None:
        self.native.arrive(self.ID)


@contextmanager
def side_stream(stream: SideStream) -> Iterator[None]:
    """`with torch.<name>.stream(stream):`"""
    before = stream.native.exchange_stream(stream.ID)
    try:
        yield
    finally:
        stream.native.exchange_stream(before)


if __name__ == "__main__":  # build it, or say in one line why not
    if (reason := missing_tools()) is not None:
        print(reason)
        sys.exit(3)
    build()
