"""Every workflow of the pack in real servers: complete, well linked, a template; the demo ones run."""

from __future__ import annotations

import json
import urllib.parse
from pathlib import Path
from typing import Any

import pytest

from tests.helpers.comfy.pack import PACK_NAME
from tests.helpers.comfy.server import ComfyServer, Prompt
from tests.helpers.comfy.workflows import (
    APPS,
    BLUEPRINTS,
    FILES,
    OF_0_1,
    RUNNABLE,
    SHORT,
    flat,
    nodes_of,
    read,
    to_prompt,
)

pytestmark = [pytest.mark.host, pytest.mark.slow, pytest.mark.timeout(900)]

WIDGETS = {"COMBO", "INT", "FLOAT", "STRING", "BOOLEAN"}


@pytest.fixture(scope="module")
def object_info(any_server: ComfyServer) -> dict[str, Any]:
    return any_server.get("/object_info")


def test_there_are_six() -> None:
    assert [path.name[0] for path in FILES] == ["1", "2", "3", "4", "5", "6"]


@pytest.mark.parametrize("path", [*FILES, *BLUEPRINTS], ids=lambda path: path.stem)
def test_the_nodes_and_links_are_the_servers(path: Path, object_info: dict[str, Any]) -> None:
    workflow = flat(read(path))
    nodes = {node["id"]: node for node in workflow["nodes"]}
    for node in nodes_of(workflow):
        info = object_info[node["type"]]
        outputs = [output["type"] for output in node["outputs"]]
        assert outputs == info["output"][: len(outputs)], node[
            "type"
        ]  # newer hosts add outputs to core's nodes
        known = {name for part in info["input"].values() for name in part}
        names = {socket["name"] for socket in node["inputs"]} - {"upload", "audioUI"}
        assert names <= known and set(info["input"].get("required", {})) <= names, node["type"]
    for _, source, slot, target, socket, kind in workflow["links"]:
        assert nodes[source]["outputs"][slot]["type"] == kind
        assert nodes[target]["inputs"][socket]["type"] in (kind, "*")


@pytest.mark.parametrize("path", OF_0_1, ids=lambda path: path.stem)
def test_a_workflow_of_0_1_keeps_its_values(path: Path, object_info: dict[str, Any]) -> None:
    """The page gives stored values to a node's widgets by position, so new inputs come after the old ones."""
    for node in nodes_of(read(path)):
        if node["type"].startswith("MEMO_"):
            stored = [socket["name"] for socket in node["inputs"] if "widget" in socket]
            assert widgets_of(object_info[node["type"]])[: len(stored)] == stored, node["type"]


def widgets_of(info: dict[str, Any]) -> list[str]:
    """The inputs that one types or chooses, in their order."""
    parts = (info["input"].get(kind, {}) for kind in ("required", "optional"))
    return [name for part in parts for name, spec in part.items() if spec[0] in WIDGETS]


@pytest.mark.parametrize("path", [*FILES, *APPS], ids=lambda path: path.stem)
def test_the_server_offers_it_as_a_template(path: Path, any_server: ComfyServer) -> None:
    offered = any_server.get("/workflow_templates")[PACK_NAME]
    assert path.stem in offered
    served = any_server.get(f"/api/workflow_templates/{PACK_NAME}/{urllib.parse.quote(path.name)}")
    assert served == read(path)


@pytest.mark.parametrize("path", [*RUNNABLE, *OF_0_1[:4]], ids=lambda path: f"{path.parent.name}/{path.stem}")
def test_it_runs(path: Path, any_server: ComfyServer, object_info: dict[str, Any]) -> None:
    server = any_server
    prompt = to_prompt(read(path), object_info)
    shortened(prompt)
    outputs = server.run(prompt)
    shown = [saved for output in outputs.values() for saved in output.get("images", [])]
    assert any(saved["filename"].endswith(".mp4") for saved in shown)
    assert all(server.file(saved).stat().st_size > 0 for saved in shown)


def shortened(prompt: Prompt) -> None:
    """A short voice, few steps."""
    for node in prompt.values():
        node["inputs"] |= SHORT.get(node["class_type"], {})


def test_the_page_offers_one_node_that_makes_a_talking_portrait(any_server: ComfyServer) -> None:
    """A blueprint: picture and sound in, video out, and on it what one changes."""
    (blueprint,) = BLUEPRINTS
    offered = any_server.get("/global_subgraphs")
    (found,) = [key for key, entry in offered.items() if entry["name"] == blueprint.stem]
    assert offered[found]["info"]["node_pack"] == f"custom_nodes.{PACK_NAME}"
    assert json.loads(any_server.get(f"/global_subgraphs/{found}")["data"]) == read(blueprint)
    (node,) = read(blueprint)["nodes"]
    assert [(socket["name"], socket["type"]) for socket in node["outputs"]] == [("video", "VIDEO")]
    sockets = [socket["type"] for socket in node["inputs"] if "widget" not in socket]
    assert sockets == ["IMAGE", "AUDIO"]


def test_the_one_node_runs(any_server: ComfyServer, object_info: dict[str, Any]) -> None:
    prompt = to_prompt(read(BLUEPRINTS[0]), object_info)
    shortened(prompt)
    prompt["picture"] = {"class_type": "LoadImage", "inputs": {"image": "portrait.png"}}
    prompt["sound"] = {"class_type": "LoadAudio", "inputs": {"audio": "voice.wav"}}
    for node in prompt.values():
        if node["class_type"] == "MEMO_Portrait":
            node["inputs"]["image"] = ["picture", 0]
        if node["class_type"] == "MEMO_Voice":
            node["inputs"]["audio"] = ["sound", 0]
    (saved,) = any_server.run(prompt)["1:5"]["images"]
    assert any_server.file(saved).name.startswith("talking_portrait_")


@pytest.mark.parametrize("path", APPS, ids=lambda path: path.stem)
def test_an_app_asks_for_picture_voice_and_emotion_and_shows_the_video(path: Path) -> None:
    """It is the template of its name, opened without the graph."""
    workflow = read(path)
    nodes = {str(node["id"]): node for node in workflow["nodes"]}
    app = workflow["extra"]["linearData"]
    asked = [
        (name, any(socket["name"] == name for socket in nodes[node]["inputs"]))
        for node, name in app["inputs"]
    ]
    assert all(is_there for _, is_there in asked), asked
    assert [name for name, _ in asked][-1] == "emotion" and len(asked) == 3
    assert {nodes[node]["type"] for node in app["outputs"]} <= {"SaveVideo", "MEMO_SamplerToFile"}
    assert workflow["extra"].pop("linearMode") is True
    assert workflow == read(path.with_name(path.name.replace(".app.json", ".json")))


def test_there_are_apps_of_the_first_and_the_last() -> None:
    assert [path.name[0] for path in APPS] == ["1", "5"]
