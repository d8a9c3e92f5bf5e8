"""`teacache_memo.py unfinished`: videos that nobody went on with are listed, and removed when told."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from memo_avatar.files.foreign import counted, shown
from memo_avatar.video.left_over import DAY, Left, left_below

from ..arguments import COMFYUI, CommandError, Parser, checked, number

FAILED = 1
_HOUR = 3600


def unfinished(arguments: Sequence[str]) -> int:
    """List them, remove them if told to; the exit status."""
    parser = Parser(
        prog="teacache_memo.py unfinished",
        allow_abbrev=False,
        description="Videos that were stopped and never gone on with. Nothing is removed without --remove.",
    )
    add = parser.add_argument
    add("folder", nargs="?", type=Path, default=default_folder(), metavar="DIR",
        help="of the videos, with the folders in it (default: the output folder of the ComfyUI that the pack "
        "lies in, else here)")  # fmt: skip
    add("--older-than", type=checked(_days), default=0.0, metavar="DAYS",
        help="only those that nobody has worked at for so long")  # fmt: skip
    add("--remove", action="store_true", help="remove what is listed, but nothing that is being made now")
    options = parser.parse_args(arguments)
    if not options.folder.is_dir():
        raise CommandError(
            f"expected a folder but got {shown(str(options.folder))}. Name that of the videos."
        )
    found = [one for one in left_below(options.folder) if one.seconds >= options.older_than * DAY]
    for one in found:
        print(describe(one))
    size = _size(sum(one.nbytes for one in found))
    if not options.remove:
        advice = " The same command with --remove removes them." if found else ""
        print(f"Unfinished: {len(found)}, {size}.{advice}")
        return 0
    kept = [one for one in found if not one.remove()]
    for one in kept:
        print(f"Kept: {one.folder} (it is being made now, or another program has it open)")
    print(f"Removed: {len(found) - len(kept)} of {len(found)}.")
    return FAILED if kept else 0


def default_folder() -> Path:
    """Where videos go that are made without a word about where."""
    return Path() if COMFYUI is None else COMFYUI / "output"


def describe(left: Left) -> str:
    """One line."""
    age = f"{left.seconds / DAY:.0f} days" if left.seconds >= 2 * DAY else f"{left.seconds / _HOUR:.1f} hours"
    name = shown(left.name) if left.name else "?"
    return f"{name}  {age}  {counted(left.clips, 'clip')}  {_size(left.nbytes)}  {left.folder}"


def _size(nbytes: int) -> str:
    return f"{nbytes / 1e6:.1f} MB"


def _days(text: str) -> float:
    return number(text, lambda value: value >= 0, "0 days or more", "Use 7 for those of a week ago.")
