"""`teacache_memo.py models` and `convert-emotion`: what is there, what is missing, and how to get it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from memo_avatar.files import published_models as model_table
from memo_avatar.files.downloads import DownloadError, download
from memo_avatar.files.published_models import GROUPS, REQUIRED
from memo_avatar.voice.emotion_files import convert_emotion2vec

from .arguments import COMFYUI, ROOT, Parser
from .progress import byte_progress

FAILED = 1
MODEL_NAME = "MEMO"


@dataclass(frozen=True)
class ModelsOptions:
    """What was asked for: `list` or `download`, of which groups, where."""

    action: str
    groups: list[str]
    folder: Path
    markdown: bool


def default_folder() -> Path:
    """`models/memo/MEMO` of the ComfyUI that the pack lies in, else `models/MEMO` of the pack."""
    return ROOT / "models" / MODEL_NAME if COMFYUI is None else COMFYUI / "models" / "memo" / MODEL_NAME


def parse_models(arguments: Sequence[str]) -> ModelsOptions:
    """`[list|download] [GROUP ...] --folder DIR`."""
    parser = Parser(
        prog="teacache_memo.py models",
        allow_abbrev=False,
        description="Which model files are there. Nothing is fetched but by `models download`.",
    )
    add = parser.add_argument
    add("action", nargs="?", choices=("list", "download"), default="list", help="default: %(default)s")
    add("groups", nargs="*", metavar="GROUP",
        help=f"{', '.join(GROUPS)} (default: all; of download: {', '.join(REQUIRED)})")  # fmt: skip
    add("--folder", type=Path, default=default_folder(), metavar="DIR", help="default: %(default)s")
    add("--markdown", action="store_true", help="print the table of docs/models.md")
    options = ModelsOptions(**vars(parser.parse_args(arguments)))
    for group in options.groups:
        if group not in GROUPS:
            parser.error(f"argument GROUP: invalid choice: {group!r} (choose from {', '.join(GROUPS)})")
    return options


def models(options: ModelsOptions) -> int:
    """List or fetch; the exit status."""
    if options.markdown:
        print(model_table.markdown())
        return 0
    if options.action == "list":
        print(model_table.status(options.folder, options.groups or tuple(GROUPS)))
        return 0
    groups = tuple(options.groups) or REQUIRED
    try:
        for file in model_table.to_fetch(options.folder, groups):
            target = options.folder / file.path
            with byte_progress(file.path) as progress:
                download(file.url, target, most=file.most, sha256=file.sha256, on_bytes=progress)
            if not file.sha256:
                print(f"{file.path}: no checksum of it is published; its size alone was checked.")
    except DownloadError:
        print(model_table.status(options.folder, groups))
        raise
    print(model_table.status(options.folder, groups))
    pickled = options.folder / "emotion2vec" / "model.pt"
    if pickled.is_file() and not (options.folder / model_table.CONVERTED).is_file():
        print(f"\nOne step more: python teacache_memo.py convert-emotion {pickled}")
    return 0


def convert_emotion(arguments: Sequence[str]) -> int:
    """`SRC [DST]`: emotion2vec's published pickle becomes a .safetensors file; the exit status."""
    parser = Parser(
        prog="teacache_memo.py convert-emotion",
        allow_abbrev=False,
        description="Write emotion2vec's model.pt as .safetensors. It is opened with torch's restricted "
        "loader, which runs no code; the nodes and the command read the .safetensors only.",
    )
    parser.add_argument("src", type=Path, metavar="SRC", help="model.pt of emotion2vec_plus_large")
    parser.add_argument("dst", type=Path, metavar="DST", nargs="?", help="default: SRC with .safetensors")
    options = parser.parse_args(arguments)
    target = options.dst or options.src.with_suffix(".safetensors")
    count = convert_emotion2vec(options.src, target)
    print(f"Emotion model: {target} ({count} tensors, {target.stat().st_size / 1e6:.1f} MB)")
    return 0
