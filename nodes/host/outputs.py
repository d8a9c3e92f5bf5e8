"""Videos in ComfyUI's output folder: their names and numbers, and the workflow that they carry."""

from __future__ import annotations

import json
import os
import re
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import Any

import folder_paths
from comfy.cli_args import args
from comfy_api.latest import io

from ...memo_avatar.files.disk import DiskError, place_new, try_place
from ...memo_avatar.files.names import name_problem
from ...memo_avatar.video.streams import expected_bytes

HIDDEN = [io.Hidden.prompt, io.Hidden.extra_pnginfo, io.Hidden.unique_id]
"""What a node that writes a video asks of the host."""

_TOKEN = re.compile(r"%([^%]+)%")
_DATE_PART = re.compile(r"yyyy|yyy|yy|dd?|MM?|hh?|mm?|ss?")
_DATE_FORMATS = {"y": "%Y", "M": "%m", "d": "%d", "h": "%H", "m": "%M", "s": "%S"}
_NOT_IN_NAMES = re.compile(r'[/?<>\\:*|"\x00-\x1f\x7f]')


@dataclass(frozen=True)
class OutputName:
    """Where a video will be saved. Its number is taken when the file is there, so it can't be another's."""

    folder: Path
    subfolder: str
    name: str
    number: int  # the first that is free now

    @classmethod
    def of(cls, prefix: str, size: tuple[int, int], root: str | None = None) -> OutputName:
        """For frames of this width and height, the host's tokens filled in; ``root`` is the output folder.

        Raises:
            DiskError: a name that leads out of the folder, or that no file can have.
        """
        root = folder_paths.get_output_directory() if root is None else root
        _check_name(prefix, root)
        try:
            found = folder_paths.get_save_image_path(prefix, root, *size)
        except (OSError, ValueError) as error:
            raise DiskError(
                f"expected a folder that can be made for {prefix!a:.200} but got: "
                f"{getattr(error, 'strerror', None) or error} (filename_prefix). Choose another name."
            ) from error
        folder, name, number, subfolder, _ = found
        return cls(Path(folder), subfolder, name, number)

    def paths(self) -> Iterator[Path]:
        """The names with a number, as the host's save nodes give them."""
        return (self.folder / f"{self.name}_{number:05}_.mp4" for number in count(self.number))

    def try_out(self, frames: int, size: tuple[int, int]) -> None:
        """Raise now what would make saving so many frames fail at the end."""
        try_place(next(self.paths()), nbytes=expected_bytes(frames, *size))

    def take(self, part: Path) -> Path:
        """Give a finished file the first name that is free; the name."""
        self.folder.mkdir(parents=True, exist_ok=True)
        return place_new(part, self.paths())


def tags_of(node: type[io.ComfyNode]) -> dict[str, str]:
    """What a file carries so that the page can open it as a workflow; nothing where the host is told so."""
    hidden = node.hidden
    if args.disable_metadata or hidden is None:
        return {}
    extra = hidden.extra_pnginfo if isinstance(hidden.extra_pnginfo, dict) else {}
    values = {**extra, "prompt": hidden.prompt}
    return {
        _writable(str(name)): _writable(value if isinstance(value, str) else json.dumps(value))
        for name, value in values.items()
        if value is not None
    }


def fill_in(prefix: str, node: type[io.ComfyNode]) -> str:
    """`%date:yyyy-MM-dd%` and `%Node.widget%`, which the page fills in for core's save nodes alone. What
    can't be found stays, as there.
    """

    def value(match: re.Match[str]) -> str:
        what = match[1].split(".")
        if len(what) == 2:
            found = _widget(what[0], what[1], node)
            return match[0] if found is None else _NOT_IN_NAMES.sub("_", found)
        return _date(match[1][len("date:") :]) if match[1].startswith("date:") else match[0]

    return _TOKEN.sub(value, prefix)


def _date(pattern: str) -> str:
    now = time.localtime()

    def part(match: re.Match[str]) -> str:
        text = match[0]
        if text == "yyy":
            return text
        number = time.strftime(_DATE_FORMATS[text[0]], now)
        if text == "yy":
            return number[2:]
        return number if len(text) > 1 else str(int(number))

    return _DATE_PART.sub(part, pattern)


def _widget(title: str, name: str, node: type[io.ComfyNode]) -> str | None:
    """The value of a widget of the first node of that name for search and replace, or else of that title."""
    prompt = (node.hidden.prompt if node.hidden else None) or {}
    names = _search_names(node)
    calls = (
        lambda key, one: names.get(key, one.get("class_type")),
        lambda _key, one: _mapping(one.get("_meta")).get("title"),
    )
    for call in calls:
        for key, one in prompt.items():
            if call(str(key), one) == title:
                value = one.get("inputs", {}).get(name)
                known = value is not None and not isinstance(value, list | dict)
                return (value if isinstance(value, str) else json.dumps(value)) if known else None
    return None


def _search_names(node: type[io.ComfyNode]) -> dict[str, str]:
    """Node id -> "Node name for S&R", where the page sent its workflow."""
    extra = node.hidden.extra_pnginfo if node.hidden else None
    workflow = extra.get("workflow") if isinstance(extra, dict) else None
    nodes = workflow.get("nodes") if isinstance(workflow, dict) else None
    found = [one for one in nodes if isinstance(one, dict)] if isinstance(nodes, list) else []
    names = {str(one.get("id")): _mapping(one.get("properties")).get("Node name for S&R") for one in found}
    return {key: name for key, name in names.items() if isinstance(name, str)}


def _mapping(value: Any) -> Mapping[str, Any]:
    """What a client sent where an object belongs; the host looks at neither."""
    return value if isinstance(value, Mapping) else {}


def _check_name(prefix: str, output: str) -> None:
    """Raise for what the host answers with a traceback, or not at all."""
    windows = os.name == "nt"
    parts = [part for part in re.split(r"[/\\]" if windows else "/", prefix) if part not in ("", ".")]
    problem = next((found for part in parts if (found := name_problem(part, windows=windows))), None)
    if not parts or problem:
        raise DiskError(
            f"expected a name for the file but got {problem or 'none'} ({prefix!a:.200}, filename_prefix). "
            "Choose another name."
        )
    root = os.path.realpath(output)
    folder = os.path.realpath(os.path.join(root, os.path.dirname(os.path.normpath(prefix))))
    if folder != root and not folder.startswith(os.path.join(root, "")):
        raise DiskError(
            f"expected a name inside ComfyUI's output folder but got one outside it ({prefix!a:.200}, "
            "filename_prefix). Choose a name like video/memo."
        )


def _writable(text: str) -> str:
    return text.replace("\0", "").encode("utf-8", "ignore").decode("utf-8")
