"""The command's clip loop on a simulated card, tiny nets, real values. Usage: probe_command.py"""

from __future__ import annotations

import gc
import json
import sys
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

sys.path.append(str(Path(__file__).resolve().parents[2]))

from tests.accelerator import simulated

cards = simulated.install("sim")

import torch  # noqa: E402 - after the device that it is to have
from torch import Tensor  # noqa: E402

from memo_avatar.clips.loop import generate_clips  # noqa: E402
from memo_avatar.clips.placement import Placement  # noqa: E402
from memo_avatar.clips.values import ClipState, SamplingSettings  # noqa: E402
from memo_avatar.model.nets import MemoModels  # noqa: E402
from tests.helpers.tiny_memo import PoolingVAE, tiny_memo, tiny_portrait, tiny_voice  # noqa: E402

torch.set_num_threads(1)
PARTS, STEPS, CLIPS = 26, 3, 3
SETTINGS = SamplingSettings(steps=STEPS, guidance_scale=2.0, frames_per_clip=4, past_frames=4)
EVERY, SOME, NONE = (True,) * PARTS, (False, True) * (PARTS // 2), ()


class CardVAE(PoolingVAE):
    """Pictures come to the card as a VAE brings them."""

    def encode(self, pixels: Tensor) -> Tensor:
        return super().encode(pixels.to("sim"))


def nets_on(place: str) -> MemoModels:
    """In float64: float32's rounding is large at sizes where a group is one value (docs/parity.md)."""
    models = tiny_memo()
    for part in ("diffusion_net", "reference_net", "image_proj", "audio_proj"):
        getattr(models, part).to(place, torch.float64)
    return models


MODELS = {place: nets_on(place) for place in ("cpu", "sim")}
WEIGHTS = cards.live()


def clips(place: str = "sim", *, face: bool = True, **options: Any) -> Iterator[Any]:
    vae = CardVAE() if place == "sim" else PoolingVAE()
    return generate_clips(
        MODELS[place], vae, tiny_portrait(face=face), tiny_voice(4 * CLIPS), SETTINGS, **options
    )


def frames(place: str = "sim", **options: Any) -> Tensor:
    return torch.cat([clip.frames for clip in clips(place, **options)])


def memory_bytes(face: bool = True) -> int:
    return sum(tensor.nbytes for tensor in next(clips("cpu", face=face)).state.memory.tensors().values())


def places() -> dict[str, Any]:
    """Frames by where the memory lives, with and without a face, together and apart."""
    found: dict[str, Any] = {}
    for face in (True, False):
        cpu = frames("cpu", face=face)
        for apart in (False, True):
            device = frames(face=face, placement=Placement(NONE, apart))
            name = f"{'face' if face else 'no face'}, {'apart' if apart else 'together'}"
            found[name] = {
                "error": float((device - cpu).abs().max()),
                "in RAM": torch.equal(device, frames(face=face, placement=Placement(EVERY, apart))),
                "some in RAM": torch.equal(device, frames(face=face, placement=Placement(SOME, apart))),
            }
    return {**found, **left()}


def room() -> dict[str, Any]:
    """Live and pinned bytes while steps are computed, beside the weights."""
    kept = {name: room_with(in_ram) for name, in_ram in (("device", NONE), ("ram", EVERY))}
    return {"memory": memory_bytes(), **kept}


def room_with(in_ram: tuple[bool, ...]) -> dict[str, Any]:
    seen: list[tuple[int, int]] = []

    def look(_clip: int, _step: int, _latents: Tensor) -> None:
        gc.collect()
        seen.append((cards.live() - WEIGHTS, cards.native.pinned()))

    held = list(clips(placement=Placement(in_ram), on_step=look))  # as a careless caller would
    assert len(held) == CLIPS
    return {"live": [live for live, _ in seen], "pinned": [pinned for _, pinned in seen]}


def traffic() -> dict[str, Any]:
    """What crosses for one evaluation, and from a clip's last one to the next one's first; who waits."""
    placements = {"device": Placement(NONE), "ram": Placement(EVERY), "ram, apart": Placement(EVERY, True)}
    return {"memory": memory_bytes(), **{name: traffic_with(where) for name, where in placements.items()}}


def traffic_with(placement: Placement) -> dict[str, Any]:
    marks: list[dict[str, int]] = []

    def look(*_step: Any) -> None:
        marks.append(cards.counters())

    with cards.waits() as waits:
        assert sum(1 for _ in clips(placement=placement, on_step=look)) == CLIPS
    grown = [{name: b[name] - a[name] for name in a} for a, b in pairwise(marks)]
    evaluations = [change for index, change in enumerate(grown, start=1) if index % STEPS]
    changes_of_clip = [change for index, change in enumerate(grown, start=1) if index % STEPS == 0]
    return {
        "evaluation up": sorted({change["received"] for change in evaluations}),
        "evaluation waits": sum(change["waits"] for change in evaluations),
        "clip up": max(change["received"] for change in changes_of_clip),
        "clip down": max(change["sent"] for change in changes_of_clip),
        "lines": sorted({line.split()[-1] for line in waits}),
    }


def resumed() -> dict[str, Any]:
    """A state that was in RAM goes on on the card, and the other way round; a stored one, too."""
    whole, found = frames()[4:], {}
    for name, before, after in (
        ("out of RAM", EVERY, NONE),
        ("into RAM", NONE, EVERY),
        ("RAM", EVERY, EVERY),
    ):
        state = next(clips(placement=Placement(before))).state
        found[name] = torch.equal(frames(placement=Placement(after), state=state), whole)
    stored = {name: tensor.cpu() for name, tensor in next(clips()).state.tensors().items()}
    found["stored"] = torch.equal(frames(state=ClipState.from_tensors(stored)), whole)
    return found


def broken() -> dict[str, Any]:
    """What stays on the card when a clip fails or is left."""
    found = {}
    for name, in_ram in (("device", NONE), ("ram", EVERY)):
        found[name] = {"said": failing(in_ram), **left()}
        leaving(in_ram)
        found[f"{name}, closed"] = left()
    return found


def failing(in_ram: tuple[bool, ...]) -> str:
    def fail(clip: int, step: int, _latents: Tensor) -> None:
        if (clip, step) == (1, 1):
            raise RuntimeError("on purpose")

    try:
        frames(placement=Placement(in_ram), on_step=fail)
    except RuntimeError as error:
        return str(error)
    return "nothing"


def leaving(in_ram: tuple[bool, ...]) -> None:
    iterator = clips(placement=Placement(in_ram))
    next(iterator)
    iterator.close()


def left() -> dict[str, int]:
    gc.collect()
    return {"left": cards.live() - WEIGHTS, "left pinned": cards.native.pinned()}


if __name__ == "__main__":
    print(json.dumps({check.__name__: check() for check in (places, room, traffic, resumed, broken)}))
