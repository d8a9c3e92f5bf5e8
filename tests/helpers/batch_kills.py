"""Batches killed at random moments: the same line again ends with the same files, and makes nothing twice.

    python -m tests.helpers.batch_kills [--rounds 10] [--seed N]

Every round starts `teacache_memo.py batch` on the bundled model with two workers on Ray (or without Ray, in
one process), sees that nothing of it listens beyond the loopback interface, kills the driver, a worker, or
everything with SIGKILL, looks at what is on the disk, and runs the line again. Linux: it reads /proc.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

from memo_avatar.clips.values import SamplingSettings
from memo_avatar.files.header import read_header
from memo_avatar.video.unfinished import STATE

ROOT = Path(__file__).resolve().parents[2]
DEMO = ROOT / "demo"
SECONDS = 2.6  # of a row: five clips
OPTIONS = ("--steps", "4", "--guidance-scale", "1", "--device", "cpu", "--max-seconds", str(SECONDS))
LIMIT = 300  # seconds that a batch may take
KEPT = {".batch.lock", "results.jsonl"}

VICTIMS = ("driver", "worker", "everything")


class BatchKills:
    """A batch that nobody disturbs, and others that are killed."""

    def __init__(self, folder: Path, seed: int, *, rows: int, ray: bool) -> None:
        self.folder, self.random, self.ray = folder, random.Random(seed), ray
        self.tally: Counter[str] = Counter()
        self.jobs = folder / "jobs.jsonl"
        lines = (
            {
                "id": f"row{number}",
                "image": str(DEMO / "portrait.png"),
                "audio": str(DEMO / "speech.wav"),
                "seed": number,
            }
            for number in range(rows)
        )
        self.jobs.write_text("\n".join(map(json.dumps, lines)), encoding="utf-8")
        self.seconds = self._finish(folder / "whole")
        self.whole = videos(folder / "whole")
        assert len(self.whole) == rows

    def kill(self, victim: str) -> None:
        """One round."""
        output = Path(tempfile.mkdtemp(dir=self.folder))
        batch = self._start(output)
        try:
            wait_for_work(output, batch)
            reachable = listening_beyond_loopback(batch.pid)
            assert not reachable, f"others could reach {reachable}"
            time.sleep(self.random.uniform(0, self.seconds))
            kept = self._shoot(victim, batch.pid, output) if batch.poll() is None else None
            self.tally["over before the kill" if kept is None else f"{victim} killed"] += 1
            made = {path: path.stat().st_mtime_ns for path in output.glob("*.mp4")}
            status = batch.wait(LIMIT)
            assert status == 0 or victim != "worker", "the batch did not go on without its worker"
        finally:
            end_all(batch.pid)
        self._finish(output)
        self._judge(output, made, kept or 0)
        shutil.rmtree(output)

    def _start(self, output: Path) -> subprocess.Popen[bytes]:
        line = [sys.executable, str(ROOT / "teacache_memo.py"), "batch", str(self.jobs)]
        line += ["--output-folder", str(output), *OPTIONS, *(["--ray", "--workers", "2"] if self.ray else [])]
        # A session of its own: what is left of it is found by its number.
        return subprocess.Popen(
            line, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True,
            env=os.environ | {"OMP_NUM_THREADS": "1"},
        )  # fmt: skip

    def _shoot(self, victim: str, driver: int, output: Path) -> int | None:
        """The finished clips of what is interrupted; None where nobody was there to kill."""
        unfinished = list(output.glob(".unfinished-*/*/"))
        if victim == "driver":
            os.kill(driver, signal.SIGKILL)
        elif victim == "everything":
            end_all(driver)
        else:
            at_work = [(pid, held) for pid in descendants(driver) if (held := held_by(pid, unfinished))]
            if not at_work:
                return None
            pid, unfinished = self.random.choice(at_work)
            os.kill(pid, signal.SIGKILL)
        return sum(map(finished_clips, unfinished))

    def _finish(self, output: Path) -> float:
        """Until all is done; seconds since the first video was begun."""
        batch = self._start(output)
        try:
            wait_for_work(output, batch)
            started = time.monotonic()
            assert batch.wait(LIMIT) == 0, f"the batch ended with {batch.returncode}"
            return time.monotonic() - started
        finally:
            end_all(batch.pid)

    def _judge(self, output: Path, made: dict[Path, int], clips: int) -> None:
        """The same files, no other one, and only the clips made again that were lost."""
        names = {path.name for path in output.iterdir()}
        assert names == set(self.whole) | KEPT, names
        other = [name for name, content in videos(output).items() if content != self.whole[name]]
        assert not other, f"{other} are not those of the undisturbed batch"
        again = [path.name for path, changed in made.items() if path.stat().st_mtime_ns != changed]
        assert not again, f"{again} were made twice"
        each = SamplingSettings().frames_per_clip
        # The last clip of a video may be shorter.
        kept = sum(math.ceil(line["continued_from"] / each) for line in results(output))
        assert kept >= clips, f"{clips} clips were finished but {kept} were kept"
        self.tally["finished clips kept"] += clips
        self.tally["videos, all the same"] += len(self.whole)


def wait_for_work(output: Path, batch: subprocess.Popen[bytes]) -> None:
    """Until a video is being made: what comes before has nothing to lose."""
    while batch.poll() is None and not list(output.glob(".unfinished-*/*/")):
        time.sleep(0.05)


def finished_clips(folder: Path) -> int:
    """After how many clips of an unfinished video a later run goes on: those that its state knows. The file
    of one more may be there, of a clip that was killed before its state was on the disk.
    """
    files, state = len(list(folder.glob("clip_??????.mp4"))), folder / STATE
    known = len(read_header(state).metadata["clips"].split()) if state.exists() else 0
    assert files - known <= 1, f"{files} clips are there but the state knows {known}"
    return known


def videos(folder: Path) -> dict[str, bytes]:
    """Every video of a folder."""
    return {path.name: path.read_bytes() for path in sorted(folder.glob("*.mp4"))}


def results(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / "results.jsonl").read_text(encoding="utf-8").splitlines()]


def descendants(process: int) -> Iterator[int]:
    """A process and all that came of it: Ray's daemons keep the session's number or their parent's."""
    known = {process}
    everybody = {int(path.name): stat(path) for path in Path("/proc").glob("[0-9]*")}
    while grown := {pid for pid, ids in everybody.items() if known & set(ids)} - known:
        known |= grown
    yield from (pid for pid in known if Path(f"/proc/{pid}").exists())


