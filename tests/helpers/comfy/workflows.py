"""The workflows that users open, as prompts: what the frontend does on Run, for plain widgets."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

from tests.helpers.comfy.pack import CHECKPOINT, ROOT
from tests.helpers.comfy.server import Prompt

APPS = sorted((ROOT / "workflows").glob("*.app.json"))
"""Templates that the page opens without a graph: what one sets, Run, the video."""
FILES = [path for path in sorted((ROOT / "workflows").glob("*.json")) if path not in APPS]
BLUEPRINTS = sorted((ROOT / "subgraphs").glob("*.json"))
OF_0_1 = sorted((ROOT / "tests" / "host" / "workflows_of_0_1").glob("*.json"))
"""The templates as they were before inputs were added and folded: workflows that users have stored."""
RUNNABLE = [path for path in FILES if not path.name.startswith("5")]  # 5 needs MEMO's own weights
SECONDS = 0.6
_HAS_DEMO = (ROOT / "demo" / "checkpoint" / "diffusion_net").is_dir()
SHORT: dict[str, dict[str, Any]] = {
    "MEMO_Voice": {"duration": SECONDS},
    "MEMO_Sampler": {"steps": 2},
    "MEMO_SamplerToFile": {"steps": 2},
    "MEMO_Load": {} if _HAS_DEMO else {"checkpoint": CHECKPOINT},
}
"""Few steps of a short voice, and the tests' checkpoint where the pack has no demo model."""
NOTES = {"Note", "MarkdownNote"}
INPUTS, OUTPUTS = -10, -20  # of a subgraph, in the links inside it
_UPLOADS = {"IMAGEUPLOAD", "AUDIOUPLOAD", "AUDIO_UI"}


def read(path: Path) -> dict[str, Any]:
    return json.loads(path.read_text(encoding="utf-8"))


def nodes_of(workflow: dict[str, Any]) -> list[dict[str, Any]]:
    """All nodes that run."""
    return [node for node in workflow["nodes"] if node["type"] not in NOTES]


def flat(workflow: dict[str, Any]) -> dict[str, Any]:
    """The workflow with its subgraphs' nodes in their place, `7:12` for node 12 of node 7, as the frontend
    queues it. An input of a subgraph that is not linked leaves the values inside as they are.
    """
    definitions = {each["id"]: each for each in workflow.get("definitions", {}).get("subgraphs", [])}
    nodes = [node for node in workflow["nodes"] if node["type"] not in definitions]
    links = {link[0]: list(link) for link in workflow["links"]}
    for outer in (node for node in workflow["nodes"] if node["type"] in definitions):
        _unpack(outer, definitions[outer["type"]], nodes, links)
    there = {node["id"] for node in nodes}
    kept = [link for link in links.values() if link[1] in there and link[3] in there]
    return {**workflow, "nodes": nodes, "links": kept}


def _unpack(
    outer: dict[str, Any], inside: dict[str, Any], nodes: list[dict[str, Any]], links: dict[Any, list[Any]]
) -> None:
    def outside(inner: int) -> str:
        return f"{outer['id']}:{inner}"

    for node in copy.deepcopy(inside["nodes"]):
        node["id"] = outside(node["id"])
        for socket in node["inputs"]:
            if socket.get("link") is not None:
                socket["link"] = outside(socket["link"])
        nodes.append(node)
    for link in inside["links"]:
        source = [outside(link["origin_id"]), link["origin_slot"]]
        if link["origin_id"] == INPUTS:
            entering = outer["inputs"][link["origin_slot"]]["link"]
            source = [None, None] if entering is None else links[entering][1:3]
        if link["target_id"] == OUTPUTS:
            leaving = [each for each in links.values() if each[1:3] == [outer["id"], link["target_slot"]]]
            for each in leaving:
                each[1:3] = source
        else:
            target = [outside(link["target_id"]), link["target_slot"]]
            links[outside(link["id"])] = [outside(link["id"]), *source, *target, link["type"]]


def to_prompt(workflow: dict[str, Any], object_info: dict[str, Any]) -> Prompt:
    """The workflow as /prompt takes it; `object_info` is the server's."""
    workflow = flat(workflow)
    links = {link[0]: [str(link[1]), link[2]] for link in workflow["links"]}
    return {
        str(node["id"]): {
            "class_type": node["type"],
            "inputs": _inputs(node, object_info[node["type"]], links),
        }
        for node in nodes_of(workflow)
    }


def _inputs(node: dict[str, Any], info: dict[str, Any], links: dict[int, Any]) -> dict[str, Any]:
    specs = {name: spec for part in info["input"].values() for name, spec in part.items()}
    values, inputs = iter(node["widgets_values"]), {}
    for socket in node["inputs"]:
        name = socket["name"]
        if "widget" in socket:
            value = next(values)
            if _options(specs.get(name)).get("control_after_generate"):
                next(values)
            if socket["type"] not in _UPLOADS:
                inputs[name] = value
        if socket["link"] in links:
            inputs[name] = links[socket["link"]]
    return inputs


def _options(spec: Any) -> dict[str, Any]:
    return spec[1] if spec is not None and len(spec) > 1 else {}
