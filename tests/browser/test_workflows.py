"""Every workflow in the real frontend: whole, well laid out, saved and opened again; the demo ones play."""

from __future__ import annotations

import json
from itertools import combinations
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from teacache_core.picture import LETTERS
from tests.helpers.comfy.workflows import APPS, FILES, OF_0_1, RUNNABLE, SECONDS, nodes_of, read

pytestmark = [pytest.mark.browser, pytest.mark.slow, pytest.mark.timeout(1800)]

every_workflow = pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
every_runnable_one = pytest.mark.parametrize("path", RUNNABLE, ids=lambda path: path.stem)
NODE_TEXT = 14  # pixels of a node's text at full size
SIDEBAR, TOP_BAR, EDGE = 58, 38, 24  # pixels
SLOT = 14  # how far inside a node its wires begin
UNSAVED = {"audioUI", "preview", "preview_text", "preview_mode", "previewMode"}
Box = tuple[float, float, float, float]
Shown = dict[str, Any]


def types(nodes: list[dict[str, Any]]) -> list[str]:
    return [node["type"] for node in nodes]


@every_workflow
def test_it_opens_whole(path: Path, shown: Shown) -> None:
    found = shown["templates"][path.stem]
    assert types(found["opened"]) == types(read(path)["nodes"])
    assert not types([node for node in found["opened"] if not node["known"] or node["red"]])
    assert not found["alerts"]


@every_workflow
def test_the_nodes_hold_the_files_values(path: Path, shown: Shown) -> None:
    held = {
        str(node["id"]): list(node["widgets"].values()) for node in shown["templates"][path.stem]["opened"]
    }
    for node in nodes_of(read(path)):
        if node["type"].startswith("MEMO_"):
            assert held[str(node["id"])][: len(node["widgets_values"])] == node["widgets_values"], node[
                "type"
            ]


@every_workflow
def test_every_value_survives_a_save_and_reload(path: Path, shown: Shown) -> None:
    found = shown["templates"][path.stem]
    before, after = widgets(found["changed"]), widgets(found["reloaded"])
    assert after == before != widgets(found["opened"])
    saved = shown["user"] / "user" / "default" / "workflows" / f"{found['saved']}.json"
    assert types(json.loads(saved.read_text(encoding="utf-8"))["nodes"]) == types(found["opened"])


def widgets(nodes: list[dict[str, Any]]) -> dict[str, Any]:
    """Without what the host itself does not save: its player's address, how its text is shown."""
    return {
        f"{node['id']} {node['type']}": {k: v for k, v in node["widgets"].items() if k not in UNSAVED}
        for node in nodes
    }


@every_workflow
def test_nothing_overlaps(path: Path, shown: Shown) -> None:
    """Nodes have the size that this frontend needs for them, which may be more than the file's."""
    assert_apart(read(path), shown["templates"][path.stem]["opened"])


@every_runnable_one
def test_nothing_overlaps_after_a_run(path: Path, shown: Shown) -> None:
    """Nodes that show what they made are higher then."""
    assert_apart(read(path), shown["templates"][path.stem]["run"]["shown"]["opened"])


def assert_apart(workflow: dict[str, Any], nodes: list[dict[str, Any]]) -> None:
    boxes = {f"{node['id']} {node['title']}": corners(node["bounding"]) for node in nodes}
    groups = {group["title"]: corners(group["bounding"]) for group in workflow["groups"]}
    for together in (boxes, groups):
        assert not [pair for pair in combinations(together, 2) if overlap(*(together[name] for name in pair))]
    for name, box in boxes.items():
        touched = [title for title, group in groups.items() if overlap(box, group)]
        assert all(contains(groups[title], box) for title in touched), (name, box, touched)


@every_workflow
def test_its_text_is_drawn_at_the_zoom_at_which_it_opens(path: Path, shown: Shown) -> None:
    """With the host's own settings; the canvas draws no text that is too small."""
    for view in shown["templates"][path.stem]["views"]:
        assert NODE_TEXT * view["scale"] >= view["least"]


@every_workflow
def test_its_notes_can_be_read(path: Path, shown: Shown) -> None:
    """Without a scroll, in letters as large as the nodes' own."""
    notes = [node for node in read(path)["nodes"] if node["type"] == "MarkdownNote"]
    for view in shown["templates"][path.stem]["views"]:
        assert len(view["notes"]) == len(notes) > 0
        for note in view["notes"]:
            assert note["letters"] >= NODE_TEXT * view["scale"] and note["whole"], (view["width"], note)


@pytest.mark.parametrize("path", RUNNABLE, ids=lambda path: path.stem)
def test_load_memo_shows_what_the_demo_can_do(path: Path, shown: Shown) -> None:
    """Enough letters of the list's entry; the canvas cuts them itself and tells nobody."""
    for view in shown["templates"][path.stem]["views"]:
        if view["choiceShare"] is not None:
            assert view["choice"].startswith("cartoons only")
            assert view["choiceShare"] * len(view["choice"]) >= len("cartoons only"), view


