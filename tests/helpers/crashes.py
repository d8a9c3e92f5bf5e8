"""Crashes on purpose, at random moments: nothing that was finished may be lost, and no other file touched.

    python -m tests.helpers.crashes [--kills 40] [--full-disks 20] [--pairs 10] [--every-operation]

A process that makes `fake_video`'s video is killed, finds no room on its disk, or shares its folder with
another one; then the video is made again. It has to be, byte for byte, that of a run that nobody disturbed.
With --every-operation it also dies before each operation of the file system in turn, and finds each of them
failing.
"""

from __future__ import annotations

import argparse
import errno
import multiprocessing
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import count
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any, NoReturn

from safetensors import SafetensorError

from memo_avatar.files.disk import DiskError
from memo_avatar.voice.sound import MediaError
from tests.helpers.fake_video import WORK_FOLDER, FakeVideo, make

VIDEO = FakeVideo()
BYSTANDERS = (
    "precious.txt",
    "video/talk_00007_.txt",
    f"{WORK_FOLDER}/notes.txt",
    f"{WORK_FOLDER}/0123456789abcdef/clip_000000.mp4",  # another video's
)
LIMIT = 60  # seconds


NO_ROOM, DEAD = 1, 3  # exit statuses
OPERATIONS = ("open", "link", "replace", "unlink", "fsync", "mkdir", "rmdir")


def run(output: Path, largest_file: int | None = None, disturb: tuple[int, bool] | None = None) -> None:
    """In a process of its own: make the video, in files of at most so many bytes, until at a certain
    operation of the file system the process dies (True) or the disk fails.
    """
    if largest_file is not None:
        import resource

        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)  # the write fails, as on a full disk
        resource.setrlimit(resource.RLIMIT_FSIZE, (largest_file, largest_file))
    number, dies = disturb or (0, False)
    try:
        with disturbed(number, die if dies else fail):
            make(VIDEO, output)
    except (DiskError, MediaError, SafetensorError, OSError):
        sys.exit(NO_ROOM)


def die() -> NoReturn:
    """End this process, as a power cut would."""
    os._exit(DEAD)


def fail() -> NoReturn:
    """What a disk says that has gone, or a share whose server has."""
    raise OSError(errno.EIO, os.strerror(errno.EIO))


@contextmanager
def disturbed(number: int, act: Callable[[], NoReturn]) -> Iterator[None]:
    """``act`` in place of the so many-th operation of the file system, counted from 1; 0: never."""
    left = count(number - 1, -1)

    def watched(operation: Callable[..., Any]) -> Callable[..., Any]:
        def checked(*arguments: Any, **options: Any) -> Any:
            if next(left) == 0:
                act()
            return operation(*arguments, **options)

        return checked

    real = {name: getattr(os, name) for name in OPERATIONS}
    for name, operation in real.items():
        setattr(os, name, watched(operation))
    try:
        yield
    finally:
        for name, operation in real.items():
            setattr(os, name, operation)


