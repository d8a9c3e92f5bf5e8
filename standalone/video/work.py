"""Where a video of the command waits for its last clip: a folder beside its output, held by one process."""

from __future__ import annotations

import time
from pathlib import Path

from memo_avatar.video.job_key import key_of
from memo_avatar.video.left_over import left_in, root_beside
from memo_avatar.video.unfinished import Unfinished

LEASE = 100.0
"""Seconds for which a network folder may keep the lock of a machine that is gone: NFS servers do for 90."""

_PAUSE = 1.0


def open_work(output: Path, job: str, *, anew: bool = False, patience: float = 0.0) -> Unfinished:
    """The folder of an output's clips. What was begun with other settings is removed, and with ``anew`` all.

    ``patience``: seconds to wait for another process that holds it. After them, and where it is a living one,
    the video gets a second folder.
    """
    root = root_beside(output)
    key = key_of(job)
    for left in left_in(root):
        if anew or not left.folder.name.startswith(key):
            left.remove()
    end = time.monotonic() + patience
    while True:
        work = Unfinished.open(root, key, output.name)
        if work.folder.name == key or time.monotonic() >= end:
            return work
        work.remove()
        time.sleep(_PAUSE)
