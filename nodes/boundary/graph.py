"""What the queued graph itself tells before a run: settings that were typed on the nodes behind a link."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from typing import Any

from comfy_api.latest import io
from comfy_execution.graph_utils import is_link

MODEL = "MODEL"
SAMPLERS = ("MEMO_Sampler", "MEMO_SamplerToFile")


def links_of(node: type[io.ComfyNode]) -> dict[str, Any]:
    """The node's inputs that other nodes give, by name; of a node with hidden `unique_id` and `dynprompt`."""
    hidden = node.hidden
    if hidden is None or hidden.dynprompt is None:
        return {}
    inputs = hidden.dynprompt.get_node(hidden.unique_id)["inputs"]
    return {name: value for name, value in inputs.items() if is_link(value)}


def sampler_behind(link: Any, graph: Any) -> Mapping[str, Any]:
    """The inputs of the sampler that made frames or a report, the frames straight or pasted back; none where
    another pack's node lies between, which may do anything.
    """
    while is_link(link):
        found = graph.get_node(link[0])
        if found["class_type"] in SAMPLERS:
            return found["inputs"]
        link = found["inputs"].get("images") if found["class_type"] == "MEMO_PasteBack" else None
    return {}


def inputs_behind(link: Any, graph: Any, class_type: str) -> Mapping[str, Any]:
    """The inputs of the node that a link comes from straight; none where it is not of this class."""
    found = graph.get_node(link[0]) if is_link(link) else {}
    return found["inputs"] if found.get("class_type") == class_type else {}


def typed(inputs: Mapping[str, Any], name: str, default: Any = None) -> Any:
    """A setting as it stands on a node; None for one that a link will bring."""
    value = inputs.get(name, default)
    return None if is_link(value) else value


def model_before(link: Any, graph: Any) -> Any:
    """The link of the one MODEL that a node of any pack takes and passes on; None for any other node."""
    found = graph.get_node(link[0])
    known = sys.modules["nodes"].NODE_CLASS_MAPPINGS  # the host's; `import nodes` could mean ours
    node = known[found["class_type"]]
    given = node.INPUT_TYPES()
    specs = {**given.get("required", {}), **given.get("optional", {})}
    names = [name for name, spec in specs.items() if spec[0] == MODEL]
    passes_on = len(names) == 1 and node.RETURN_TYPES[link[1]] == MODEL
    return found["inputs"].get(names[0]) if passes_on else None
