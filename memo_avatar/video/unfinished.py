"""A video on the disk while it is made: how it survives a stop, a crash and a full disk, and goes on.

For the command and the nodes alike:

    with Unfinished.open(root, key) as work:              # a folder for this video and this process alone
        state = work.load(delivery, take_up)              # None: from the first clip on
        clips = generate_clips(..., state=state)
        work.fill(clips, delivery, notes)                 # whatever stops it: what is done stays
        work.join(part, sound, delivery)                  # the clips so far, or all of them
        place_new(part, names)
        work.remove()

``key`` names all that the video depends on (`job_key.key_of`). The folder holds a file per clip and the state
after one of them, whose header has the checksums of the state itself and of every clip before it: what does
not match is not believed, and the video is made anew, with a line in the log.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import re
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict
from itertools import chain, count
from pathlib import Path
from typing import BinaryIO

import av
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from ..clips.values import Clip, ClipOfMany, ClipState
from ..files.disk import DiskError, is_own, make_folder, make_part, open_regular, remove, replacing
from ..files.foreign import CheckpointError, counted
from ..files.header import read_header
from ..files.lock import hold
from ..voice.sound import MediaError
from .delivery import Delivery
from .job_key import key_of
from .paste import ColourMatch
from .segments import join_segments, write_segment
from .streams import Sound

SAVE_SHARE = 0.1
"""A clip's state is saved when that costs at most this share of the time: after every clip where it is small,
every minute or so where it is gigabytes (MEMO at 512x512). No more than that is lost to a crash."""

_SMALL = 64 * 2**20  # bytes of a state that is always saved

SO_FAR = "so_far.mp4"
"""What a stop leaves to look at, in the folder."""

STATE, LOCK = "state.safetensors", "lock"
NAME = "name"  # in the state's header: what people call the video
_FORMAT = "2"  # of the state; another version's is not continued
FOLDER_NAME = re.compile(r"[0-9a-f]{16}(-\d+)?")
_CHUNK = 2**20
_OPEN_FILES_STAY = os.name == "nt"

logger = logging.getLogger(__name__)

Notes = Mapping[str, str]
"""Texts of the caller that belong to a state, such as what a cache has learned until then."""


class _UnusableError(Exception):
    """What an earlier run left is not what it wrote. The text says what."""


class Unfinished:
    """The folder of a video that is being made, held by this process."""

    def __init__(self, folder: Path, key: str, lock: BinaryIO, name: str = "") -> None:
        self.folder, self.key, self._lock, self._name = folder, key, lock, name
        self._checksums: list[str] = []
        self._due = 0.0  # the moment from which the next state is saved
        self._unsaved: tuple[list[ClipState], Delivery, Callable[[], Notes]] | None = None

    @classmethod
    def open(cls, root: Path, key: str, name: str = "") -> Unfinished:
        """The folder of the video in ``root``: that of an earlier run, unless another process has it.

        ``name`` is for those who list what is unfinished.

        Raises:
            DiskError: no folder can be made there.
        """
        try:
            left = sorted(path for path in root.glob(f"{key}*") if FOLDER_NAME.fullmatch(path.name))
            fresh = (root / (f"{key}-{number}" if number > 1 else key) for number in count(1))
            for folder in chain(left, fresh):
                lock = hold_folder(folder)
                if lock is not None:
                    for part in folder.glob(".*.part"):  # a killed process's
                        remove(part)
                    return cls(folder, key, lock, name)
        except OSError as error:
            raise DiskError(
                f"expected a folder for the unfinished video but got: {error.strerror or error} ({root}). "
                "Choose an output folder that you may write to."
            ) from error
        raise AssertionError("there is always another number")

    def __enter__(self) -> Unfinished:
        return self

    def __exit__(self, *_error: object) -> None:
        self.close()

    @property
    def done(self) -> int:
        """Clips that are there."""
        return len(self._checksums)

    def load(self, delivery: Delivery, take_up: Callable[[Notes], object] = dict) -> ClipState | None:
        """The state to go on from, or None. ``take_up`` gets the notes that were saved with it and may refuse
        them. Pasted frames keep the colours that the first one had found.
        """
        return next(iter(self.load_all(delivery, take_up)), None)

    def load_all(self, delivery: Delivery, take_up: Callable[[Notes], object] = dict) -> list[ClipState]:
        """The same for a video of several faces: a state for each, or none at all."""
        if not os.path.lexists(self.folder / STATE):
            return []
        try:
            states, notes = self._read(delivery)
            take_up(notes)
            return states
        except (_UnusableError, CheckpointError, SafetensorError, OSError, LookupError, ValueError) as error:
            logger.warning("The unfinished video %s is made anew: %s", self.folder.name, error)
            self._checksums = []
            return []

    def fill(
        self, clips: Iterable[Clip | ClipOfMany], delivery: Delivery, notes: Callable[[], Notes] = dict
    ) -> None:
        """A file of every clip, and now and then the state after it. What ``clips`` raises, a cancel or an
        error, goes through; `close` saves the last state then.
        """
        for clip in clips:
            path = _free(self._segment(clip.index))
            write_segment(path, delivery.frames(clip.frames, clip.start), delivery.fps, delivery.codec)
            self._checksums[clip.index :] = [_checksum(path)]
            self._unsaved = [on_cpu(state) for state in clip.states], delivery, notes
            if (started := time.monotonic()) >= self._due or self._is_small():
                self._save()
                finished = time.monotonic()
                self._due = finished + (finished - started) / SAVE_SHARE

    def join(
        self,
        part: Path,
        sound: Sound | None,
        delivery: Delivery,
        *,
        kind: str = "mp4",
        tags: Mapping[str, str] | None = None,
        whole: bool = False,
    ) -> int:
        """The clips that are there, and the sound as long as they are, in one file; the number of pictures.

        Args:
            whole: whether these have to be all clips of the video.

        Raises:
            MediaError: the file does not hold what was written, or not all that was to be.
            DiskError: there is no room for it.
        """
        segments = self.segments()
        try:
            pictures = join_segments(segments, part, sound, delivery.fps, kind=kind, tags=tags)
        except (av.FFmpegError, OSError) as error:
            raise DiskError(
                f"expected room for the video but got {error.strerror or error} ({part.parent}). "
                f"What is finished, {counted(self.done, 'clip')}, is kept: free some room, then run again to "
                "go on."
            ) from error
        if whole and pictures != delivery.total:
            raise MediaError(
                f"expected {counted(delivery.total, 'picture')} but got {pictures} from the clips "
                f"({self.folder.name}). Remove that folder, and run again."
            )
        return pictures

    def segments(self) -> list[Path]:
        """The files of the clips that are there, in order.

        Raises:
            MediaError: one of them is not what was written.
        """
        segments = [self._segment(index) for index in range(self.done)]
        if any(_checksum(path) != known for path, known in zip(segments, self._checksums, strict=True)):
            raise MediaError(
                f"expected the clips that were written but got other files ({self.folder.name}). "
                "Run again: they are made anew."
            )
        return segments

    def new_part(self, target: Path) -> Path:
        """A file for what will be moved to the folder ``target``: where a later run would find and remove it,
        if moving is a rename from here.
        """
        is_near = self.folder.stat().st_dev == target.stat().st_dev
        return make_part(self.folder if is_near else target)

    def close(self) -> None:
        """Let go of the folder; what is in it stays for the next run."""
        if self._unsaved is not None:
            self._save()
        if [path.name for path in self.folder.glob("*")] == [LOCK]:
            self.remove()
        self._lock.close()

    def remove(self) -> None:
        """The video is finished: nothing of this stays, as far as other programs let go of it."""
        self._unsaved = None
        remove_folder(self.folder, self._lock)
        with suppress(OSError):  # other videos are in it
            self.folder.parent.rmdir()

    def _segment(self, index: int) -> Path:
        return self.folder / f"clip_{index:06d}.mp4"

    def _is_small(self) -> bool:
        assert self._unsaved is not None
        tensors = (tensor for state in self._unsaved[0] for tensor in state.tensors().values())
        return sum(tensor.nbytes for tensor in tensors) < _SMALL

    def _save(self) -> None:
        """Replace the saved state in one step. If that fails, the one before stays, and the video goes on."""
        assert self._unsaved is not None
        states, delivery, notes = self._unsaved
        tensors, last = _flat(states), states[0].clip_index
        metadata = {**notes(), "format": _FORMAT, "key": self.key, NAME: _text(self._name)}
        metadata["clips"] = " ".join(self._checksums[: last + 1])
        if delivery.paster is not None:
            metadata["colours"] = json.dumps([asdict(colour) for colour in delivery.paster.colours])
        metadata["checksum"] = key_of((tensors, metadata))
        try:
            with replacing(_free(self.folder / STATE)) as part:
                save_file(tensors, part, metadata=metadata)
        except (DiskError, SafetensorError, OSError) as error:
            logger.warning("The state after clip %d could not be saved: %s", last + 1, error)
        else:
            self._unsaved = None

    def _read(self, delivery: Delivery) -> tuple[list[ClipState], Notes]:
        tensors, metadata = _read_state(self.folder / STATE)
        checksum = metadata.pop("checksum", None)
        if (metadata.get("format"), metadata.get("key")) != (_FORMAT, self.key):
            raise _UnusableError("its state is another video's")
        if key_of((tensors, metadata)) != checksum:
            raise _UnusableError("its state is damaged")
        self._checksums = metadata.pop("clips").split()
        for index, known in enumerate(self._checksums):
            if _checksum(self._segment(index)) != known:
                raise _UnusableError(f"clip {index + 1} is not what was written")
        if delivery.paster is not None:
            delivery.paster.take_colours(
                [ColourMatch(**found) for found in json.loads(metadata.pop("colours"))]
            )
        return _unflattened(tensors), metadata


def _text(name: str) -> str:
    """A file's name as a header can hold it: Linux takes names that are no text."""
    return name.encode("utf-8", "backslashreplace").decode("utf-8")


