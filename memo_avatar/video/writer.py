"""Video out, through PyAV: frames as they are ready, the original sound beside them, nothing kept in memory.

However a `VideoWriter` is left, what was written becomes a playable file: it grows in fragments that can be
played at any moment, and is rewritten as an ordinary file at the end. No ffmpeg binary, no shell.
"""

from __future__ import annotations

import logging
import os
import shutil
import tempfile
from contextlib import suppress
from fractions import Fraction
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from ..voice.sound import MediaError
from ..voice.sound_files import decode_audio, open_audio, voice_track

if TYPE_CHECKING:
    from numpy.typing import NDArray

logger = logging.getLogger(__name__)

FORMATS = {".mp4": "mp4", ".mov": "mov", ".mkv": "matroska"}
SOUND_RATES = (
    44_100,
    48_000,
)  # kept as they are; any other rate is brought to 48 kHz, which every player takes
# delay_moov: the sound's priming is known when the header is written. Microseconds, and no buffer in between.
FRAGMENTS = {"movflags": "delay_moov+default_base_moof", "frag_duration": "500000", "flush_packets": "1"}
CRF = 18  # x264's own "visually lossless"
BYTES_PER_PIXEL = 0.1  # generous for CRF 18: 6 Mbit/s at 512x512
SPARE_BYTES = 8_000_000


def check_output(path: Path, inputs: list[Path]) -> None:
    """Everything that would make writing the video fail at the end, found at the start."""
    if path.suffix.lower() not in FORMATS:
        wanted = ", ".join(FORMATS)
        raise MediaError(f"expected an output ending in {wanted} but got {path.name} ({path}). Name it .mp4.")
    if path.is_dir():
        raise MediaError(f"expected an output file but got a folder ({path}). Add a file name.")
    if not path.parent.is_dir():
        raise MediaError(
            f"expected an existing folder for the output but got {path.parent} ({path}). Create it first."
        )
    for source in inputs:
        if path.exists() and source.exists() and path.samefile(source):
            raise MediaError(
                f"expected an output apart from the inputs but got an input ({path}). Choose another name."
            )
    try:
        with tempfile.TemporaryFile(dir=path.parent):
            pass
    except OSError as error:
        raise MediaError(
            f"expected a folder that can be written to but got {error.strerror} ({path.parent}). Choose "
            "another folder."
        ) from error


def check_space(folder: Path, num_frames: int, width: int, height: int) -> None:
    """A generous estimate of the video against the free space."""
    needed = SPARE_BYTES + round(num_frames * width * height * BYTES_PER_PIXEL)
    free = shutil.disk_usage(folder).free
    if free < needed:
        raise MediaError(
            f"expected {needed / 1e6:.0f} MB of free space for the video but got {free / 1e6:.0f} MB "
            f"({folder}). "
            "Free some space or choose another folder."
        )


class VideoWriter:
    """H.264 and AAC into a temporary name beside `path`; the file gets its name when it is whole.

    `audio` is the original recording: it keeps its channels (up to two) and runs as long as the frames: cut,
    or filled with silence. `with` finishes the file after an exception too, if any frame was written. Where
    the disk is full, what reached it is kept under `path`, and MediaError says so.
    """

    def __init__(
        self, path: str | Path, *, width: int, height: int, fps: int = 30, audio: str | Path | None = None
    ) -> None:
        import av

        self.path = Path(path)
        self.fps = fps
        self.num_frames = 0
        self.is_saved = False
        self._partial = self.path.with_name(f".{self.path.name}.{os.getpid()}.part")
        self._size = (width, height)
        sound = None if audio is None else _SoundSource(Path(audio))
        try:
            kind = FORMATS[self.path.suffix.lower()]
            options = {} if kind == "matroska" else FRAGMENTS
            self._container = av.open(str(self._partial), "w", format=kind, options=options)
            self._video = _add_video(self._container, width + width % 2, height + height % 2, fps)
            self._sound = None if sound is None else _SoundTrack(self._container, sound)
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

    def write(self, frames: Tensor) -> None:
        """(F, 3, H, W) in 0..1, H and W as given at the start."""
        if tuple(frames.shape[1:]) != (3, self._size[1], self._size[0]):
            raise ValueError(
                f"expected frames of shape (F, 3, {self._size[1]}, {self._size[0]}) but got "
                f"{tuple(frames.shape)} (write). "
                "Open the writer with the frames' size."
            )
        pixels = (frames.clamp(0, 1) * 255).round().to(torch.uint8)
        pixels = pixels.permute(0, 2, 3, 1).cpu()  # (F, 3, H, W) -> (F, H, W, 3)
        for picture in pixels:
            self._write_picture(picture)

    def close(self) -> None:
        """Flush both streams and give the file its name."""
        import av

        try:
            self._container.mux(self._video.encode(None))
            if self._sound is not None:
                self._sound.finish(self._seconds())
            self._container.close()
            self._keep()
        except BaseException as error:  # a second Ctrl-C too
            with suppress(av.FFmpegError, OSError):
                self._container.close()
            if count_pictures(self._partial):
                self._keep()
            if isinstance(error, (av.FFmpegError, OSError)):
                raise self._failure(error) from error
            raise
        finally:
            self._release()
        rewrite(self.path)

    def discard(self) -> None:
        """Leave nothing behind."""
        self._release()

    def _keep(self) -> None:
        os.replace(self._partial, self.path)
        self.is_saved = True

    def _seconds(self) -> Fraction:
        return Fraction(self.num_frames, self.fps)

    def _write_picture(self, picture: Tensor) -> None:
        import av
        from av.video.reformatter import Colorspace

        frame = av.VideoFrame.from_ndarray(even_sides(picture).numpy(), format="rgb24")
        frame = frame.reformat(format="yuv420p", dst_colorspace=Colorspace.ITU709)
        frame.pts = self.num_frames
        frame.time_base = Fraction(1, self.fps)
        try:
            self._container.mux(self._video.encode(frame))
            self.num_frames += 1
            if self._sound is not None:
                self._sound.advance(self._seconds())
        except (av.FFmpegError, OSError) as error:
            raise self._failure(error) from error

    def _failure(self, error: Any) -> MediaError:
        kept = " What reached the disk is kept and plays." if self.is_saved else ""
        return MediaError(
            f"expected room for the video but got {error.strerror} after {self.num_frames} frames "
            f"({self.path}). "
            f"Free some space or choose another folder.{kept}"
        )

    def _release(self) -> None:
        import av

        if self._sound is not None:
            self._sound.close()
        with suppress(av.FFmpegError, OSError):  # a file that couldn't be finished has been told by now
            self._container.close()
        self._partial.unlink(missing_ok=True)


