"""The workflows that users open, as prompts: what the frontend does on Run, for plain widgets."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from tests.helpers.comfy.pack import CHECKPOINT, ROOT
from tests.helpers.comfy.server import Prompt

FILES = sorted((ROOT / "workflows").glob("*.json"))
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
_UPLOADS = {"IMAGEUPLOAD", "AUDIOUPLOAD", "AUDIO_UI"}


def read(path: Path) -> dict[str, Any]:
    return json.loads(path.read_text(encoding="utf-8"))


def nodes_of(workflow: dict[str, Any]) -> list[dict[str, Any]]:
    """All nodes that run."""
    return [node for node in workflow["nodes"] if node["type"] not in NOTES]


def to_prompt(workflow: dict[str, Any], object_info: dict[str, Any]) -> Prompt:
    """The workflow as /prompt takes it; `object_info` is the server's."""
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
        if socket["link"] is not None:
            inputs[name] = links[socket["link"]]
    return inputs


def _options(spec: Any) -> dict[str, Any]:
    return spec[1] if spec is not None and len(spec) > 1 else {}
