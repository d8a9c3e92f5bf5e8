"""A finished video is read before anybody calls it finished: what a player would find in it."""

from __future__ import annotations

from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path
from typing import Any

import av

from ..files.foreign import counted
from ..voice.sound import MediaError
from .streams import open_video

_AAC_ROOM = 4 * 1024  # samples: the encoder's start, and the rest of the last block


@dataclass
class _Found:
    """One stream of a file, by its packets."""

    stream: Any
    count: int = 0
    seconds: Fraction = Fraction(0)
    first: list[Any] = field(default_factory=list[Any])  # two packets
    last: list[Any] = field(default_factory=list[Any])  # pictures: from the last key frame on; sound: two

    @property
    def is_sound(self) -> bool:
        return self.stream.type == "audio"

    def add(self, packet: Any) -> None:
        self.count += 1
        self.seconds += (packet.duration or 0) * packet.time_base
        if len(self.first) < 2:
            self.first.append(packet)
        if packet.is_keyframe:  # every packet of sound is one
            del self.last[: -1 if self.is_sound else None]
        self.last.append(packet)

    def decodes(self) -> bool:
        """Whether the first and the last pictures, or blocks of sound, come out."""
        silent = int(self.is_sound)  # the first block of AAC holds none
        return all(self._frames(packets) >= len(packets) - silent for packets in (self.first, self.last))

    def _frames(self, packets: list[Any]) -> int:
        context = self.stream.codec_context
        frames = [frame for packet in (*packets, None) for frame in context.decode(packet)]
        context.flush_buffers()
        return len(frames)


def check_finished(path: Path, pictures: int, fps: int, *, sound: bool) -> None:
    """Raise unless the file holds so many pictures, and sound of their length if there is to be any.

    Raises:
        MediaError: what is there instead.
    """
    try:
        with open_video(path) as container:
            actual = _difference(_streams(container), pictures, fps, sound)
    except (av.FFmpegError, OSError) as error:
        actual = str(error.strerror or error)
    if actual is not None:
        expected = counted(pictures, "picture") + (" and their sound" if sound else "")
        raise MediaError(
            f"expected a video of {expected} but got {actual}, reading it again ({path.name}). "
            "Check the disk and its room, then run again."
        )


def count_pictures(path: Path) -> int:
    """Pictures that a player will show; 0 where it is no video."""
    try:
        with open_video(path) as container:
            return _streams(container)["video"].count
    except (av.FFmpegError, OSError, KeyError):
        return 0


def _streams(container: Any) -> dict[str, _Found]:
    """By kind: video, audio."""
    found: dict[str, _Found] = {}
    for packet in container.demux():
        if packet.dts is not None:  # demuxing ends with an empty packet per stream
            found.setdefault(packet.stream.type, _Found(packet.stream)).add(packet)
    return found


def _difference(streams: dict[str, _Found], pictures: int, fps: int, sound: bool) -> str | None:
    """What is wrong with a file, or None."""
    count = streams["video"].count if "video" in streams else 0
    if count != pictures:
        return counted(count, "picture")
    if sound:
        voice = streams.get("audio")
        if voice is None:
            return "none of the sound"
        missing = Fraction(pictures, fps) - voice.seconds
        if not -Fraction(_AAC_ROOM, voice.stream.rate) < missing < Fraction(1, voice.stream.rate):
            return f"{float(voice.seconds):.2f} s of sound for {pictures / fps:.2f} s"
    broken = [kind for kind, stream in streams.items() if not stream.decodes()]
    return f"{' and '.join(broken)} that can't be decoded" if broken else None