def rewrite(path: Path) -> None:
    """Make a file of fragments an ordinary one, its index first, as editors and some players want.

    Only packets are copied. Without room for a second file, or stopped on the way, the first stays as it is.
    """
    import av

    kind = FORMATS[path.suffix.lower()]
    if kind == "matroska" or shutil.disk_usage(path.parent).free < 2 * path.stat().st_size:
        return
    whole = path.with_name(f".{path.name}.{os.getpid()}.whole")
    try:
        with (
            av.open(str(path)) as source,
            av.open(str(whole), "w", format=kind, options={"movflags": "+faststart"}) as target,
        ):
            streams = {stream.index: target.add_stream_from_template(stream) for stream in source.streams}
            for packet in source.demux():
                if packet.dts is not None:  # demuxing ends with an empty packet per stream
                    packet.stream = streams[packet.stream_index]
                    target.mux(packet)
        os.replace(whole, path)
    except (av.FFmpegError, OSError) as error:
        logger.warning("%s plays, but could not be rewritten with its index first: %s", path, error)
    finally:
        whole.unlink(missing_ok=True)


def count_pictures(path: Path) -> int:
    """Pictures that a player will show; 0 where it is no video."""
    import av

    try:
        with av.open(str(path)) as container:
            return sum(packet.pts is not None for packet in container.demux(video=0))
    except (av.FFmpegError, OSError):
        return 0


class _SoundSource:
    """The original recording, read as far as it is needed."""

    def __init__(self, path: Path) -> None:
        import numpy as np

        with open_audio(path) as container:
            context = voice_track(container).codec_context
            self.sample_rate = context.sample_rate if context.sample_rate in SOUND_RATES else SOUND_RATES[-1]
            self.layout = "mono" if len(context.layout.channels) == 1 else "stereo"
        self._chunks = decode_audio(path, self.sample_rate, channels=1 if self.layout == "mono" else 2)
        self._pending = np.zeros((1 if self.layout == "mono" else 2, 0), dtype=np.float32)

    def read(self, num_samples: int) -> NDArray[Any]:
        """(channels, num_samples), zeros past the end of the recording."""
        import numpy as np

        parts = [self._pending]
        available = self._pending.shape[1]
        while available < num_samples:
            chunk = next(self._chunks, None)
            if chunk is None:
                chunk = np.zeros((self._pending.shape[0], num_samples - available), dtype=np.float32)
            parts.append(chunk)
            available += chunk.shape[1]
        samples = np.concatenate(parts, axis=1)
        self._pending = samples[:, num_samples:]
        return samples[:, :num_samples]

    def close(self) -> None:
        self._chunks.close()


class _SoundTrack:
    """The AAC stream: always as long as the frames written so far, to the sample."""

    def __init__(self, container: Any, source: _SoundSource) -> None:
        self._container = container
        self._source = source
        self._stream = container.add_stream("aac", rate=source.sample_rate)
        self._stream.codec_context.layout = source.layout
        self._stream.codec_context.bit_rate = 192_000 if source.layout == "stereo" else 128_000
        self._num_samples = 0

    def advance(self, seconds: Fraction) -> None:
        from av import AudioFrame

        wanted = round(seconds * self._source.sample_rate) - self._num_samples
        if wanted <= 0:
            return
        frame = AudioFrame.from_ndarray(self._source.read(wanted), format="fltp", layout=self._source.layout)
        frame.sample_rate = self._source.sample_rate
        frame.pts = self._num_samples
        frame.time_base = Fraction(1, self._source.sample_rate)
        self._num_samples += wanted
        self._container.mux(self._stream.encode(frame))

    def finish(self, seconds: Fraction) -> None:
        self.advance(seconds)
        self._container.mux(self._stream.encode(None))

    def close(self) -> None:
        self._source.close()


def _add_video(container: Any, width: int, height: int, fps: int) -> Any:
    import av

    name = "libx264" if "libx264" in av.codecs_available else "h264"
    stream = container.add_stream(name, rate=fps, options={"crf": str(CRF)} if name == "libx264" else {})
    stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
    context = stream.codec_context
    context.time_base = Fraction(1, fps)
    # BT.709, limited range, said in the file: players guess by size otherwise, and shift the skin's colour.
    context.colorspace = context.color_primaries = context.color_trc = context.color_range = 1
    return stream


def even_sides(picture: Tensor) -> Tensor:
    """(H, W, 3) with its last row and column repeated where odd: yuv420p halves both."""
    height, width = picture.shape[:2]
    if height % 2:
        picture = torch.cat([picture, picture[-1:]])
    if width % 2:
        picture = torch.cat([picture, picture[:, -1:]], dim=1)
    return picture.contiguous()
