"""Checks inside ComfyUI: which jobs may go on with each other's unfinished videos."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from dataclasses import fields, make_dataclass, replace
from types import SimpleNamespace
from typing import Any

from world import World


def keys_of_jobs(world: World) -> dict[str, Any]:
    """Which jobs may continue each other's files."""
    import torch

    job, job_key = world.job, world.module("nodes.host.job").job_key
    name, weight = next(iter(job.model.model.diffusion_model.named_parameters()))

    def patched(patch: Any) -> Any:
        model = job.model.clone()
        model.add_patches({f"diffusion_model.{name}": patch}, 1.0)
        return replace(job, model=model)

    def difference(value: float) -> Any:
        return patched(("diff", (torch.full_like(weight, value),)))

    def lora(rank: float, **attributes: Any) -> Any:
        kind = type(attributes.pop("kind", "LoRAAdapter"), (), {"name": "lora"})
        adapter = kind()
        for key, value in attributes.items():
            setattr(adapter, key, value)
        adapter.weights = (torch.full((1, 2), rank), torch.ones(2, 1), None, None, None, None)
        return patched(adapter)

    again = world.make_job()
    others = [*changed_fields(world), *changed_voices_and_portraits(job)]
    others += [replace(job, scheduler="simple"), replace(job, sampler_name="heun"), world.longer(1)]
    others += [difference(0.1), difference(0.2), world.threshold(0.1), world.threshold(0.2)]
    others += [lora(1.0), lora(2.0)]
    keys = [job_key(one) for one in (job, *others)]
    newer = lora(1.0, kind="LoRAAdapterV2", version="1.2", loaded_keys={"b", "a"}, new={})
    older = lora(1.0, loaded_keys={"a", "b"}, version="1.1")
    return {
        "same": job_key(again) == keys[0] and job_key(difference(0.1)) == job_key(difference(0.1)),
        "twice": sorted({key for key in keys if keys.count(key) > 1}),
        "versions of a pack": len({job_key(one) for one in (lora(1.0), older, newer)}),
    }


def changed_fields(world: World) -> Iterator[Any]:
    """The job with another value of each of its fields in turn, and with one that it will have some day."""
    import torch

    job = world.job
    for field in fields(job):
        value = getattr(job, field.name)
        if isinstance(value, int | float):
            yield replace(job, **{field.name: value + 1})
        elif field.name == "memo":
            yield replace(job, memo=replace(value, dtype=torch.bfloat16))
            yield replace(job, memo=replace(value, reference_net=value.image_proj))
        elif field.name == "vae":
            vae = copy.copy(value)
            vae.first_stage_model = torch.nn.Linear(2, 2)
            yield replace(job, vae=vae)
    kind = make_dataclass("Longer", [("later", int, 0)], bases=(type(job),), frozen=True)
    values = {field.name: getattr(job, field.name) for field in fields(job)}
    yield from (kind(**values, later=later) for later in (0, 1))


def changed_voices_and_portraits(job: Any) -> Iterator[Any]:
    """The job with one number of one value changed."""
    voice, portrait = job.voice, job.portrait
    inner = voice.voice
    yield replace(job, voice=replace(voice, sample_rate=voice.sample_rate + 1))
    yield replace(job, voice=replace(voice, waveform=voice.waveform * 0.99))
    for name in ("audio_embeddings", "emotions"):
        value = getattr(inner, name).contiguous().clone()
        value.view(-1)[-1] += 1
        yield replace(job, voice=replace(voice, voice=replace(inner, **{name: value})))
    for name in ("pixel_values", "face_embedding"):
        value = getattr(portrait, name).contiguous().clone()
        value.view(-1)[-1] += 0.01
        yield replace(job, portrait=replace(portrait, **{name: value}))


class Graph:
    """Nodes that were queued, as the host gives them to a node that asks."""

    def __init__(self, **nodes: Any) -> None:
        self.nodes = nodes

    def get_node(self, node_id: str) -> Any:
        return self.nodes[node_id]


def keys_of_graphs(world: World) -> dict[str, Any]:
    """What other packs do to a model in functions is known by their nodes, as they were set."""
    job, job_key = world.job, world.module("nodes.host.job").job_key

    def node(class_type: str, **inputs: Any) -> Any:
        return {"class_type": class_type, "inputs": inputs}

    def key(**nodes: Any) -> str:
        hidden = SimpleNamespace(unique_id="me", dynprompt=Graph(**nodes))
        return job_key(job, None, SimpleNamespace(hidden=hidden))

    load = node("MEMO_Load", checkpoint="micro")
    plain = key(me=node("MEMO_Sampler", model=["1", 0], seed=3), **{"1": load})
    freeu = {
        b1: key(
            me=node("MEMO_Sampler", model=["2", 0]), **{"1": load, "2": node("FreeU", model=["1", 0], b1=b1)}
        )
        for b1 in (1.1, 1.3)
    }
    cached = node("MEMO_TeaCache", model=["2", 0], threshold=0.1)
    again = key(
        me=node("MEMO_Sampler", model=["9", 0]),
        **{"8": load, "2": node("FreeU", b1=1.3, model=["8", 0]), "9": cached},
    )
    swapped = [
        key(me=node("MEMO_Sampler", model=["split", index]), split=node("Two", model=["1", 0]), **{"1": load})
        for index in (0, 1)
    ]
    return {
        "different": len({plain, *freeu.values(), *swapped}),
        "ids and our own nodes do not count": again == freeu[1.3],
        "other checkpoint name": plain
        == key(
            me=node("MEMO_Sampler", model=["1", 0], seed=4), **{"1": node("MEMO_Load", checkpoint="moved")}
        ),
    }


CHECKS = (keys_of_jobs, keys_of_graphs)
