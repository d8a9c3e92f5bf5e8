"""What the simulated accelerator itself does. Usage: probe_simulated.py"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

sys.path.append(str(Path(__file__).resolve().parents[2]))

from tests.accelerator import simulated

MIB = 2**20
cards = simulated.install("sim", [64 * MIB, 64 * MIB])

import torch  # noqa: E402 - after the device that it is to have

FIRST, SECOND = torch.device("sim", 0), torch.device("sim", 1)


def error_of(work: Callable[[], Any]) -> str:
    """The name of what it raises."""
    try:
        work()
    except Exception as error:
        return type(error).__name__
    return "nothing"


def values() -> dict[str, Any]:
    """Kernels are the CPU's, and new memory is NaN."""
    x, w = torch.randn(4, 8), torch.randn(3, 8)
    on_card = torch.nn.functional.linear(x.to(FIRST), w.to(FIRST)).cpu()
    return {
        "equal": torch.equal(on_card, torch.nn.functional.linear(x, w)),
        "new memory is NaN": bool(torch.empty(5, device=FIRST).isnan().all()),
    }


def devices() -> dict[str, Any]:
    """Each tensor lies on one card, and operators do not mix."""
    first, second, cpu = torch.ones(2, device=FIRST), torch.ones(2, device=SECOND), torch.ones(2)
    return {
        "cards": [str((x + x).device) for x in (first, second)],
        "two cards": error_of(lambda: first + second),
        "card and cpu": error_of(lambda: torch.cat([first, cpu])),
        "card and scalar": error_of(lambda: first * torch.tensor(2.0)),
        "indices on the cpu": error_of(lambda: first[torch.tensor([1])]),
    }


def memory() -> dict[str, Any]:
    """Counted, limited, given back."""
    with cards.measured(1) as found:
        kept = torch.empty(8 * MIB, dtype=torch.uint8, device=SECOND)
        passing = torch.empty(16 * MIB, dtype=torch.uint8, device=SECOND)
        del passing
        refusal = error_of(lambda: torch.empty(60 * MIB, dtype=torch.uint8, device=SECOND))
    counted = {name: found[name] // MIB for name in ("live", "peak")} | {"refused": found["refused"]}
    del kept
    return {**counted, "refusal": refusal, "left": cards.live()}


def traffic() -> dict[str, Any]:
    """What crosses, and which lines wait."""
    x = torch.empty(3 * MIB, dtype=torch.uint8)
    with cards.measured() as up:
        on_card = x.to(FIRST)
    with cards.measured() as down, cards.waits() as waits:
        on_card.cpu()
        bool(on_card[0])
    return {
        "up": up["received"] // MIB,
        "down": down["sent"] // MIB,
        "waits": down["waits"],
        "lines": sorted(line.split(" at ")[0] for line in waits),
        "named": all("traffic" in line for line in waits),
    }


def streams() -> dict[str, Any]:
    """A side stream's copy arrives when it is waited for."""
    pinned, on_card = torch.ones(4, pin_memory=True), torch.empty(4, device=FIRST)
    stream = torch.sim.Stream(FIRST)
    with torch.sim.stream(stream):
        on_card.copy_(pinned, non_blocking=True)
    early = on_card.cpu()
    torch.sim.current_stream(FIRST).wait_event(stream.record_event())
    counted = cards.native.pinned()
    known = pinned.is_pinned()
    del pinned
    return {
        "before": bool(early.isnan().all()),
        "after": on_card.cpu().tolist(),
        "pinned": [known, counted, cards.native.pinned()],
    }


def dry() -> dict[str, Any]:
    """Shapes and bytes of gigabytes in no time."""
    cards.native.set_limit(0, 2**40)
    cards.native.set_dry(True)
    try:
        with torch.inference_mode(), cards.measured() as found:
            x = torch.empty(2**17, 2**12, dtype=torch.bfloat16, device=FIRST)
            y = torch.nn.functional.gelu(torch.nn.functional.linear(x, x[:64]))
        return {"shape": list(y.shape), "peak GiB": found["peak"] / 2**30}
    finally:
        cards.native.set_dry(False)


if __name__ == "__main__":
    print(json.dumps({check.__name__: check() for check in (values, devices, memory, traffic, streams, dry)}))
