"""Which images run through the reference net for a clip, and who attends to which. Pure arithmetic."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class ReferencePlan:
    """Which (image, face) pairs go through the reference net for one clip, each distinct pair once.

    ``image_faces`` lists the faces (rows of the face tokens) with which the reference image runs, and
    ``reference_rows[b][f]`` which of these runs frame f of branch b attends to. ``past_frames`` and
    ``past_faces`` list the runs of past frames; ``past_rows[b][p]`` says which of these is past frame p of
    branch b. In the first clip every past frame is the reference image: there are no such runs, and
    ``past_rows`` points at ``image_faces``.
    """

    image_faces: tuple[int, ...]
    reference_rows: tuple[tuple[int, ...], ...]
    past_frames: tuple[int, ...]
    past_faces: tuple[int, ...]
    past_rows: tuple[tuple[int, ...], ...]

    @property
    def memory_rows(self) -> tuple[tuple[int, ...], ...]:
        """``past_rows``, once where it is the same for all branches: then they share one memory."""
        return self.past_rows[:1] if len(set(self.past_rows)) == 1 else self.past_rows


def face_ids(branches: int, *, has_face: bool) -> tuple[int, ...]:
    """A number per branch, equal where the face tokens are: without a face, cond has uncond's zeros."""
    return tuple(range(branches)) if has_face else (0,) * branches


def reference_plan(
    face_ids: tuple[int, ...], frames: int, past_frames: int, *, first_clip: bool
) -> ReferencePlan:
    """Lay out the reference net's batch for a clip of ``frames`` frames after ``past_frames`` past frames.

    Upstream stacks [image, P past frames] once per branch and *tiles* the branches' face tokens over the rows
    of the stack, so past frames alternate between the faces; it tiles the branches' image features over the
    frames in the same way, so the cond branch attends to both in turn. The published results come from this,
    so it is kept. Upstream runs every row of every clip. Here: equal rows run once, and ``face_ids`` maps
    branches with equal face tokens to one id.
    """
    branches = range(len(face_ids))

    def face(branch: int, position: int) -> int:
        return face_ids[(branch * (1 + past_frames) + position) % len(face_ids)]

    images: dict[int, int] = {}
    pasts: dict[tuple[int, int], int] = {}

    def image_row(row: int) -> int:
        return images.setdefault(face(row % len(face_ids), 0), len(images))

    def past_row(branch: int, past: int) -> int:
        if first_clip:
            return images.setdefault(face(branch, 1 + past), len(images))
        return pasts.setdefault((past, face(branch, 1 + past)), len(pasts))

    reference_rows = tuple(
        tuple(image_row(branch * frames + f) for f in range(frames)) for branch in branches
    )
    past_rows = tuple(tuple(past_row(branch, p) for p in range(past_frames)) for branch in branches)
    return ReferencePlan(
        tuple(images), reference_rows, tuple(p for p, _ in pasts), tuple(f for _, f in pasts), past_rows
    )
