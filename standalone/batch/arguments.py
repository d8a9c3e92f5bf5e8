"""The batch's command line: the manifest, the folder, where to work, and defaults for all videos."""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path

from ..arguments import CommandError, Parser, VideoOptions, add_video_options, checked, number, whole

LOCAL = "local"
"""The address of a Ray on this machine alone."""

ONE_BY_ONE = ("output", "codec", "speakers")

OPTIONS = tuple(field.name for field in fields(VideoOptions) if field.name not in ONE_BY_ONE)
"""Options of a video by their field names. Rows name the outputs, MP4 files in which one speaks."""

OPTIONAL_VALUE = ("face_crop",)
"""Options whose value may be left out: a flag or a number."""

MOST_WORKERS = 10_000
EPILOG = """\
JOBS is CSV (.csv, .tsv) or JSON Lines (.jsonl): a row per video, with an id, and a column for every option
that differs from row to row, by its name. Options given here are the defaults of all rows. Paths in JOBS
count from its folder. The same line again makes what is missing and goes on with what was stopped.
"""


@dataclass(frozen=True)
class BatchOptions:
    """What a batch was asked for. ``given`` are the videos' options that stand on the command line."""

    jobs: Path
    output_folder: Path
    dry_run: bool
    ray: str | None  # an address of Ray; None: one process, without Ray
    workers: int | None
    cards_per_worker: float | None
    given: Mapping[str, object]


def parse_batch(arguments: Sequence[str]) -> BatchOptions:
    """`JOBS --output-folder DIR` and all that goes with it."""
    parser = Parser(
        prog="teacache_memo.py batch",
        usage="%(prog)s JOBS --output-folder DIR [--dry-run] [--ray [ADDRESS]] [OPTION ...]",
        allow_abbrev=False,
        description="Many videos: what is missing is made, what was stopped goes on, nothing is made twice.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add("jobs", type=Path, metavar="JOBS", help="the manifest: .csv, .tsv or .jsonl")
    add("--output-folder", type=Path, required=True, metavar="DIR",
        help="for ID.mp4 of every row, results.jsonl and failed.jsonl")  # fmt: skip
    add("--dry-run", action="store_true", help="open and check everything, say what it takes, make nothing")
    add("--ray", nargs="?", const=LOCAL, metavar="ADDRESS",
        help="work on all cards of this machine, or of the Ray cluster at ADDRESS (auto: the one "
        "that this machine belongs to)")  # fmt: skip
    add("--workers", type=checked(_workers), metavar="N",
        help="with --ray (default: as many as there are cards for)")  # fmt: skip
    add("--cards-per-worker", type=checked(_cards), metavar="N",
        help="with --ray: 0.5 puts two workers on a card (default: 1; where there is no card, "
        "of the CPUs)")  # fmt: skip
    add_video_options(parser, for_batch=True)
    unset = object()
    values = vars(parser.parse_args(arguments, argparse.Namespace(**dict.fromkeys(OPTIONS, unset))))
    found = {name: values.pop(name) for name in OPTIONS}
    given = {name: value for name, value in found.items() if value is not unset}
    options = BatchOptions(**values, given=given)
    if options.ray is None and (options.workers or options.cards_per_worker):
        raise CommandError("expected --ray with --workers and --cards-per-worker but got none. Add --ray.")
    return options


class RowParser:
    """Options of a row as text -> values; what the row does not say, the command line or the command does."""

    def __init__(self, given: Mapping[str, object]) -> None:
        self._parser = Parser(prog="", add_help=False, allow_abbrev=False)
        add_video_options(self._parser, for_batch=True)
        self._defaults = vars(self._parser.parse_args([])) | dict(given)

    def parse(self, cells: Mapping[str, str | bool], output: Path) -> VideoOptions:
        """``cells``: text by the option's field name; True: the option without a value; False: not at all."""
        options = argparse.Namespace(**self._defaults)
        arguments = []
        for name, value in cells.items():
            if value is False:
                setattr(options, name, None if name in OPTIONAL_VALUE else False)
            else:
                arguments.append(f"--{name.replace('_', '-')}" + ("" if value is True else f"={value}"))
        values = vars(self._parser.parse_args(arguments, options))
        missing = [f"--{name}" for name in ("image", "audio") if values[name] is None]
        if missing:
            raise CommandError(
                f"expected an image and an audio but got no {' and no '.join(missing)}. Add a column."
            )
        return VideoOptions(**values, output=output)


def _workers(text: str) -> int:
    return whole(text, 1, MOST_WORKERS, "Leave it out for one worker per card.")


def _cards(text: str) -> float:
    return number(text, lambda value: 0 < value <= 64, "a number above 0", "Use 1, or 0.5 for two on a card.")
