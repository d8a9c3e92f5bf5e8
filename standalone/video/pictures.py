"""Pictures of finished clips as GIF, WebP, APNG or numbered PNG files, through imageio; their sound as WAV.

Everything is read back before it counts as written. PNG files are written one by one; the animations' writer
holds all frames in memory.
"""

from __future__ import annotations

import wave
from collections.abc import Iterator, Sequence
from fractions import Fraction
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from memo_avatar.files.foreign import counted
from memo_avatar.video.segments import read_segments
from memo_avatar.video.streams import Sound
from memo_avatar.voice.sound import MediaError

from ..arguments import CommandError

ANIMATIONS: dict[str, dict[str, object]] = {
    ".gif": {},
    ".webp": {"quality": 90, "method": 4},
    ".apng": {},
}
"""What of Pillow's settings differs from its own."""

MOST_BYTES = 2**30
"""Of an animation's pixels, which are all in memory at once: 45 s of 512x512."""

FASTEST_GIF = 50
"""Frames a second. A GIF counts hundredths, and players slow down what shows for one of them."""

_INSTALL = "python -m pip install 'imageio>=2.31'"
_LAYOUTS = {"mono": 1, "stereo": 2}


def check_imageio(name: str) -> Any:
    """imageio's v3 interface, an optional package."""
    try:
        import imageio.v3 as imageio
    except ImportError as error:
        raise CommandError(
            f"expected the package imageio for {name} but it can't be imported: {error}. Run: {_INSTALL}"
        ) from error
    return imageio


def write_animation(
    segments: Sequence[Path], path: Path, ending: str, fps: int, expected: int | None = None
) -> int:
    """All pictures of the clips in one looping file; how many. ``expected`` is how many these have to be.

    Raises:
        MediaError: other pictures came out of the clips, or out of the file that was written.
    """
    frames = list(read_segments(segments))
    _check_count(len(frames), expected)
    times = shown_for(len(frames), fps, unit=10 if ending == ".gif" else 1)
    duration: list[int] | int = times
    still = all(np.array_equal(frame, frames[0]) for frame in frames)
    if still:  # one picture, whose file may know no time
        frames, duration = frames[:1], sum(times)
    with check_imageio(path.name).imopen(path, "w", plugin="pillow", extension=ending) as writer:
        while frames:
            writer.write(frames.pop(0), duration=duration, loop=0, **ANIMATIONS[ending])
    shown = _shown(path)
    if shown != sum(times) and not (still and shown == 0):
        raise MediaError(
            f"expected {sum(times)} ms of pictures but got {shown}, reading them again ({path.name}). "
            "Check the disk and its room, then run again."
        )
    return len(times)


def shown_for(count: int, fps: int, unit: int) -> list[int]:
    """Milliseconds for which each frame shows, whole units of them, that add up to the frames' time."""
    ends = [round(Fraction(1000 * index, fps * unit)) * unit for index in range(count + 1)]
    return [stop - start for start, stop in pairwise(ends)]


def write_frames(segments: Sequence[Path], folder: Path, pattern: str, expected: int | None = None) -> int:
    """A PNG file for each picture of the clips, named by its number from 0 on; how many.

    Raises:
        MediaError: other pictures came out of the clips, or out of a file that was written.
    """
    imageio, count = check_imageio(pattern), 0
    for count, frame in enumerate(read_segments(segments), start=1):
        path = folder / (pattern % (count - 1))
        imageio.imwrite(path, frame, plugin="pillow", extension=".png")
        if not np.array_equal(imageio.imread(path, plugin="pillow", extension=".png"), frame):
            raise MediaError(
                f"expected the frame that was written but got another, reading it again ({path.name}). Check "
                "the disk and its room, then run again."
            )
    _check_count(count, expected)
    return count


def write_wav(sound: Sound, path: Path, pictures: int, fps: int) -> None:
    """The sound of so many pictures, 16 bits a sample, a second in memory at a time."""
    count = round(Fraction(pictures, fps) * sound.rate)
    with wave.open(str(path), "wb") as file:
        file.setnchannels(_LAYOUTS[sound.layout])
        file.setsampwidth(2)
        file.setframerate(sound.rate)
        for start in range(0, count, sound.rate):
            file.writeframes(_to_16_bits(sound.read(min(sound.rate, count - start))))
    with wave.open(str(path), "rb") as file:
        if file.getnframes() != count:
            raise MediaError(
                f"expected {count} samples but got {file.getnframes()}, reading them again (WAV). Check the "
                "disk and its room, then run again."
            )


def _to_16_bits(samples: NDArray[np.float32]) -> bytes:
    """(channels, n) in -1..1 -> packed, little-endian."""
    return np.round(samples.T.clip(-1, 1) * 32767).astype("<i2").tobytes()


def _check_count(count: int, expected: int | None) -> None:
    if count == 0 or expected not in (None, count):
        wanted = counted(expected, "picture") if expected else "some pictures"
        raise MediaError(f"expected {wanted} but got {count} (clips). Run again with --restart.")


def _shown(path: Path) -> int:
    """Milliseconds that a player shows; equal neighbours may have become one picture."""
    with Image.open(path) as animation:
        return round(sum(_durations(animation)))


def _durations(animation: Any) -> Iterator[float]:
    for index in range(getattr(animation, "n_frames", 1)):
        animation.seek(index)
        animation.load()
        yield animation.info.get("duration", 0)
