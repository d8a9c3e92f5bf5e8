"""The first hour of somebody new: four actions to a video, and every mistake answered where one sees it.

In a sentence that says what to do, before anything is computed.
"""

from __future__ import annotations

import re
from typing import Any

import pytest

from tests.helpers.comfy.workflows import APPS

pytestmark = [pytest.mark.browser, pytest.mark.slow, pytest.mark.timeout(1800)]

Newcomer = dict[str, Any]
_PATH = re.compile(r"(^|[\s'\"(])(/|[A-Z]:\\)\w")

MISTAKES = {
    "wrongVae": "Connect Load VAE with sd-vae-ft-mse",
    "damagedFile": "Expected a safetensors file but got an empty file",
    "typo": "Use a name or number of: 0 angry",
    "cropPastedBack": "Choose fit face in MEMO Portrait",
    "missingWeights": "python teacache_memo.py models download (about 11 GB)",
}


def done(newcomer: Newcomer, step: str) -> dict[str, Any]:
    """What a step reported; it has to have come to its end."""
    found = newcomer[step]
    assert "failed" not in found, found
    return found


def test_four_actions_make_a_video(newcomer: Newcomer) -> None:
    """Templates, the pack, the first card, Run."""
    found = done(newcomer, "fourActions")
    assert found["ended"] == "execution_success" and found["playing"]
    assert not found["toasts"] or "completed" in found["toasts"][0]


@pytest.mark.parametrize("step", ["droppedBack", "toFileDroppedBack"])
def test_the_video_dropped_into_the_window_brings_back_its_graph(newcomer: Newcomer, step: str) -> None:
    """Save Video's, and MEMO Sampler to File's."""
    found = done(newcomer, step)
    assert found["name"] and found["before"]
    before, after = found["before"], found["after"]
    assert [node["type"] for node in after] == [node["type"] for node in before]
    for old, new in zip(before, after, strict=True):
        was = {name: old["widgets"].get(name) for name in new["widgets"]}  # a run adds its pictures and texts
        assert new["widgets"] == was


@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_mistake_is_answered_before_anything_is_computed(newcomer: Newcomer, mistake: str) -> None:
    found = done(newcomer, mistake)
    assert any(MISTAKES[mistake] in toast for toast in found["toasts"]), found
    assert found["steps"] == 0
    assert not [toast for toast in found["toasts"] if _PATH.search(toast)]


def test_a_sentence_about_a_node_is_shown_once_whatever_the_host_repeats(newcomer: Newcomer) -> None:
    """It says the same of each input that the node was asked about: here of the connected VAE, too."""
    toasts = done(newcomer, "damagedFile")["toasts"]
    assert sum(MISTAKES["damagedFile"] in toast for toast in toasts) == 1


def test_a_photo_through_the_demo_is_warned_of(newcomer: Newcomer) -> None:
    found = done(newcomer, "ownPhoto")
    assert "a photo will smear. Choose MEMO in Load MEMO." in found["toasts"][0]
    assert found["stepsBeforeToast"] == 0


def test_a_silent_sound_is_told_on_the_node(newcomer: Newcomer) -> None:
    found = done(newcomer, "silence")
    (text,) = [text for kind, text in found["texts"] if kind == "MEMO_Voice"]
    assert text.startswith("Check the recording: all of it is silence, and the mouth will hardly move.")
    assert found["stepsBeforeText"]["MEMO_Voice"] == 0  # in the order in which the server said it


def test_a_stop_is_told_and_the_next_run_goes_on(newcomer: Newcomer) -> None:
    found = done(newcomer, "stopAndGoOn")
    assert found["growing"]["playing"] == 1, "the unfinished video plays"
    (telling,) = [text for kind, text in found["growing"]["texts"] if kind == "MEMO_SamplerToFile"]
    assert re.fullmatch(r"Clip \d of 4(, about \d+ s left)?", telling)
    (told,) = [text for kind, text in found["stopped"]["texts"] if kind == "MEMO_SamplerToFile"]
    assert re.match(r"Stopped after \d of 4 clips\. Run continues; so far: memo_unfinished/", told)
    assert found["went"]["ended"] == "execution_success"
    (went,) = [text for kind, text in found["went"]["texts"] if kind == "MEMO_SamplerToFile"]
    assert re.match(r"60 frames: \d+ from an earlier run, \d+ made in ", went)


def test_the_help_panel_shows_all_of_every_page(newcomer: Newcomer) -> None:
    """At the width at which it opens."""
    found = done(newcomer, "help")
    assert len(found) == 12
    assert {name for name, page in found.items() if page["wanted"] > page["width"]} == set()
    assert all(page["width"] > 150 for page in found.values()), found


def test_what_does_not_count_is_folded_away(newcomer: Newcomer) -> None:
    found = done(newcomer, "fold")
    assert {
        mode: {"target_speedup", "threshold", "margin"} & set(names) for mode, names in found.items()
    } == {
        "target speed-up": {"target_speedup"},
        "threshold": {"threshold"},
        "calibrate": set(),
    }


def test_one_node_makes_a_talking_portrait(newcomer: Newcomer) -> None:
    """Found by its name; a picture and a sound; Run."""
    found = done(newcomer, "oneNode")
    assert found["ended"] == "execution_success"
    assert [name for name in found["videos"] if name.startswith("talking_portrait_")]
    (one,) = [node for node in found["nodes"] if node["type"] not in ("LoadImage", "LoadAudio")]
    assert one["title"] == "Talking portrait (MEMO)"
    shown = [video for video in found["shown"] if "talking_portrait_" in video["source"]]
    assert shown and all(video["error"] is None and video["duration"] > 0.5 for video in shown)
    assert any(video["seen"] for video in shown), "the video plays on the one node"


def test_an_app_is_found_under_its_filter_and_runs(newcomer: Newcomer) -> None:
    if "app" not in newcomer:
        pytest.skip("this frontend has no apps")
    found = done(newcomer, "app")
    assert found["cards"] == [1] * len(APPS)
    assert found["asks"] == ["portrait", "voice", "emotion"]
    assert found["ended"] == "execution_success" and found["playing"]
