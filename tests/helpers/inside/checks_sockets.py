"""What a link may bring to a widget, or to a socket of ours: one line for what is not meant."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

from world import World


def foreign_values(world: World) -> dict[str, str]:
    """What a link through another pack may bring to our own sockets."""
    import torch

    job, nodes = world.job, world.nodes
    sampler = vars(job)
    picture = torch.rand(1, 64, 64, 3)
    cut = nodes.PortraitNode.execute(picture, job.memo, 32, 32, "face", face="none").args[0]
    report = world.module("nodes.host.video_inputs").make_report(None, 1.0, 2, ())
    frames = {
        "text": "frames",
        "number": 3,
        "one picture": torch.rand(32, 32, 3),
        "two channels": torch.rand(2, 32, 32, 2),
        "no pixels": torch.zeros(2, 0, 32, 3),
        "sparse": torch.rand(2, 32, 32, 3).to_sparse(),
        "complex": torch.zeros(2, 32, 32, 3, dtype=torch.complex64),
    }
    image_model = SimpleNamespace(model=torch.nn.Linear(1, 1), model_options={}, patches={})
    others = {"text": "x", "nothing": None, "tensor": torch.zeros(3), "object": {"model": 1}}
    return {
        **{
            f"pasted {name}": said(lambda v=v: nodes.PasteBackNode.execute(v, cut))
            for name, v in frames.items()
        },
        **{
            f"compared {name}": said(lambda v=v: nodes.CompareNode.execute(v, v, report, report))
            for name, v in frames.items()
        },
        **{
            f"{socket} of {name}": said(lambda v=v, s=socket: nodes.SamplerNode.execute(**{**sampler, s: v}))
            for socket in ("model", "vae")
            for name, v in others.items()
        },
        **{
            f"cached {name}": said(lambda v=v: nodes.TeaCacheNode.execute(v, "threshold", 2.0, 0.1))
            for name, v in others.items()
        },
        "saved text": said(lambda: nodes.SaveNode.execute("model", job.memo, "never", "bf16")),
        "loaded text": said(lambda: nodes.LoadMemo.execute("micro", "auto", "vae")),
        "sparse picture": said(
            lambda: nodes.PortraitNode.execute(picture.to_sparse(), job.memo, 32, 32, "crop", face="none")
        ),
        "memo": said(lambda: nodes.PortraitNode.execute(torch.rand(1, 8, 8, 3), "memo", 32, 32, "crop")),
        "a model for images": said(lambda: nodes.SamplerNode.execute(**{**sampler, "model": image_model})),
        "voice": said(lambda: nodes.SamplerNode.execute(**{**sampler, "voice": job.portrait})),
        "portrait": said(lambda: nodes.SamplerNode.execute(**{**sampler, "portrait": {}})),
        "report": said(lambda: nodes.ReportNode.execute("report", False)),
    }


def values_of_other_sockets(world: World) -> dict[str, str]:
    """What a switch of another pack may bring to a socket of the host: a value of each other one."""
    import torch

    job, nodes = world.job, world.nodes
    picture, voice = torch.rand(1, 64, 64, 3), {"waveform": torch.rand(1, 1, 16_000), "sample_rate": 16_000}
    values = {
        "a picture": picture,
        "a sound": voice,
        "a text": "cat.png",
        "a number": 3,
        "a latent": {"samples": torch.zeros(1, 4, 8, 8)},
        "a mask": torch.zeros(1, 64, 64),
        "a VAE": job.vae,
        "a model": job.model,
    }

    def portrait(image: Any = picture, **places: Any) -> Any:
        return nodes.PortraitNode.execute(image, job.memo, 32, 32, "face", face="none", **places)

    def listen(audio: Any = voice, **more: Any) -> Any:
        return nodes.VoiceNode.execute(audio, job.memo, "happy", 0.0, 0.0, **more)

    sockets = {
        "audio": listen,
        "vocals": lambda value: listen(vocals=value),
        "audio_encoder": lambda value: listen(audio_encoder=value),
        "image": portrait,
        "face_mask": lambda value: portrait(face_mask=value),
        "face_boxes": lambda value: portrait(face_boxes=value),
        "face_embedding": lambda value: portrait(face_embedding=value),
    }
    found = {
        f"{socket}: {what}": said(lambda run=run, value=value: run(value))
        for socket, run in sockets.items()
        for what, value in values.items()
    }
    return {name: text for name, text in found.items() if isinstance(text, str)}


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


def odd_workflows(world: World) -> dict[str, str]:
    """A file's name filled in from what a client sent in place of a workflow."""
    outputs, found = world.module("nodes.host.outputs"), {}
    for name, odd in {"text": "x", "list": [1], "number": 3}.items():
        prompt = {"1": {"class_type": "A", "inputs": {}, "_meta": odd}}
        workflow = {"nodes": [{"id": 1, "properties": odd}]}
        hidden = SimpleNamespace(prompt=prompt, extra_pnginfo={"workflow": workflow})
        node = SimpleNamespace(hidden=hidden)
        found[name] = said(lambda n=node: outputs.fill_in("%Node.width%", n))
    return found


CHECKS = [foreign_values, values_of_other_sockets, wrong_values, unchecked_nodes, odd_workflows]
