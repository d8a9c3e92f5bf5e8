"""Progress bars on stderr, and lines beside them."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import TracebackType

from torch import Tensor
from tqdm import tqdm


def note(text: str) -> None:
    """A line for the user that does not tear a bar."""
    tqdm.write(text, file=sys.stderr)


@contextmanager
def byte_progress(description: str) -> Iterator[Callable[[int, int], None]]:
    """A bar of bytes; call what it yields with (done, total)."""
    with tqdm(desc=description, unit="B", unit_scale=True, unit_divisor=1024, dynamic_ncols=True) as bar:

        def report(done: int, total: int) -> None:
            bar.total = total
            bar.update(done - bar.n)

        yield report


@contextmanager
def share_progress(description: str) -> Iterator[Callable[[float], None]]:
    """A bar of per cent; call what it yields with the share that is done, 0 to 1."""
    with tqdm(desc=description, total=100, unit="%", dynamic_ncols=True) as bar:

        def report(share: float) -> None:
            bar.update(min(100, round(100 * share)) - bar.n)

        yield report


@contextmanager
def count_progress(description: str, total: int, unit: str) -> Iterator[Callable[[], None]]:
    """A bar of things; call what it yields after each."""
    with tqdm(desc=description, total=total, unit=unit, dynamic_ncols=True) as bar:

        def report() -> None:
            bar.update()

        yield report


class ClipProgress:
    """A bar over clips times steps, with the time left."""

    def __init__(self, num_clips: int, steps: int) -> None:
        """``steps`` are those of a clip, of all who speak."""
        self.num_clips, self.steps = num_clips, steps
        self.bar = tqdm(total=num_clips * steps, unit="step", dynamic_ncols=True)

    def __enter__(self) -> ClipProgress:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.bar.close()

    def on_step(self, clip_index: int, step: int, latents: Tensor) -> None:
        """The clip loop's callback before each evaluation of the net."""
        self.bar.set_description(f"clip {clip_index + 1} of {self.num_clips}", refresh=False)
        self._advance(clip_index * self.steps + step)

    def on_clip(self, clip_index: int) -> None:
        """A clip is written."""
        self._advance((clip_index + 1) * self.steps)

    def _advance(self, done: int) -> None:
        self.bar.update(min(done, self.bar.total) - self.bar.n)