def test_wires_of_different_kinds_have_different_colours(shown: Shown) -> None:
    colours = shown["colours"]
    for drawn in zip(*colours.values(), strict=True):  # wires, sockets, sockets of Nodes 2.0
        found = [colour for colour in drawn if colour]
        assert len(found) == len(set(found)) >= 4, colours  # an old page does not know Nodes 2.0's


@every_workflow
def test_all_of_it_is_in_the_window_in_which_it_opens(path: Path, shown: Shown) -> None:
    """Of a common laptop, and of a common desktop; but for a node's lower edge."""
    for view in shown["templates"][path.stem]["views"]:
        for title, box in view["nodes"]:
            left, top, right, bottom = corners(box)
            assert left >= SIDEBAR and top >= TOP_BAR, (title, box)
            assert right <= view["width"] and bottom <= view["height"] + EDGE, (title, box)


@every_workflow
def test_no_wire_runs_behind_a_node(path: Path, shown: Shown) -> None:
    assert_wires_in_sight(read(path), shown["templates"][path.stem])


@every_runnable_one
def test_no_wire_runs_behind_a_node_after_a_run(path: Path, shown: Shown) -> None:
    assert_wires_in_sight(read(path), shown["templates"][path.stem]["run"]["shown"])


def assert_wires_in_sight(workflow: dict[str, Any], found: dict[str, Any]) -> None:
    boxes = {node["title"]: corners(node["bounding"]) for node in found["opened"]}
    assert found["wires"]
    # A collapsed node is its title alone, and its own wires end inside that.
    collapsed = {node.get("title") for node in workflow["nodes"] if node["flags"].get("collapsed")}
    behind = [
        (wire["name"], title)
        for wire in found["wires"]
        for title, (left, top, right, bottom) in boxes.items()
        if not (title in collapsed and title in ends(wire["name"]))
        and any(left + SLOT < x < right - SLOT and top < y < bottom for x, y in wire["path"])
    ]
    assert not behind


def ends(wire: str) -> list[str]:
    """The two nodes of `one > other.input`."""
    one, other = wire.split(" > ")
    return [one, other.rsplit(".", 1)[0]]


@pytest.mark.parametrize("path", OF_0_1, ids=lambda path: path.stem)
def test_a_workflow_of_0_1_opens_with_its_values(path: Path, shown: Shown) -> None:
    held = {str(node["id"]): node for node in shown["stored"][path.stem]}
    for node in nodes_of(read(path)):
        found = held[str(node["id"])]
        assert found["known"] and not found["red"]
        if node["type"].startswith("MEMO_"):
            values = list(found["widgets"].values())
            assert values[: len(node["widgets_values"])] == node["widgets_values"], node["type"]


def corners(bounding: list[float]) -> Box:
    left, top, width, height = bounding
    return left, top, left + width, top + height


def overlap(one: Box, other: Box) -> bool:
    return one[0] < other[2] and other[0] < one[2] and one[1] < other[3] and other[1] < one[3]


def contains(outer: Box, inner: Box) -> bool:
    return outer[0] <= inner[0] and outer[1] <= inner[1] and inner[2] <= outer[2] and inner[3] <= outer[3]


def test_the_template_browser_shows_each_with_its_picture(shown: Shown) -> None:
    """Some frontends show copies under other names, so size tells them from the stand-in picture.

    What is below the dialog's edge they load later.
    """
    browsed = shown["templates"][FILES[0].stem]["browsed"]
    sizes = [(image["width"], image["height"]) for image in browsed["thumbnails"]]
    assert set(sizes) == {Image.open(path.with_suffix(".jpg")).size for path in [*FILES, *APPS]}
    assert len(sizes) >= len(FILES)


@every_runnable_one
def test_it_opens_from_the_template_browser(path: Path, shown: Shown) -> None:
    assert types(shown["templates"][path.stem]["browsed"]["opened"]) == types(read(path)["nodes"])


@every_runnable_one
def test_it_runs_and_plays_its_video(path: Path, shown: Shown) -> None:
    run = shown["templates"][path.stem]["run"]
    assert run["ended"] == ["execution_success", ""]
    assert not run["red"]
    (video,) = run["videos"]
    assert video["error"] is None
    assert video["duration"] == pytest.approx(SECONDS, abs=0.01)
    assert video["played"] == pytest.approx(video["duration"], abs=0.05)
    assert video["frames"] > 0 and video["width"] >= video["height"] > 0


def test_the_report_can_be_read_where_it_stands(shown: Shown) -> None:
    """All of its text and its picture, after a run, at the zoom at which the workflow opens."""
    (path,) = [path for path in RUNNABLE if path.name.startswith("2")]
    found = shown["templates"][path.stem]
    assert found["run"]["reports"]
    for report, view in zip(found["run"]["reports"], found["views"], strict=True):
        text, picture = report["text"], report["picture"]
        # It was opened in the smaller window, where it is the smallest.
        assert report["width"] == view["width"] and report["scale"] <= view["scale"]
        assert text["found"] and not text["cut"] and text["seen"], report
        assert "steps" in text["value"]
        assert picture["width"] == 720 and picture["seen"], report
        assert picture["share"] * LETTERS >= view["least"]


def test_it_asks_nobody_outside_and_breaks_nothing(shown: Shown) -> None:
    assert shown["outside"] == []
    assert shown["pageErrors"] == []
