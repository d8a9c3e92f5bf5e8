"""What a link may bring to a widget, or to a socket of ours: one line for what is not meant."""

from __future__ import annotations

from typing import Any

from world import World


def foreign_values(world: World) -> dict[str, str]:
    """What a link through another pack may bring to our own sockets."""
    import torch

    job, nodes = world.job, world.nodes
    sampler = vars(job)
    return {
        "memo": said(lambda: nodes.PortraitNode.execute(torch.rand(1, 8, 8, 3), "memo", 32, 32, "crop")),
        "voice": said(lambda: nodes.SamplerNode.execute(**{**sampler, "voice": job.portrait})),
        "portrait": said(lambda: nodes.SamplerNode.execute(**{**sampler, "portrait": {}})),
        "report": said(lambda: nodes.ReportNode.execute("report", False)),
    }


def wrong_values(world: World) -> dict[str, str]:
    """Widgets whose value no host has checked."""
    sampler, run = vars(world.job), world.nodes.SamplerNode.execute
    changes: dict[str, Any] = {
        "text for a number": {"steps": "20"},
        "half a step": {"steps": 2.5},
        "too many steps": {"steps": 30_000_000},
        "no step": {"steps": 0},
        "NaN": {"cfg": float("nan")},
        "infinite": {"cfg": float("inf")},
        "huge": {"cfg": 10**400},
        "a list": {"cfg": [3.5]},
        "negative seed": {"seed": -1},
        "unknown sampler": {"sampler_name": "magic"},
        "a number for a choice": {"scheduler": 3},
        "unknown rate": {"fps": "-1e9"},
    }
    found = {name: said(lambda c=change: run(**{**sampler, **c})) for name, change in changes.items()}
    save = world.nodes.SaveNode.execute
    for name, text in {"NUL": "a\0b", "long": "a" * 20_001, "no text": 7}.items():
        found[name] = said(lambda t=text: save(world.job.model, world.job.memo, t, "bf16"))
    found["path"] = said(lambda: world.nodes.DemoNode.execute("/etc/hostname", "speech.wav"))
    found["a dtype of torch"] = said(lambda: world.nodes.LoadMemo.execute("micro", "float64"))
    return found


def said(run: Any) -> Any:
    """What a call gives, or the text and the kind of its error."""
    try:
        return run()
    except Exception as error:
        return f"{type(error).__module__}.{type(error).__qualname__}: {error}"


def unchecked_nodes(world: World) -> dict[str, Any]:
    """Nodes whose execute is not wrapped."""
    nodes = world.nodes.NODES
    return {"names": [node.__name__ for node in nodes if not hasattr(node.execute, "__wrapped__")]}


CHECKS = [foreign_values, wrong_values, unchecked_nodes]
