"""Makes the templates' thumbnails out of real results: `python -m tests.browser.thumbnails [number ...]`.

Workflows 1 to 4 are run on a part of their speech and 6 on all of it, by a ComfyUI on this machine; 5 needs
weights that are not here, so its thumbnail is the graph itself, out of the screenshot that the browser suite
leaves. `readme` in place of a number makes README's picture of a template after a run of all its steps.
"""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from PIL import Image

from tests.browser.conftest import SCREENSHOTS, Page, find_browser
from tests.conftest import find_comfyui
from tests.helpers.comfy import server as comfy_server
from tests.helpers.comfy.pack import ROOT, make_user_folder
from tests.helpers.comfy.server import ComfyServer
from tests.helpers.comfy.workflows import FILES, read, to_prompt

SIDE = 448  # twice the size at which the template browser shows them
PAPER = (255, 255, 255)
PART = {"start": 0.5, "duration": 1.5}  # seconds
RUN_SECONDS = 1200
README = "readme"
README_TEMPLATE = "2 Talking portrait with TeaCache"
README_PICTURE = ROOT / "docs" / "images" / "workflow.jpg"
MARGINS = (-8, -13, 8, 8)  # pixels; above a node stands the pack's name
Picture = Image.Image


def one_frame(frames: Sequence[Picture], _reports: Sequence[Picture]) -> Picture:
    return widest_mouth(frames).resize((SIDE, SIDE), Image.Resampling.BICUBIC)


