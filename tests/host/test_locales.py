"""Every node explains itself: tooltips, a locale and a help page in English, Chinese, Japanese and Korean.

The English locale is the nodes' own text; `make locales` writes it after a change.
"""

from __future__ import annotations

import json
import os
import re
import urllib.parse
import urllib.request
from pathlib import Path
from typing import Any

import pytest

from tests.helpers.comfy.pack import PACK_NAME, ROOT
from tests.helpers.comfy.server import ComfyServer

pytestmark = [pytest.mark.host, pytest.mark.timeout(600)]

PREFIX = "MEMO_"
LETTERS = {
    "zh": re.compile(r"[\u4e00-\u9fff]"),
    "ja": re.compile(r"[\u3040-\u30ff\u4e00-\u9fff]"),
    "ko": re.compile(r"[\uac00-\ud7a3]"),
}
LANGUAGES = ["en", *LETTERS]
LOCALES = {language: ROOT / "locales" / language / "nodeDefs.json" for language in LANGUAGES}
ENGLISH = LOCALES["en"]
DOCS = ROOT / "web" / "docs"
WRITE = "WRITE_LOCALES"
SAME_EVERYWHERE = {"memo", "vae", "cfg", "MODEL", "MEMO", "VAE"}
_NUMBER = re.compile(r"\d+\.\d+|\d\d+")
_MARKUP = re.compile(r"[{}|@]")  # means something to the frontend's translator

Locale = dict[str, dict[str, Any]]


@pytest.fixture(scope="module")
def english(server: ComfyServer) -> Locale:
    """What the server says about our nodes, in the form of a locale."""
    nodes = {name: info for name, info in server.get("/object_info").items() if name.startswith(PREFIX)}
    found = {name: describe(info) for name, info in nodes.items()}
    if os.environ.get(WRITE):
        ENGLISH.parent.mkdir(parents=True, exist_ok=True)
        ENGLISH.write_text(json.dumps(found, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    return found


def describe(info: dict[str, Any]) -> dict[str, Any]:
    """A node's texts as nodeDefs.json has them."""
    inputs = {
        name: spec for kind in ("required", "optional") for name, spec in info["input"].get(kind, {}).items()
    }
    outputs = enumerate(zip(info["output_name"], info.get("output_tooltips") or [], strict=True))
    return {
        "display_name": info["display_name"],
        "description": info["description"],
        "inputs": {name: _texts(name, spec[1].get("tooltip")) for name, spec in inputs.items()},
        "outputs": {str(index): _texts(name, tooltip) for index, (name, tooltip) in outputs},
    }


def _texts(name: str, tooltip: str | None) -> dict[str, str]:
    return {"name": name, "tooltip": tooltip} if tooltip else {"name": name}


def read(path: Path) -> Locale:
    return json.loads(path.read_text(encoding="utf-8"))


def texts(value: Any, place: str = "") -> dict[str, str]:
    """Place -> text of everything in a locale."""
    if isinstance(value, str):
        return {place: value}
    return {
        key: text for name, inner in value.items() for key, text in texts(inner, f"{place}/{name}").items()
    }


def test_every_input_has_a_tooltip(english: Locale) -> None:
    assert not [
        f"{node}.{name}"
        for node, info in english.items()
        for name, input_texts in info["inputs"].items()
        if len(input_texts.get("tooltip", "")) < 10
    ]


def test_every_node_is_found_by_other_words(server: ComfyServer, english: Locale) -> None:
    info = server.get("/object_info")
    assert not [
        name for name in english if not info[name]["description"] or not info[name].get("search_aliases")
    ]


@pytest.mark.parametrize("words", ["lip sync", "avatar", "audio to video", "talking head", "memo"])
def test_what_one_types_finds_where_it_begins(server: ComfyServer, words: str) -> None:
    """The node that loads, at least; some of them the samplers, too."""
    info = server.get("/object_info")
    assert words in info["MEMO_Load"]["search_aliases"]


def test_the_english_locale_is_what_the_nodes_say(english: Locale) -> None:
    assert read(ENGLISH) == english, "run: make locales"


@pytest.mark.parametrize("language", LETTERS)
def test_another_languages_locale_has_every_text(language: str, english: Locale) -> None:
    ours, theirs = texts(read(LOCALES[language])), texts(english)
    assert sorted(theirs.keys() - ours.keys()) == [], "missing"
    assert sorted(ours.keys() - theirs.keys()) == [], "about nothing"
    letters = LETTERS[language]
    assert not [
        place for place, text in ours.items() if not letters.search(text) and text not in SAME_EVERYWHERE
    ]


@pytest.mark.parametrize("language", LETTERS)
def test_another_languages_texts_name_the_same_numbers(language: str, english: Locale) -> None:
    """What was changed in English and forgotten elsewhere often shows in a number."""
    ours, theirs = texts(read(LOCALES[language])), texts(english)
    assert not [place for place, text in ours.items() if missing_numbers(theirs[place], text)]


def missing_numbers(english: str, text: str) -> set[str]:
    """Numbers with a decimal point, or of several digits."""
    return set(_NUMBER.findall(english)) - set(_NUMBER.findall(text))


@pytest.mark.parametrize("language", LANGUAGES)
def test_no_text_means_something_to_the_translator(language: str) -> None:
    found = texts(read(LOCALES[language]))
    assert not {place: text for place, text in found.items() if _MARKUP.search(text)}


def test_the_server_hands_out_all_locales(server: ComfyServer, english: Locale) -> None:
    translations = server.get("/i18n")
    for language, path in LOCALES.items():
        ours = {name: texts for name, texts in translations[language]["nodeDefs"].items() if name in english}
        assert ours == read(path)


@pytest.mark.parametrize("language", LANGUAGES)
def test_every_node_has_a_help_page(language: str, english: Locale, server: ComfyServer) -> None:
    for node, info in english.items():
        name = f"{node}.md" if language == "en" else f"{node}/{language}.md"
        page = (DOCS / name).read_text(encoding="utf-8")
        served = urllib.request.urlopen(
            f"{server.url}/extensions/{PACK_NAME}/docs/{urllib.parse.quote(name)}"
        )
        assert served.read().decode() == page
        wanted = [*info["inputs"], *(output["name"] for output in info["outputs"].values())]
        assert [word for word in wanted if f"- **`{word}`**" not in page] == [], name
        assert "|---" not in page, f"{name}: a table is wider than the panel of 282 px"


def test_every_help_page_is_about_a_node(english: Locale) -> None:
    assert {
        path.relative_to(DOCS).parts[0].removesuffix(".md") for path in DOCS.rglob("*.md")
    } == english.keys()