def on_cpu(state: ClipState) -> ClipState:
    """The same, not on the device."""
    return ClipState.from_tensors({name: tensor.cpu() for name, tensor in state.tensors().items()})


def _flat(states: Sequence[ClipState]) -> dict[str, Tensor]:
    """The tensors of all, each under its state's number."""
    return {
        f"{number}.{name}": tensor.contiguous()
        for number, state in enumerate(states)
        for name, tensor in state.tensors().items()
    }


def _unflattened(tensors: Mapping[str, Tensor]) -> list[ClipState]:
    found: dict[int, dict[str, Tensor]] = {}
    for key, tensor in tensors.items():
        number, _, name = key.partition(".")
        found.setdefault(int(number), {})[name] = tensor
    return [ClipState.from_tensors(found[number]) for number in range(len(found))]


def _read_state(path: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    if not is_own(path):
        raise _UnusableError("its state is a link or another user's")
    metadata = dict(read_header(path).metadata)
    with safe_open(str(path), framework="pt") as stored:
        # Copies: Windows replaces no file that is mapped into memory.
        return {name: stored.get_tensor(name).clone() for name in stored.keys()}, metadata  # noqa: SIM118


def _free(path: Path) -> Path:
    """The same, without a folder in its place: a file is replaced and a link too, but no folder."""
    if path.is_dir() and not path.is_symlink():
        remove(path)
    return path


def _checksum(path: Path) -> str:
    """Of a file as we make them; empty for anything else."""
    if not is_own(path):
        return ""
    digest = hashlib.sha256()
    with open_regular(path) as stream:
        while chunk := stream.read(_CHUNK):
            digest.update(chunk)
    return digest.hexdigest()[:16]


def hold_folder(folder: Path) -> BinaryIO | None:
    """Its lock, once it is ours; None where another process has it, or something else has its name."""
    while True:
        try:
            return hold(make_folder(folder) / LOCK)
        except FileNotFoundError:
            continue  # another process has just finished its video
        except FileExistsError:
            return None


def remove_folder(folder: Path, lock: BinaryIO) -> None:
    """Remove a folder that is held, its lock last: elsewhere than on Windows, where nobody else can take it
    away, before it is let go.
    """
    for path in folder.iterdir():
        if path.name != LOCK:
            remove(path)
    if _OPEN_FILES_STAY:
        lock.close()
    remove(folder / LOCK)
    lock.close()
    with suppress(OSError):  # what could not be removed is still in it
        folder.rmdir()