class Crashes:
    """One undisturbed run, and folders in which runs are disturbed."""

    def __init__(self, folder: Path, seed: int) -> None:
        self.folder, self.random = folder, random.Random(seed)
        self.tally: Counter[str] = Counter()
        self.context = multiprocessing.get_context("forkserver")
        self.context.set_forkserver_preload([__name__])
        self.whole = self._make(self._output()).read_bytes()
        started = time.monotonic()
        self._make(self._output())
        self.seconds = time.monotonic() - started

    def kill(self) -> None:
        """A process is killed, wherever it is, once or several times; then the video is finished."""
        output = self._output()
        for _ in range(self.random.randint(1, 3)):
            process = self._start(output)
            time.sleep(self.random.uniform(0, self.seconds))
            process.kill()
            process.join(LIMIT)
            self.tally["killed" if process.exitcode == -signal.SIGKILL else "done before the kill"] += 1
            self.tally["clips on the disk after a kill"] += len(list(output.glob(f"{WORK_FOLDER}/*/clip_*")))
        self._finish(output)

    def die(self, operation: int) -> bool:
        """The process ends before this operation of the file system; whether it came to it."""
        output = self._output()
        process = self._start(output, disturb=(operation, True))
        process.join(LIMIT)
        assert process.exitcode in (0, DEAD), process.exitcode
        self.tally["died before an operation"] += process.exitcode == DEAD
        self._finish(output)
        return process.exitcode == DEAD

    def fail(self, operation: int) -> None:
        """This operation of the file system fails; the video is finished in spite of it, or afterwards."""
        output = self._output()
        process = self._start(output, disturb=(operation, False))
        process.join(LIMIT)
        assert process.exitcode in (0, NO_ROOM), process.exitcode
        self.tally["stopped by a failing operation" if process.exitcode else "in spite of one"] += 1
        self._finish(output)

    def fill_up(self) -> None:
        """No room in the middle of some file; then there is room again."""
        output = self._output()
        process = self._start(output, self.random.randint(0, len(self.whole) + 4096))
        process.join(LIMIT)
        assert process.exitcode in (0, NO_ROOM), process.exitcode
        self.tally["no room" if process.exitcode else "enough room"] += 1
        self._finish(output)

    def fill_up_a_disk(self) -> None:
        """A disk of its own that has so many bytes left."""
        with small_disk(self._output()) as output:
            self._stand_by(output)
            filler = output / "filler"
            filler.write_bytes(
                bytes(shutil.disk_usage(output).free - self.random.randint(0, 3 * len(self.whole)))
            )
            process = self._start(output)
            process.join(LIMIT)
            assert process.exitcode in (0, NO_ROOM), process.exitcode
            self.tally["no room on a disk" if process.exitcode else "enough room on a disk"] += 1
            filler.unlink()
            self._finish(output)

    def pair(self) -> None:
        """Two processes make one video in one folder; every other time one of them is killed."""
        output = self._output()
        first = self._start(output)
        time.sleep(self.random.uniform(0, self.seconds))
        second = self._start(output)
        killed = self.random.choice((None, first, second))
        if killed is not None:
            time.sleep(self.random.uniform(0, self.seconds))
            killed.kill()
        for process in (first, second):
            process.join(LIMIT)
            assert process is killed or process.exitcode == 0, process.exitcode
        self.tally["pairs"] += 1
        self.tally["of a pair killed"] += killed is not None
        self._finish(output)

    def _output(self) -> Path:
        output = Path(tempfile.mkdtemp(dir=self.folder))
        self._stand_by(output)
        return output

    def _stand_by(self, output: Path) -> None:
        for name in BYSTANDERS:
            (output / name).parent.mkdir(parents=True, exist_ok=True)
            (output / name).write_text(name)

    def _start(
        self, output: Path, largest_file: int | None = None, disturb: tuple[int, bool] | None = None
    ) -> BaseProcess:
        process = self.context.Process(target=run, args=(output, largest_file, disturb))
        process.start()
        return process

    def _make(self, output: Path) -> Path:
        """Undisturbed; the newest file."""
        process = self._start(output)
        process.join(LIMIT)
        assert process.exitcode == 0, process.exitcode
        return max(output.glob("video/*.mp4"))

    def _finish(self, output: Path) -> None:
        """Until nothing is left to go on with; every file is whole, and nothing else is there or changed."""
        for _ in range(4):
            self._make(output)
            if not list((output / WORK_FOLDER).glob(f"{VIDEO.key}*")):
                break
        files = sorted(path.relative_to(output).as_posix() for path in output.rglob("*") if path.is_file())
        videos = [name for name in files if name.endswith("_.mp4")]
        assert videos == [f"video/talk_{number:05}_.mp4" for number in range(1, len(videos) + 1)], files
        assert all((output / name).read_bytes() == self.whole for name in videos), "not the undisturbed video"
        assert sorted(set(files) - set(videos)) == sorted(BYSTANDERS), files
        assert all((output / name).read_text() == name for name in BYSTANDERS)
        self.tally["videos, all whole"] += len(videos)
        shutil.rmtree(output, ignore_errors=True)


@contextmanager
def small_disk(folder: Path, nbytes: int = 2**22) -> Iterator[Path]:
    """A file system of so many bytes; needs the right to mount one."""
    shutil.rmtree(folder)
    folder.mkdir()
    subprocess.run(
        ["mount", "-t", "tmpfs", "-o", f"size={nbytes}", "tmpfs", str(folder)],
        check=True,
        capture_output=True,
    )
    try:
        yield folder
    finally:
        subprocess.run(["umount", str(folder)], check=False)


def can_mount() -> bool:
    """Whether this user may have a disk of his own."""
    with tempfile.TemporaryDirectory() as folder:
        try:
            with small_disk(Path(folder)):
                return True
        except (OSError, subprocess.CalledProcessError):
            return False


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--kills", type=int, default=40)
    parser.add_argument("--full-disks", type=int, default=20)
    parser.add_argument("--pairs", type=int, default=10)
    parser.add_argument("--every-operation", action="store_true", help="die before each, and let each fail")
    parser.add_argument("--seed", type=int, default=int.from_bytes(os.urandom(4), "big"))
    options = parser.parse_args()
    print(f"seed {options.seed}")
    with tempfile.TemporaryDirectory() as folder:
        crashes = Crashes(Path(folder), options.seed)
        fill = [crashes.fill_up, crashes.fill_up_a_disk] if can_mount() else [crashes.fill_up]
        for _ in range(options.kills):
            crashes.kill()
        for index in range(options.full_disks):
            fill[index % len(fill)]()
        for _ in range(options.pairs):
            crashes.pair()
        if options.every_operation:
            last = next(operation for operation in count(1) if not crashes.die(operation))
            for operation in range(1, last):
                crashes.fail(operation)
    for what, times in crashes.tally.items():
        print(f"{times:5d}  {what}")


if __name__ == "__main__":
    main()