def stat(process: Path) -> tuple[int, ...]:
    """Parent and session of a process; nothing where it is gone."""
    try:
        fields = (process / "stat").read_text().rpartition(")")[2].split()
    except OSError:
        return ()
    return int(fields[1]), int(fields[3])


def end_all(process: int) -> None:
    """SIGKILL for a process and all that came of it."""
    for pid in list(descendants(process)):
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)


def held_by(pid: int, folders: list[Path]) -> list[Path]:
    """Which of the folders a process has locked."""
    links = set(open_files(pid))
    return [folder for folder in folders if str(folder / "lock") in links]


def listening_beyond_loopback(process: int) -> list[str]:
    """Addresses (in hex, as the kernel writes them) on which it, or what came of it, waits for others."""
    sockets = {name for pid in descendants(process) for name in open_files(pid)}
    found = []
    for table in ("tcp", "tcp6"):
        for line in Path(f"/proc/net/{table}").read_text().splitlines()[1:]:
            fields = line.split()
            address, state, inode = fields[1], fields[3], fields[9]
            loopback = address.startswith(
                ("0100007F", "0" * 24 + "01000000", "0000000000000000FFFF00000100007F")
            )
            if state == "0A" and not loopback and f"socket:[{inode}]" in sockets:
                found.append(address)
    return found


def open_files(pid: int) -> list[str]:
    """Names of what a process has open; nothing where it is gone."""
    found: list[str] = []
    with suppress(OSError):
        for link in Path(f"/proc/{pid}/fd").iterdir():
            with suppress(OSError):
                found.append(os.readlink(link))
    return found


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=10)
    parser.add_argument("--seed", type=int, default=int.from_bytes(os.urandom(4), "big"))
    options = parser.parse_args()
    print(f"seed {options.seed}")
    with tempfile.TemporaryDirectory() as folder:
        kills = BatchKills(Path(folder), options.seed, rows=4, ray=True)
        for index in range(options.rounds):
            kills.kill(VICTIMS[index % len(VICTIMS)])
    for what, times in kills.tally.items():
        print(f"{times:5d}  {what}")


if __name__ == "__main__":
    main()
