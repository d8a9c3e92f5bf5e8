"""Voices too long for one piece: overlapping windows, blended where they meet, kept in a temporary file.

Only wav2vec2's attention and its position convolution see the windows; the recording's normalisation, the
first norm and the spreading over video frames stay global (`conv_features.py`). Memory does not follow the
length; the file takes 37 KB a frame with wav2vec2-base, 4 GB an hour, and vanishes with its owner.

Shapes: N video frames, L layers, D hidden size.
"""

from __future__ import annotations

import hashlib
import math
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, BinaryIO

import torch
from torch import Tensor

from .sound import MediaError

ONE_PIECE_SECONDS = 600
WINDOW_SECONDS = 120
OVERLAP_SECONDS = 20
SPARE_BYTES = 256 * 2**20


@dataclass(frozen=True)
class WindowPlan:
    """How long voices are cut: windows of ``window_seconds``, of which neighbours share ``overlap_seconds``.

    In the overlap the earlier window fades into the later one over the middle half; the outer quarters,
    where a window has little context on one side, are not used.
    """

    fps: int = 30
    one_piece_seconds: float = ONE_PIECE_SECONDS
    window_seconds: float = WINDOW_SECONDS
    overlap_seconds: float = OVERLAP_SECONDS

    def __post_init__(self) -> None:
        if not 0 < 2 * self.overlap_seconds <= self.window_seconds:
            raise ValueError(
                f"expected an overlap of up to half a window ({self.window_seconds:g} s) but got "
                f"{self.overlap_seconds:g} s (window plan). Use 120 and 20 seconds."
            )
        if not 0 < 2 * self.overlap <= self.window:
            raise ValueError(
                f"expected an overlap of up to half a window, in whole frames, but got {self.overlap} of "
                f"{self.window} (window plan). Use 120 and 20 seconds."
            )

    @property
    def one_piece(self) -> int:
        """Frames, padding included, up to which there is one window; a clip's padding never tips it over."""
        return math.ceil(self.one_piece_seconds * self.fps) + 31

    @property
    def window(self) -> int:
        """Frames of a window."""
        return round(self.window_seconds * self.fps)

    @property
    def overlap(self) -> int:
        """Frames that neighbours share."""
        return round(self.overlap_seconds * self.fps)

    def spans(self, num_frames: int) -> list[tuple[int, int]]:
        """(start, stop) of every window; each but the first begins within its predecessor."""
        step = self.window - self.overlap
        count = max(1, math.ceil((num_frames - self.overlap) / step))
        return [(i * step, min(i * step + self.window, num_frames)) for i in range(count)]


def windowed_states(
    states_of: Callable[[int, int], Tensor], num_frames: int, plan: WindowPlan
) -> Iterator[Tensor]:
    """Blocks of (n, L, D) states, in order and ``num_frames`` in all; ``states_of(start, stop)`` computes."""
    spans = plan.spans(num_frames)
    tail: Tensor | None = None  # the earlier window's part of the overlap
    for index, (start, stop) in enumerate(spans):
        states = states_of(start, stop)
        end = spans[index + 1][0] - start if index + 1 < len(spans) else stop - start
        if tail is None:
            yield states[:end]
        else:
            shared = tail.shape[0]
            yield tail.lerp_(states[:shared], fade(shared)[:, None, None])
            yield states[shared:end]
        tail = states[end:].clone()


def fade(frames: int) -> Tensor:
    """(n,) weights of the later window: 0 in the first quarter, 1 in the last, linear between."""
    position = (torch.arange(frames) + 0.5) / frames
    return (2 * position - 0.5).clamp(0, 1)


class StoredStates:
    """(N, window, L, D) embeddings in a temporary file: index it with frames to read their windows.

    Stands in for the tensor that shorter voices have; ``append`` fills it, block after block.
    """

    def __init__(self, num_frames: int, window: int) -> None:
        self.num_frames, self.window, self.filled = num_frames, window, 0
        self.row: tuple[int, ...] = ()
        self._digest = hashlib.sha256()
        self.file: BinaryIO = tempfile.TemporaryFile(prefix="memo-voice-")  # noqa: SIM115  lives with this

    @property
    def shape(self) -> tuple[int, ...]:
        return (self.num_frames, self.window, *self.row)

    @property
    def content(self) -> tuple[tuple[int, ...], str]:
        """For the key of a job: a checksum stands for the rows, which nobody has to read again."""
        return self.shape, self._digest.hexdigest()

    def append(self, block: Tensor) -> None:
        """The next (n, L, D) states."""
        if not self.row:
            self.row = tuple(block.shape[1:])
            self._check_space()
        data = block.contiguous().numpy().data
        self.file.write(data)
        self._digest.update(data)
        self.filled += block.shape[0]

    def __getitem__(self, key: Any) -> Tensor:
        """``[frames]`` -> (n, window, L, D); ``[frames, place]`` reads one place of the window only.

        ``frames`` is a slice or an index tensor.
        """
        frames, place = key if isinstance(key, tuple) else (key, None)
        index = torch.arange(self.num_frames)[frames]
        offsets = torch.arange(self.window) if place is None else torch.tensor([place])
        wanted = (index[:, None] + offsets - self.window // 2).clamp(0, self.num_frames - 1)
        needed, back = torch.unique(wanted, return_inverse=True)
        states = torch.stack([self._read(int(frame)) for frame in needed])
        return states[back] if place is None else states[back[:, 0]]

    def _read(self, frame: int) -> Tensor:
        nbytes = 4 * math.prod(self.row)
        self.file.flush()
        self.file.seek(frame * nbytes)
        return torch.frombuffer(bytearray(self.file.read(nbytes)), dtype=torch.float32).view(self.row)

    def _check_space(self) -> None:
        needed = 4 * math.prod(self.row) * self.num_frames + SPARE_BYTES
        folder = tempfile.gettempdir()
        free = shutil.disk_usage(folder).free
        if free < needed:
            raise MediaError(
                f"expected {needed / 2**30:.1f} GiB free for a long voice but got {free / 2**30:.1f} GiB "
                f"({folder}). Free some, or point {'TEMP' if os.name == 'nt' else 'TMPDIR'} elsewhere."
            )
