"""Where a video's temporal memory lives, by what is free: pure functions of sizes, for command and host.

At 512x512 the memory is larger than all weights. It stays on the device where it fits beside them and the
work; else the parts of some linear attentions, as many as have to, live in RAM and come to the device at
every evaluation, and the branches are evaluated one after the other where both at once do not fit.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

from ..inputs import VAE_STRIDE
from ..model.config import MemoConfig
from ..model.sizes import conditions_size, context_size, evaluation_size, memory_sizes
from .reference_plan import face_ids, reference_plan
from .values import SamplingSettings

MEMORY_PLACES = ("auto", "device", "ram")
"""What a user may ask for: what fits, or one of the two whatever is free."""

GIB = 2**30


@dataclass(frozen=True)
class Placement:
    """``in_ram`` has a flag per linear attention, or none where all memory is on the device; ``apart`` says
    that branches are evaluated one after the other."""

    in_ram: tuple[bool, ...] = ()
    apart: bool = False


@dataclass(frozen=True)
class ClipSizes:
    """What decides how much a clip takes: nets, pixels, whether a face is known, settings, the bytes of a
    number of the computation, and how many speak in turn: what the others' clips left stays meanwhile."""

    config: MemoConfig
    height: int
    width: int
    has_face: bool
    settings: SamplingSettings
    itemsize: int
    speakers: int = 1

    def needs(self) -> ClipNeeds:
        """In bytes."""
        net, settings = self.config.diffusion_net, self.settings
        latent = (self.height // VAE_STRIDE, self.width // VAE_STRIDE)
        branches = len(settings.branches)
        faces = face_ids(branches, has_face=self.has_face)
        plan = reference_plan(faces, settings.frames_per_clip, settings.past_frames, first_clip=False)
        remembering = len(plan.memory_rows)
        return ClipNeeds(
            memory=tuple(remembering * size * self.itemsize for size in memory_sizes(net, *latent)),
            remembering=remembering,
            branches=branches,
            evaluation=evaluation_size(net, settings.frames_per_clip, *latent) * self.itemsize,
            conditions=conditions_size(net, len(plan.past_frames), *latent) * self.itemsize,
            context=context_size(net, len(plan.image_faces), *latent) * self.itemsize,
            speakers=self.speakers,
        )

    def smaller(self) -> Iterator[ClipSizes]:
        """The same shape in fewer and fewer pixels."""
        for height in range(self.height - VAE_STRIDE, 0, -VAE_STRIDE):
            width = round(self.width * height / self.height / VAE_STRIDE) * VAE_STRIDE
            yield replace(self, height=height, width=max(VAE_STRIDE, width))


@dataclass(frozen=True)
class ClipNeeds:
    """Bytes that a clip takes on the device beside weights.

    ``memory`` is per linear attention and for all branches that have one of their own (``remembering``);
    ``evaluation`` for one branch of ``branches``; ``conditions`` while a clip's memory and context are made,
    ``context`` from then on. Of several ``speakers`` one is computed, and the others' stays.
    """

    memory: tuple[int, ...]
    remembering: int
    branches: int
    evaluation: int
    conditions: int
    context: int
    speakers: int = 1

    def steps(self, placement: Placement) -> int:
        """The most that is there while steps are computed."""
        rows = self.remembering if placement.apart else 1
        evaluations = self.evaluation * (1 if placement.apart else self.branches)
        passing = 2 * self.largest_in_ram(placement)  # one part is read, the next is on its way
        return self.stays(placement) + self.context + evaluations + passing // rows

    def making(self, placement: Placement) -> int:
        """The most that is there while memory and context are made."""
        passing = self.largest_in_ram(placement)
        return self.stays(placement) + self.context + self.conditions + passing

    def on_device(self, placement: Placement) -> int:
        """The most that is there at any time."""
        return max(self.steps(placement), self.making(placement))

    def largest_in_ram(self, placement: Placement) -> int:
        """The largest part that comes from RAM."""
        return max(
            (size for size, flag in zip(self.memory, placement.in_ram, strict=True) if flag), default=0
        )

    def stays(self, placement: Placement) -> int:
        """What of the memory is on the device all the time, and what the other speakers have there."""
        memory = sum(self.memory) - self.in_ram(placement)
        return self.speakers * memory + (self.speakers - 1) * self.context

    def in_ram(self, placement: Placement) -> int:
        """What of the memory lives in RAM."""
        return sum(size for size, in_ram in zip(self.memory, placement.in_ram, strict=True) if in_ram)


def place_memory(
    needs: ClipNeeds, free: float, place: str = "auto", *, free_making: float | None = None
) -> Placement:
    """Of the placements that fit the one that moves least; the leanest where none fits.

    ``free`` is what there is while steps are computed, ``free_making`` while memory and context are made.
    """
    parts = len(needs.memory)
    if place == "device":
        candidates = [(False,) * parts]
    elif place == "ram":
        candidates = [(True,) * parts]
    else:
        shares = 4 * parts  # fine enough to tell small parts from large ones
        candidates = [_spread(needs.memory, share / shares) for share in range(shares + 1)]
    aparts = (False, True) if needs.branches > 1 else (False,)
    placements = [Placement(in_ram, apart) for in_ram in candidates for apart in aparts]
    limit = free if free_making is None else free_making
    fitting = (p for p in placements if needs.steps(p) <= free and needs.making(p) <= limit)
    return next(fitting, min(placements, key=needs.on_device))


def fits(sizes: ClipSizes, free: float, place: str) -> bool:
    """Whether a clip can be made at all in ``free`` bytes without weights."""
    needs = sizes.needs()
    return needs.on_device(place_memory(needs, free, place)) <= free


def largest_that_fits(sizes: ClipSizes, free: float, place: str) -> ClipSizes | None:
    """The most pixels of the same shape, fewer than asked for."""
    return next((smaller for smaller in sizes.smaller() if fits(smaller, free, place)), None)


def describe_placement(needs: ClipNeeds, placement: Placement) -> str:
    """One line for the user."""
    total, in_ram = sum(needs.memory), needs.in_ram(placement)
    if not in_ram:
        where = f"on the device ({total / GIB:.2f} GiB)"
    elif in_ram == total:
        where = f"in RAM ({total / GIB:.2f} GiB), piece by piece on the device"
    else:
        where = f"{in_ram / GIB:.2f} of {total / GIB:.2f} GiB in RAM, piece by piece on the device"
    branches = "; branches one after the other" if placement.apart else ""
    return f"Temporal memory: {where}{branches}."


def _spread(sizes: Sequence[int], share: float) -> tuple[bool, ...]:
    """Flags for at least this share of the bytes, evenly over the net: those between hide the copies."""
    flags, owed = [], 0.0
    for size in sizes:
        owed += share * size
        flags.append(size > 0 and owed > 1e-6 * size)
        owed -= size if flags[-1] else 0
    return tuple(flags)
