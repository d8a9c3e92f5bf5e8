"""Values that come through a link. The host checks what is typed alone, so every node checks what it gets: a
wrong value is refused in two sentences, what to do and why, before anything is read, made or written."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.helpers.comfy.prompts import SAMPLER, linked, node, portrait_prompt, with_cache, with_images
from tests.helpers.comfy.server import ComfyServer, Prompt, PromptFailedError
from tests.helpers.inside.world import value

pytestmark = [pytest.mark.host, pytest.mark.slow, pytest.mark.timeout(900)]

ROOT = Path(__file__).resolve().parents[2]
CHOOSE, NUMBER, FINITE = "from its list", "to a number from", "finite number"
LOAD, PORTRAIT, VOICE = "1", "3", "5"
CACHE = "cache"
WRONG: list[tuple[str, str, Any, str]] = [
    (LOAD, "checkpoint", str(ROOT / "demo" / "checkpoint"), CHOOSE),
    (LOAD, "checkpoint", "../memo/micro", CHOOSE),
    (LOAD, "weight_dtype", "float64", CHOOSE),
    (PORTRAIT, "width", 12_000, NUMBER),
    (PORTRAIT, "height", -8, NUMBER),
    (PORTRAIT, "fit", "stretch", CHOOSE),
    (PORTRAIT, "face", "maybe", CHOOSE),
    (PORTRAIT, "face_index", 10**9, NUMBER),
    (PORTRAIT, "margin", 1e9, NUMBER),
    (PORTRAIT, "face_box", "1,1,9,9" * 5_000, "Shorten the text"),
    (PORTRAIT, "face_box", "0,0,\0", "Type the text again"),
    (VOICE, "emotion", "bored", CHOOSE),
    (VOICE, "start", -1.0, NUMBER),
    (VOICE, "duration", 1e9, NUMBER),
    (VOICE, "emotions", "0 happy, " * 3_000, "Shorten the text"),
    (SAMPLER, "seed", -1, NUMBER),
    (SAMPLER, "steps", 30_000_000, NUMBER),
    (SAMPLER, "cfg", 1e6, NUMBER),
    (SAMPLER, "sampler_name", "../euler", CHOOSE),
    (SAMPLER, "scheduler", "", CHOOSE),
    (SAMPLER, "fps", "-1000000000", CHOOSE),
    (CACHE, "mode", "fastest", CHOOSE),
    (CACHE, "calibration", "/etc/hostname", CHOOSE),
    (CACHE, "target_speedup", 1e9, NUMBER),
    (CACHE, "max_consecutive_skips", -1, NUMBER),
]


def refusal(server: ComfyServer, prompt: Prompt) -> dict[str, Any]:
    """How the run ended; the host runs it, because it cannot know."""
    with pytest.raises(PromptFailedError) as failed:
        server.run(prompt)
    return failed.value.details


IDS = [f"{name}-{index}" for index, (_, name, *_) in enumerate(WRONG)]


@pytest.mark.parametrize(("target", "name", "given", "advice"), WRONG, ids=IDS)
def test_a_linked_value_is_bounded(
    any_server: ComfyServer, target: str, name: str, given: Any, advice: str
) -> None:
    details = refusal(
        any_server, linked(with_images(with_cache(portrait_prompt(steps=1))), target, name, given)
    )
    assert details["node_id"] == target
    first, _, reason = details["exception_message"].strip().partition(". ")
    assert advice in first, details["exception_message"]
    assert "xpected" in reason and len(details["exception_message"]) < 300
    assert details["exception_type"] == "ValueError"


def test_linked_values_that_fit_are_taken(server: ComfyServer) -> None:
    prompt = with_images(portrait_prompt(steps=1, seconds=0.2))
    for target, name, given in [
        (SAMPLER, "steps", 1),
        (SAMPLER, "sampler_name", "heun"),
        (VOICE, "start", 0.1),
    ]:
        assert server.run(linked(prompt, target, name, given))["images"]["images"]


def demo_prompt(**inputs: str) -> Prompt:
    """The demo's picture and sound, saved."""
    return {
        "demo": node("MEMO_DemoInputs", **{"portrait": "portrait.png", "voice": "speech.wav", **inputs}),
        "picture": node("SaveImage", images=["demo", 0], filename_prefix="demo"),
        "sound": node("SaveAudio", audio=["demo", 1], filename_prefix="demo"),
    }


@pytest.mark.parametrize("name", ["portrait", "voice"])
def test_a_linked_text_reads_no_file_of_the_machine(
    any_server: ComfyServer, tmp_path: Path, name: str
) -> None:
    """And the answer does not tell which files there are."""
    files = {"portrait": "demo/portrait2.png", "voice": "demo/held_out.wav"}
    there, text = ROOT / files[name], tmp_path / "there.txt"
    text.write_text("not media")
    answers = {
        refusal(any_server, linked(demo_prompt(), "demo", name, str(path)))["exception_message"].replace(
            path.name, "NAME"
        )
        for path in (there, text, tmp_path / "not-there.png", Path("/dev/zero"))
    }
    assert answers == {f"Choose {name} from its list. Expected a listed value but got 'NAME' ({name}).\n"}
    assert not list((any_server.user / "output").glob("demo*"))


# What other packs may put on a socket


def is_advice(said: Any) -> bool:
    """One line of a plain error: what to do, then what was expected."""
    kind, _, text = str(said).partition(": ")
    return kind == "builtins.ValueError" and "\n" not in text and ". Expected " in text and len(text) < 250


def test_other_nodes_values_on_our_sockets_are_named_by_their_nodes(inside: dict[str, Any]) -> None:
    found = value(inside, "foreign_values")
    assert len(found) == 34
    assert found["voice"].endswith(
        "Connect MEMO Voice. Expected what MEMO Voice gives but got what MEMO Portrait gives (voice)."
    )
    assert all(is_advice(text) for text in found.values()), found


def test_what_another_socket_carries_is_called_as_its_user_calls_it(inside: dict[str, Any]) -> None:
    found = value(inside, "values_of_other_sockets")
    assert len(found) == 52, "each of eight kinds on each socket, but for its own"
    for name, text in found.items():
        socket, _, what = name.partition(": ")
        assert is_advice(text), text
        assert f"but got {what} (" in text or socket == "face_embedding", text


def test_every_widgets_value_is_checked_by_the_node_itself(inside: dict[str, Any]) -> None:
    found = value(inside, "wrong_values")
    assert "from 0 to 18446744073709551615. Expected 0 to 18446744073709551615 but" in found["negative seed"]
    assert len(found) == 17 and {name for name, text in found.items() if not is_advice(text)} == set(), found


def test_no_node_does_without_the_check(inside: dict[str, Any]) -> None:
    assert value(inside, "unchecked_nodes") == {"names": []}


def test_what_a_client_sends_as_a_workflow_stops_no_file(inside: dict[str, Any]) -> None:
    assert set(value(inside, "odd_workflows").values()) == {"%Node.width%"}
