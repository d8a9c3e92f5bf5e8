"""Checks inside ComfyUI: what the queued graph tells of a run, and where it tells nothing."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

from checks_cache import error_of, replaced
from checks_keys import Graph
from world import World

REPORT = ["sampler", 3]


def node(class_type: str, **inputs: Any) -> dict[str, Any]:
    return {"class_type": class_type, "inputs": inputs}


LOAD = node("MEMO_Load", checkpoint="micro")


def kind(*gives: str, **takes: str) -> SimpleNamespace:
    """A node of another pack, as the host knows it by its class."""
    given = {name: (what,) for name, what in takes.items()}
    return SimpleNamespace(RETURN_TYPES=gives, INPUT_TYPES=lambda: {"required": given})


def refused(world: World, before: dict[str, Any], steps: Any = 4, other: Any = None) -> str:
    """What TeaCache Calibrate says before the run, whose model comes from the node ``before``."""
    import nodes as host_nodes

    me = node("MEMO_TeaCacheCalibrate", report=REPORT, name="never")
    sampler = node("MEMO_Sampler", model=["before", 0], steps=steps)
    graph = Graph(me=me, sampler=sampler, before=before, load=LOAD)
    asking = type("Asking", (world.nodes.CalibrateNode,), {})
    asking.hidden = SimpleNamespace(unique_id="me", dynprompt=graph)
    with replaced(host_nodes, "NODE_CLASS_MAPPINGS", {**host_nodes.NODE_CLASS_MAPPINGS, "Other": other}):
        return error_of(lambda: asking.check_lazy_status(name="never"))


def runs_that_teach(world: World) -> dict[str, str]:
    """What is known of a run by the nodes that its model came through."""
    cache = node("MEMO_TeaCache", model=["load", 0], mode="calibrate")
    lora = node("LoraLoaderModelOnly", model=["load", 0], lora_name="x", strength_model=1.0)
    given = node("Other", model=["load", 0])
    two = node("Other", model=["load", 0], second=["load", 0])
    return {
        "no cache": refused(world, LOAD),
        "behind a LoRA": refused(world, lora),
        "behind a pack's node": refused(
            world, given, other=kind("MODEL", "CLIP", model="MODEL", clip="CLIP")
        ),
        "calibrate": refused(world, cache),
        "calibrate, one step": refused(world, cache, steps=1),
        "calibrate, linked steps": refused(world, cache, steps=["load", 0]),
        "a model by its name": refused(world, given, other=kind("MODEL", model="STRING")),
        "one of two models": refused(world, two, other=kind("MODEL", model="MODEL", second="MODEL")),
        "a switch": refused(world, given, other=kind("*", model="*")),
        "a switch, one step": refused(world, given, steps=1, other=kind("*", model="*")),
    }


def one_step_calibrated(world: World) -> dict[str, Any]:
    """Where the graph did not tell: the report and TeaCache Calibrate give the same reason."""
    nodes = world.nodes
    model = nodes.TeaCacheNode.execute(world.job.model, "calibrate", 2.0, 0.0).args[0]
    report = nodes.SamplerNode.execute(**{**vars(world.job), "model": model, "steps": 1}).args[3]
    return {
        "report": report.sentences(),
        "calibrate": error_of(lambda: nodes.CalibrateNode.execute(report, "never")),
    }


CHECKS = (runs_that_teach, one_step_calibrated)
