"""Every workflow of the pack in real servers: complete, well linked, a template; the demo ones run."""

from __future__ import annotations

import urllib.parse
from pathlib import Path
from typing import Any

import pytest

from tests.helpers.comfy.pack import PACK_NAME
from tests.helpers.comfy.server import ComfyServer
from tests.helpers.comfy.workflows import FILES, RUNNABLE, SHORT, nodes_of, read, to_prompt

pytestmark = [pytest.mark.host, pytest.mark.slow, pytest.mark.timeout(900)]


@pytest.fixture(scope="module")
def object_info(any_server: ComfyServer) -> dict[str, Any]:
    return any_server.get("/object_info")


def test_there_are_five() -> None:
    assert [path.name[0] for path in FILES] == ["1", "2", "3", "4", "5"]


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_the_nodes_and_links_are_the_servers(path: Path, object_info: dict[str, Any]) -> None:
    workflow = read(path)
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
        assert nodes[target]["inputs"][socket]["type"] == kind


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_the_server_offers_it_as_a_template(path: Path, any_server: ComfyServer) -> None:
    offered = any_server.get("/workflow_templates")[PACK_NAME]
    assert path.stem in offered
    served = any_server.get(f"/api/workflow_templates/{PACK_NAME}/{urllib.parse.quote(path.name)}")
    assert served == read(path)


@pytest.mark.parametrize("path", RUNNABLE, ids=lambda path: path.stem)
def test_it_runs(path: Path, any_server: ComfyServer, object_info: dict[str, Any]) -> None:
    server = any_server
    prompt = to_prompt(read(path), object_info)
    for node in prompt.values():
        node["inputs"] |= SHORT.get(node["class_type"], {})
    outputs = server.run(prompt)
    shown = [saved for output in outputs.values() for saved in output.get("images", [])]
    assert any(saved["filename"].endswith(".mp4") for saved in shown)
    assert all(server.file(saved).stat().st_size > 0 for saved in shown)


@pytest.mark.parametrize("number", ["1", "5"])
def test_as_an_app_it_asks_for_picture_voice_and_emotion_and_shows_the_video(number: str) -> None:
    (workflow,) = [read(path) for path in FILES if path.name.startswith(number)]
    nodes = {str(node["id"]): node for node in workflow["nodes"]}
    app = workflow["extra"]["linearData"]
    asked = [
        (nodes[node]["type"], name, any(socket["name"] == name for socket in nodes[node]["inputs"]))
        for node, name in app["inputs"]
    ]
    assert all(is_there for *_, is_there in asked), asked
    assert [name for _, name, _ in asked][-1] == "emotion" and len(asked) == 3
    assert {nodes[node]["type"] for node in app["outputs"]} <= {"SaveVideo", "MEMO_SamplerToFile"}