def frame_and_report(frames: Sequence[Picture], reports: Sequence[Picture]) -> Picture:
    """The talking face, and under it which steps were computed."""
    canvas, strip = one_frame(frames, reports), grid_of(reports[0], SIDE // 4)
    canvas.paste(canvas.crop((0, SIDE // 8, SIDE, SIDE)), (0, 0))
    canvas.paste(strip, (0, SIDE - strip.height))
    return canvas


def pair_and_difference(frames: Sequence[Picture], _reports: Sequence[Picture]) -> Picture:
    """Without the cache and with it, side by side; under them what differs, ten times enlarged."""
    canvas, half = Image.new("RGB", (SIDE, SIDE), PAPER), SIDE // 2
    shot = widest_mouth(frames)
    side = shot.height
    for index, place in enumerate(((0, 0), (half, 0), (half // 2, half))):
        panel = shot.crop((index * side, 0, (index + 1) * side, side))
        canvas.paste(panel.resize((half, half), Image.Resampling.BICUBIC), place)
    return canvas


def film(frames: Sequence[Picture], _reports: Sequence[Picture]) -> Picture:
    """Nine moments of the video."""
    canvas, cell = Image.new("RGB", (SIDE, SIDE), PAPER), SIDE // 3
    for index in range(9):
        frame = frames[(2 * index + 1) * len(frames) // 18].resize(
            (cell - 4, cell - 4), Image.Resampling.BICUBIC
        )
        canvas.paste(frame, (index % 3 * (cell + 1), index // 3 * (cell + 1)))
    return canvas


def turns(frames: Sequence[Picture], _reports: Sequence[Picture]) -> Picture:
    """Above the first one speaking, below the other."""
    canvas, half = Image.new("RGB", (SIDE, SIDE), PAPER), len(frames) // 2
    for index, turn in enumerate((frames[:half], frames[half:])):
        frame = widest_mouth(turn).resize((SIDE, SIDE // 2 - 2), Image.Resampling.BICUBIC)
        canvas.paste(frame, (0, index * (SIDE // 2 + 2)))
    return canvas


MAKERS: dict[str, Callable[[Sequence[Picture], Sequence[Picture]], Picture]] = {
    "1": one_frame,
    "2": frame_and_report,
    "3": pair_and_difference,
    "4": film,
    "6": turns,
}


def widest_mouth(frames: Sequence[Picture]) -> Picture:
    """The frame that differs most from the first one in the lower half, where the mouth is."""
    import numpy as np

    lower = [np.asarray(frame, np.float32)[frame.height // 2 :] for frame in frames]
    changes = [float(abs(half - lower[0]).mean()) for half in lower]
    return frames[changes.index(max(changes))]


def grid_of(report: Picture, height: int) -> Picture:
    """A report's dark and light squares alone (see `teacache_core/picture.py`), as wide as a thumbnail."""
    left, top, right = 112, 96, report.width - 24
    rows = [report.getpixel((left + 4, y)) != PAPER for y in range(top, report.height)]
    gap = next(y for y in range(len(rows)) if not any(rows[y : y + 8]))  # the squares' own gaps are narrower
    grid = report.crop((left, top, right, top + gap))
    return grid.resize((SIDE, height), Image.Resampling.LANCZOS)


def screenshot_of(path: Path) -> Picture:
    """The beginning of a workflow as it opens, without the page around it."""
    shot = Image.open(SCREENSHOTS / "current" / f"{path.stem} 1920.png").convert("RGB")
    left, top, side = 240, 130, 800
    return shot.crop((left, top, left + side, top + side)).resize((SIDE, SIDE), Image.Resampling.LANCZOS)


def after_a_run(page: Page) -> Picture:
    """README's template in all its steps, the graph alone, in the window of a common laptop."""
    whole = {"templates": [README_TEMPLATE], "changes": {}}
    found = page.use("frontend.mjs", templates=[], stored={}, run=whole, timeout=1000 * RUN_SECONDS)
    run = found["templates"][README_TEMPLATE]["run"]
    assert run["ended"] == ["execution_success", ""], run["ended"]
    scale, (x, y) = run["place"]["scale"], run["place"]["offset"]
    boxes = [node["bounding"] for node in run["shown"]["opened"]]
    left, top = (min(box[axis] for box in boxes) for axis in (0, 1))
    right, bottom = (max(box[axis] + box[axis + 2] for box in boxes) for axis in (0, 1))
    corners = ((left + x) * scale, (top + y) * scale, (right + x) * scale, (bottom + y) * scale)
    edges = [round(corner + margin) for corner, margin in zip(corners, MARGINS, strict=True)]
    shot = Image.open(page.screenshots / f"finished {README_TEMPLATE}.png").convert("RGB")
    return shot.crop((max(0, edges[0]), max(0, edges[1]), *map(min, edges[2:], shot.size)))


def results(
    server: ComfyServer, path: Path, object_info: dict[str, Any]
) -> tuple[list[Picture], list[Picture]]:
    """The frames of a workflow's video, and the pictures it shows."""
    import av

    prompt = to_prompt(read(path), object_info)
    for node in prompt.values():
        if node["class_type"] == "MEMO_Voice" and not path.name.startswith("6"):
            node["inputs"] |= PART
    outputs = server.run(prompt)
    files = [server.file(saved) for output in outputs.values() for saved in output.get("images", [])]
    frames: list[Picture] = []
    for file in (file for file in files if file.suffix == ".mp4"):
        with av.open(str(file)) as video:
            frames += [frame.to_image() for frame in video.decode(video=0)]
    return frames, [Image.open(file).convert("RGB") for file in files if file.suffix == ".png"]


def main(numbers: Sequence[str]) -> None:
    comfyui = find_comfyui()
    assert comfyui is not None, "expected a ComfyUI but got none. Set COMFYUI_PATH."
    comfy_server.PROMPT_SECONDS = 3600.0
    chosen = [path for path in FILES if not numbers or path.name[0] in numbers]
    with (
        tempfile.TemporaryDirectory() as folder,
        ComfyServer(comfyui, make_user_folder(Path(folder))) as server,
    ):
        if README in numbers:
            page = Page(
                find_browser(), server, Path(folder), SCREENSHOTS / README, {"Comfy.Minimap.Visible": False}
            )
            after_a_run(page).save(README_PICTURE, quality=85, optimize=True)
        object_info = server.get("/object_info")
        for path in chosen:
            maker = MAKERS.get(path.name[0])
            picture = maker(*results(server, path, object_info)) if maker else screenshot_of(path)
            for each in (path, path.with_name(f"{path.stem}.app.json")):
                if each.exists():
                    picture.save(each.with_suffix(".jpg"), quality=85, optimize=True)
            print(path.with_suffix(".jpg").name, path.with_suffix(".jpg").stat().st_size, "bytes")


if __name__ == "__main__":
    main(sys.argv[1:])
