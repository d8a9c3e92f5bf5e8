"""Video out: frames as they are ready, the original sound beside them, nothing kept in memory.

However a `VideoWriter` is left, what was written becomes a playable file: it grows in fragments that can be
played at any moment, and is rewritten as an ordinary file at the end.
"""

from __future__ import annotations

import logging
import shutil
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Any

import av
from torch import Tensor

from ..files.disk import DiskError, make_part, place, remove, try_place
from ..files.foreign import counted
from ..voice.sound import MediaError
from .finished import check_finished, count_pictures
from .streams import (
    FORMATS,
    PictureStream,
    Sound,
    SoundStream,
    add_copy,
    new_video,
    open_video,
    to_pixels,
)

logger = logging.getLogger(__name__)

# delay_moov: the sound's priming is known when the header is written. Microseconds, and no buffer in between.
FRAGMENTS = {"movflags": "delay_moov+default_base_moof", "frag_duration": "500000", "flush_packets": "1"}


def check_output(path: Path, inputs: Iterable[Path], *, nbytes: int = 0) -> None:
    """Everything that would make writing the video fail at the end, tried at the start.

    Raises:
        MediaError: the name's ending.
        DiskError: the name, the folder, the room, or that it is one of the inputs.
    """
    if path.suffix.lower() not in FORMATS:
        wanted = ", ".join(FORMATS)
        raise MediaError(f"expected an output ending in {wanted} but got {path.name} ({path}). Name it .mp4.")
    try_place(path, nbytes=nbytes, apart_from=inputs)


class VideoWriter:
    """Frames and a recording -> a file that gets its name when it is whole.

    The recording keeps its channels (up to two) and runs as long as the frames: cut, or filled with silence.
    `with` finishes the file after an exception too, if any frame was written. Where the disk is full, what
    reached it is kept under `path`, and MediaError says so.
    """

    def __init__(
        self, path: str | Path, *, width: int, height: int, fps: int = 30, audio: str | Path | None = None
    ) -> None:
        self.path, self.fps = Path(path), fps
        self.kept: Path | None = None  # where the file is in the end, whatever happened
        self._kind, self._size = FORMATS[self.path.suffix.lower()], (width, height)
        self._sound = None if audio is None else Sound.of_file(Path(audio))
        try:
            self._part = make_part(self.path.parent)
            options = {} if self._kind == "matroska" else FRAGMENTS
            self._container = open_video(self._part, "w", format=self._kind, options=options)
            self._pictures = PictureStream(self._container, width + width % 2, height + height % 2, fps)
            self._track = None if self._sound is None else SoundStream(self._container, self._sound)
        except (av.FFmpegError, OSError) as error:
            raise MediaError(
                f"expected a video file that can be written but got {error.strerror} ({path}). Choose "
                "another folder."
            ) from error

    def __enter__(self) -> VideoWriter:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if kind is None or self.num_frames:
            self.close()
        else:
            self.discard()

    @property
    def num_frames(self) -> int:
        """Written so far."""
        return self._pictures.count

    def write(self, frames: Tensor) -> None:
        """(F, 3, H, W) in 0..1, H and W as given at the start."""
        if tuple(frames.shape[1:]) != (3, self._size[1], self._size[0]):
            raise ValueError(
                f"expected frames of shape (F, 3, {self._size[1]}, {self._size[0]}) but got "
                f"{tuple(frames.shape)} (write). "
                "Open the writer with the frames' size."
            )
        try:
            for picture in to_pixels(frames):
                self._pictures.write(picture)
                if self._track is not None:
                    self._track.advance(self._pictures.seconds)
        except (av.FFmpegError, OSError) as error:
            raise self._failure(error) from error

    def close(self) -> None:
        """Flush both streams, read the file back, and give it its name."""
        whole = self._part
        try:
            self._finish()
            whole = self._index_first()
            check_finished(whole, self.num_frames, self.fps, sound=self._track is not None)
            self._keep(whole)
        except BaseException as error:  # a second Ctrl-C too
            with suppress(av.FFmpegError, OSError):
                self._container.close()
            if self.kept is None and count_pictures(self._part):
                self._keep(self._part)
            if isinstance(error, (av.FFmpegError, OSError)):
                raise self._failure(error) from error
            raise
        finally:
            self._release(whole)

    def discard(self) -> None:
        """Leave nothing behind."""
        self._release()

    def _finish(self) -> None:
        self._pictures.finish()
        if self._track is not None:
            self._track.advance(self._pictures.seconds)
            self._track.finish()
        self._container.close()

    def _index_first(self) -> Path:
        """An ordinary file of the same packets, its index first, as editors and some players want it; where
        there is no room for a second file, the first.
        """
        room = shutil.disk_usage(self._part.parent).free
        if self._kind == "matroska" or room < 2 * self._part.stat().st_size:
            return self._part
        whole = make_part(self._part.parent)
        try:
            with open_video(self._part) as source, new_video(whole, self._kind) as target:
                streams = {stream.index: add_copy(target, stream) for stream in source.streams}
                for packet in source.demux():
                    if packet.dts is not None:  # demuxing ends with an empty packet per stream
                        packet.stream = streams[packet.stream_index]
                        target.mux(packet)
        except BaseException as error:
            remove(whole)
            if not isinstance(error, (av.FFmpegError, OSError)):
                raise
            logger.warning("%s plays, but could not get its index first: %s", self.path.name, error)
            return self._part
        return whole

    def _keep(self, whole: Path) -> None:
        try:
            place(whole, self.path)
            self.kept = self.path
        except DiskError as error:
            self.kept = error.kept
            raise
        except OSError as error:
            self.kept = whole
            raise self._failure(error) from error

    def _failure(self, error: Any) -> MediaError:
        kept = f" What reached the disk is kept as {self.kept.name}, and plays." if self.kept else ""
        return MediaError(
            f"expected room for the video but got {error.strerror} after {counted(self.num_frames, 'frame')} "
            f"({self.path}). "
            f"Free some space or choose another folder.{kept}"
        )

    def _release(self, whole: Path | None = None) -> None:
        if self._sound is not None:
            self._sound.close()
        with suppress(av.FFmpegError, OSError):  # a file that couldn't be finished has been told by now
            self._container.close()
        for file in {self._part, whole or self._part} - {self.kept}:
            remove(file)
