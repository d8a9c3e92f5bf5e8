"""What somebody new meets first, as far as files tell it: templates, the nodes' own words, help pages."""

from __future__ import annotations

import ast
import json
import re
import wave
from pathlib import Path
from typing import Any

import pytest

from memo_avatar.files.published_models import FILES, REQUIRED
from tests.helpers.checkout import ROOT

JARGON = re.compile(r"\b(nets?|replay\w*|evaluations?|R2|antelopev2|latents?)\b", re.IGNORECASE)
PANEL_WORD = 22  # letters of a file's name that the help panel can't break, and has room for


def template(number: str) -> dict[str, Any]:
    (path,) = [path for path in (ROOT / "workflows").glob(f"{number} *.json") if ".app." not in path.name]
    return json.loads(path.read_text(encoding="utf-8"))


def values(workflow: dict[str, Any], kind: str) -> list[Any]:
    (node,) = [node for node in workflow["nodes"] if node["type"] == kind]
    return node["widgets_values"]


def notes(workflow: dict[str, Any]) -> str:
    return "\n".join(
        node["widgets_values"][0] for node in workflow["nodes"] if node["type"] == "MarkdownNote"
    )


def test_the_page_knows_the_demo_by_every_name_that_it_has_had() -> None:
    """And by no other: somebody's own `demo-faces` is not warned of."""
    tree = ast.parse((ROOT / "nodes" / "host" / "folders.py").read_text(encoding="utf-8"))
    known = {
        node.targets[0].id: ast.literal_eval(node.value)
        for node in tree.body
        if isinstance(node, ast.Assign)
        and isinstance(node.targets[0], ast.Name)
        and node.targets[0].id in ("DEMO", "OLD_DEMOS")
    }
    script = (ROOT / "web" / "teacache_memo.js").read_text(encoding="utf-8")
    (listed,) = re.findall(r"^const DEMOS = (\[.*\]);$", script, re.MULTILINE)
    assert json.loads(listed) == [known["DEMO"], *known["OLD_DEMOS"]]


def test_the_long_speech_lasts_half_a_minute() -> None:
    workflow = template("4")
    _, voice = values(workflow, "MEMO_DemoInputs")
    with wave.open(str(ROOT / "demo" / voice)) as sound:
        assert sound.getnframes() / sound.getframerate() > 30
    assert values(workflow, "MEMO_Voice")[2] == 30


def test_the_real_model_starts_with_the_users_own_picture_and_sound() -> None:
    workflow = template("5")
    links = {link[0]: link[1] for link in workflow["links"]}
    kinds = {node["id"]: node["type"] for node in workflow["nodes"]}
    fed = {
        (node["type"], socket["name"]): kinds[links[socket["link"]]]
        for node in workflow["nodes"]
        for socket in node.get("inputs", [])
        if socket.get("link") is not None
    }
    assert fed["MEMO_Portrait", "image"] == "LoadImage" and fed["MEMO_Voice", "audio"] == "LoadAudio"


def test_its_notes_say_what_to_download_and_how_large_that_is() -> None:
    """What `models download` fetches; config files are too small to be worth a size."""
    text = notes(template("5"))
    for file in (file for file in FILES if file.group in REQUIRED):
        assert re.sub(r"/resolve/\w+/", "/resolve/main/", file.url) in text
        if not file.path.endswith(".json"):
            gigabytes = (file.megabytes or 0) / 1000
            size = f"{gigabytes:.2f} GB" if gigabytes >= 1 else f"{file.megabytes:.0f} MB"
            assert size in text or f"{file.megabytes:.1f} MB" in text, file.path
    assert "python teacache_memo.py models download" in text and "11 GB" in text


def test_its_notes_say_which_card_and_how_long() -> None:
    text = notes(template("5"))
    assert "GiB" in text and "simulated" in text and "seconds" in text


@pytest.mark.parametrize("path", sorted(ROOT.glob("locales/en/*.json")), ids=lambda path: path.name)
def test_the_nodes_speak_the_words_of_those_who_use_them(path: Path) -> None:
    """Every text of the nodes is in the English locale, which the host suite holds to them."""
    found = [line.strip() for line in path.read_text(encoding="utf-8").splitlines() if JARGON.search(line)]
    assert not found


def test_a_help_page_has_no_word_that_its_panel_would_cut() -> None:
    pages = sorted((ROOT / "web" / "docs").rglob("*.md"))
    assert len(pages) == 48
    found = {
        f"{path.relative_to(ROOT)}: {word}"
        for path in pages
        for code in re.findall(r"`([^`]+)`", path.read_text(encoding="utf-8"))
        for word in code.split()
        if len(word) > PANEL_WORD
    }
    assert not found
