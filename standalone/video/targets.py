"""What the finished clips become: a video file, an animation, or a folder of frames, the sound beside it."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from memo_avatar.files.disk import DiskError, place, place_folder, remove, try_place
from memo_avatar.files.foreign import counted
from memo_avatar.video.delivery import Delivery
from memo_avatar.video.streams import FORMATS, Sound, expected_bytes
from memo_avatar.video.unfinished import Unfinished
from memo_avatar.video.writer import check_output

from ..arguments import CommandError
from .pictures import (
    ANIMATIONS,
    FASTEST_GIF,
    MOST_BYTES,
    check_imageio,
    write_animation,
    write_frames,
    write_wav,
)

_NUMBERED = re.compile(r"([^%]*)%(?:0(\d))?d([^%]*\.png)", re.IGNORECASE)


@dataclass(frozen=True)
class VideoFile:
    """MP4, MOV or MKV: the clips' own packets, and the sound."""

    path: Path
    codec: str  # of the clips, one of `streams.CODECS`

    @property
    def place(self) -> Path:
        """What appears in the end."""
        return self.path

    def check(self, used: Sequence[Path], delivery: Delivery | None, size: tuple[int, int]) -> None:
        """Find out now what would fail at the end; without ``delivery``, before anything is read."""
        nbytes = 0 if delivery is None else expected_bytes(delivery.total, *size, self.codec)
        check_output(self.path, used, nbytes=nbytes)
        if self.codec == "prores" and self.path.suffix.lower() != ".mov":
            raise CommandError(
                f"expected a .mov for ProRes but got {self.path.name} (--output). Name it .mov."
            )

    def write(
        self, work: Unfinished, sound: Sound, delivery: Delivery, tags: Mapping[str, str], *, whole: bool
    ) -> None:
        """The clips that are there, in the file's place; ``whole``: these have to be all."""
        with _new_part(work, self.path.parent) as part:
            kind = FORMATS[self.path.suffix.lower()]
            work.join(part, sound, delivery, whole=whole, kind=kind, tags=tags)
            place(part, self.path)


@dataclass(frozen=True)
class Pictures:
    """GIF, WebP, APNG, or a folder of numbered PNG files; the sound in a WAV file of the same name."""

    path: Path
    codec = "png"

    @property
    def _is_folder(self) -> bool:
        return self.path.suffix.lower() == ".png"

    @property
    def place(self) -> Path:
        """What appears in the end: the file, or the folder."""
        return self.path.parent if self._is_folder else self.path

    @property
    def _sound(self) -> Path:
        """`talk.wav` beside `talk.gif`, `frames.wav` beside `frames/`."""
        name = self.place.name if self._is_folder else self.place.stem
        return self.place.with_name(f"{name}.wav")

    def check(self, used: Sequence[Path], delivery: Delivery | None, size: tuple[int, int]) -> None:
        """Find out now what would fail at the end; without ``delivery``, before anything is read."""
        check_imageio(self.path.name)
        nbytes = 0 if delivery is None else 2 * expected_bytes(delivery.total, *size, self.codec)
        if self._is_folder:
            _check_folder(self.path, used)
            try_place(self._sound, nbytes=nbytes, apart_from=used)
        else:
            try_place(self.path, nbytes=nbytes, apart_from=used)
            try_place(self._sound, apart_from=used)
        if not self.place.exists() and self._sound.exists() and self._sound.stat().st_size:
            raise CommandError(
                f"expected no such file yet but got one ({self._sound}): the sound of {self.place.name} "
                "goes there. Choose another name."
            )
        if delivery is not None and not self._is_folder:
            self._check_animation(delivery, size)

    def _check_animation(self, delivery: Delivery, size: tuple[int, int]) -> None:
        if self.path.suffix.lower() == ".gif" and delivery.fps > FASTEST_GIF:
            raise CommandError(
                f"expected at most {FASTEST_GIF} frames a second of a GIF but got {delivery.fps}. Use --fps "
                f"{FASTEST_GIF}."
            )
        nbytes = 3 * delivery.total * size[0] * size[1]
        if nbytes > MOST_BYTES:
            seconds = MOST_BYTES // (3 * size[0] * size[1] * delivery.fps)
            raise CommandError(
                f"expected at most {seconds} s of {size[0]}x{size[1]}, all in memory at once, in a "
                f"{self.path.suffix[1:]} but got {delivery.total / delivery.fps:.0f} s. Use --max-seconds, a "
                "smaller picture, or frames/%05d.png."
            )

    def write(
        self, work: Unfinished, sound: Sound, delivery: Delivery, tags: Mapping[str, str], *, whole: bool
    ) -> None:
        """The clips that are there, in their place; ``whole``: these have to be all."""
        segments, expected = work.segments(), delivery.total if whole else None
        beside = self.place.parent
        try:
            with _new_part(work, beside) as part, _new_part(work, beside) as heard:
                if self._is_folder:
                    remove(part)
                    part.mkdir()
                    count = write_frames(segments, part, self.path.name, expected)
                else:
                    count = write_animation(segments, part, self.path.suffix.lower(), delivery.fps, expected)
                write_wav(sound, heard, count, delivery.fps)
                (place_folder if self._is_folder else place)(part, self.place)
                place(heard, self._sound)
        except OSError as error:
            raise DiskError(
                f"expected room for the pictures but got {error.strerror or error} ({beside}). "
                f"What is finished, {counted(work.done, 'clip')}, is kept: free some room, then run again to "
                "go on."
            ) from error


@contextmanager
def _new_part(work: Unfinished, beside: Path) -> Iterator[Path]:
    """A file for what will be moved to the folder; what fails leaves none, unless it was all but moved."""
    part = work.new_part(beside)
    try:
        yield part
    except BaseException as error:
        if not (isinstance(error, DiskError) and error.kept):
            remove(part)
        raise


def target_of(output: Path, codec: str) -> VideoFile | Pictures:
    """By the name's ending. Raises CommandError where no such thing is written."""
    ending = output.suffix.lower()
    if ending in FORMATS:
        return VideoFile(output, codec)
    if ending != ".png" and ending not in ANIMATIONS:
        wanted = ", ".join((*FORMATS, *ANIMATIONS))
        raise CommandError(
            f"expected an output ending in {wanted}, or frames/%05d.png, but got {output.name} ({output}). "
            "Name it .mp4."
        )
    if codec != "h264":
        raise CommandError(f"expected no --codec with {output.name} but got {codec}. Leave it out.")
    if ending == ".png" and not (_NUMBERED.fullmatch(output.name) and output.parent.name):
        raise CommandError(
            f"expected a folder and a numbered name but got {output} (--output). Write frames/%05d.png."
        )
    return Pictures(output)


def _check_folder(pattern: Path, used: Iterable[Path]) -> None:
    """Only frames of an earlier run may be in the folder, as a video file replaces one of its name."""
    folder = pattern.parent
    if not folder.exists() and not folder.is_symlink():
        return
    before, digits, after = _NUMBERED.fullmatch(pattern.name).groups()  # type: ignore[union-attr]
    frame = re.compile(rf"{re.escape(before)}\d{{{digits or 1},}}{re.escape(after)}")
    taken = {path.resolve() for path in used}
    is_ours = folder.is_dir() and not folder.is_symlink()
    if not is_ours or any(
        not frame.fullmatch(path.name) or path.resolve() in taken for path in folder.iterdir()
    ):
        raise CommandError(
            f"expected a new folder, or one of nothing but such frames, but got another ({folder}). Choose "
            "another name."
        )
