"""Checks inside ComfyUI: other nodes on the MODEL, our files out and in, voices."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from checks_cache import error_of, replaced
from checks_samplers import counted_calls
from world import World


def pack_import(world: World) -> dict[str, Any]:
    """What ComfyUI's start pays for the pack, and whom the pack has called until now."""
    return {
        "seconds": world.import_seconds,
        "new packages": world.new_packages,
        "connections": world.connections,
    }


def weights_that_cannot_be_offloaded(world: World) -> dict[str, list[str]]:
    """Layers with weights that ComfyUI would leave behind when a model is loaded in part, by net."""
    nets = {"diffusion net": world.job.model.model.diffusion_model}
    nets |= {f"net {index}": patcher.model for index, patcher in enumerate(world.job.memo.get_models())}
    nets["vae"] = world.job.vae.first_stage_model
    return {
        name: [
            layer
            for layer, module in net.named_modules()
            if list(module.parameters(recurse=False))
            and (list(module.children()) or not hasattr(module, "comfy_cast_weights"))
        ]
        for name, net in nets.items()
    }


def lora_files(world: World) -> dict[str, Any]:
    """Through core's loader: files in two spellings act, add up, and go."""
    import nodes as host_nodes

    names = [write_lora(world, style) for style in ("kohya", "peft")]
    load = host_nodes.LoraLoaderModelOnly().load_lora_model_only
    first, second = (load(world.job.model, name, 1.0)[0] for name in names)
    both = load(first, names[1], 1.0)[0]
    frames = [world.frames(replace(world.job, model=model)) for model in (first, second, both)]
    world.lora = first
    return {
        "patched": [len(model.patches) for model in (first, second, both)],
        "acts": not frames[0].equal(world.plain),
        "spellings agree": bool(frames[0].equal(frames[1])),
        "adds up": not frames[2].equal(frames[0]),
        "cached": bool(
            world.frames(world.cached(replace(world.job, model=first), step_mask="1111")).equal(frames[0])
        ),
        "goes": bool(world.frames(world.job).equal(world.plain)),
    }


def easycache_and_lazycache(world: World) -> dict[str, Any]:
    """Core's caches alone and under ours."""
    from comfy_extras.nodes_easycache import EasyCacheNode, LazyCacheNode

    found: dict[str, Any] = {}
    for node in (EasyCacheNode, LazyCacheNode):
        model = node.execute(world.job.model, 5.0, 0.0, 1.0, False).args[0]
        with counted_calls(model) as (watched, calls):
            alone = world.frames(replace(world.job, model=watched))
        both, cache = world.run(world.cached(replace(world.job, model=model), step_mask="1101"))
        error = float((alone - world.plain).abs().max())
        computed = cache.report.totals().computed
        finite = bool(alone.isfinite().all() and both.isfinite().all())
        found[node.__name__] = {"calls": len(calls), "error": error, "finite": finite, "computed": computed}
    found["plain again"] = bool(world.frames(world.job).equal(world.plain))
    return found


def attention_override(world: World) -> dict[str, Any]:
    """As SageAttention nodes put themselves in: our attention asks it, and its answer counts."""
    model, calls = world.job.model.clone(), []

    def override(function: Any, *args: Any, **kwargs: Any) -> Any:
        calls.append(1)
        return function(*args, **kwargs)

    model.model_options["transformer_options"]["optimized_attention_override"] = override
    same = world.frames(replace(world.job, model=model))
    asked = len(calls)
    model.model_options["transformer_options"]["optimized_attention_override"] = zero_attention
    other = world.frames(replace(world.job, model=model))
    return {"asked": asked, "same": bool(same.equal(world.plain)), "counts": not other.equal(world.plain)}


def torch_compile(world: World) -> dict[str, Any]:
    """Core's TorchCompileModel, with a compiler that needs no toolchain, alone and under the cache."""
    import torch
    from comfy_api.torch_helpers import set_torch_compile_wrapper

    job = world.longer(1, steps=2)
    plain, skipping = world.frames(job), world.frames(world.cached(job, step_mask="10"))
    model = job.model.clone(disable_dynamic=True)
    set_torch_compile_wrapper(model, backend="eager")
    with torch.inference_mode(False):
        alone = world.frames(replace(job, model=model))
        cached = world.frames(world.cached(replace(job, model=model), step_mask="10"))
    return {
        "alone": float((alone - plain).abs().max()),
        "cached": float((cached - skipping).abs().max()),
    }


def saved_checkpoints(world: World) -> dict[str, Any]:
    """MEMO Save Checkpoint, then Load MEMO: each dtype, and with a LoRA merged in."""
    found: dict[str, Any] = {}
    for name in ("fp32", "bf16", "fp16"):
        path = Path(
            world.nodes.SaveNode.execute(world.job.model, world.job.memo, f"my: {name}", name).args[0]
        )
        frames = world.frames(loaded(world, path))
        error = float((frames - world.plain).abs().mean())
        found[name] = {"file": path.name, "bytes": path.stat().st_size, "error": error}
    merged = world.nodes.SaveNode.execute(world.lora, world.job.memo, "merged", "fp32").args[0]
    patched = world.frames(replace(world.job, model=world.lora))
    found["merged"] = float((world.frames(loaded(world, Path(merged))) - patched).abs().max())
    return found


def saving_over_a_checkpoint(world: World) -> dict[str, Any]:
    """Under Windows' rules, by a name that is taken, from a checkpoint that is loaded and mapped."""
    from windows_rules import windows_rules

    save = world.nodes.SaveNode.execute
    first = Path(save(world.job.model, world.job.memo, "taken", "fp32").args[0])
    before, job = first.read_bytes(), loaded(world, first)
    names = []
    with windows_rules() as refused:
        for model in (job.model, world.lora):
            path = Path(save(model, job.memo, "taken", "fp32").args[0])
            names.append(path.name)
            readable = path.stat().st_mode & 0o444
    return {
        "names": names,
        "refused": refused,
        "readable": readable,
        "kept": first.read_bytes() == before,
        "frames": bool(world.frames(loaded(world, path)).isfinite().all()),
        "left": sorted(item.name for item in path.parent.iterdir() if item.name.endswith(".part")),
    }


def checkpoints_in_folders(world: World) -> dict[str, Any]:
    """What Load MEMO lists where users sort their models into folders, also with a link that leads back."""
    import shutil

    root = world.user / "models" / "memo"
    (root / "mine" / "old").mkdir(parents=True)
    (root / "mine" / "back").symlink_to(root / "mine")
    shutil.copytree(root / "micro", root / "mine" / "old" / "memo")
    saved = world.nodes.SaveNode.execute(world.job.model, world.job.memo, "two", "fp32").args[0]
    shutil.move(saved, root / "mine" / "two.safetensors")
    listed = list(world.module("nodes.host.folders").find_checkpoints())
    loads = [loaded(world, Path(name), name) is not None for name in listed if name.startswith("mine")]
    shutil.rmtree(root / "mine")
    return {"listed": [name for name in listed if name.startswith(("micro", "mine"))], "loads": loads}


def no_checkpoint_at_all(world: World) -> dict[str, str]:
    """What is said before a run where the list is empty, the bundled model's folder removed too."""
    from unittest import mock

    import folder_paths

    folders = world.module("nodes.host.folders")
    empty = world.user / "empty"
    empty.mkdir()
    with (
        mock.patch.object(folders, "DEMO_FOLDER", empty),
        mock.patch.dict(folder_paths.folder_names_and_paths, {"memo": ([str(empty)], {".safetensors"})}),
    ):
        (shown,) = world.nodes.LoadMemo.define_schema().inputs[0].options
        return {name: world.nodes.LoadMemo.validate_inputs(name) for name in (shown, "MEMO", "demo", "any")}


def calibration_and_report(world: World) -> dict[str, Any]:
    """Calibrate -> file -> the TeaCache node, which then skips in the first clip; and the report's node."""
    nodes = world.nodes
    teacache = nodes.TeaCacheNode.execute
    model = teacache(world.job.model, "calibrate", 2.0, 0.0).args[0]
    images, _, _, report = nodes.SamplerNode.execute(**{**vars(world.job), "model": model}).args
    path = Path(nodes.CalibrateNode.execute(report, "my/../calibration").args[0])
    listed = world.module("nodes.teacache").find_calibrations()
    model = teacache(world.job.model, "target speed-up", 2.0, 0.0, calibration=path.stem).args[0]
    report = nodes.SamplerNode.execute(**{**vars(world.job), "model": model}).args[3]
    picture, text = nodes.ReportNode.execute(report, True).args
    return {
        "calibrating changes nothing": bool(images.movedim(-1, 1).equal(world.plain)),
        "inside the folder": path.parent == world.user / "models" / "memo" / "calibrations",
        "listed": path.stem in listed,
        "masks": list(report.cache.masks()),
        "picture": list(picture.shape),
        "text": text,
    }


def calibration_of_another_checkpoint(world: World) -> dict[str, str]:
    """Chosen on TeaCache for MEMO, or found beside the checkpoint."""
    nodes, core = world.nodes, world.module("teacache_core")
    model = nodes.TeaCacheNode.execute(world.job.model, "calibrate", 2.0, 0.0).args[0]
    report = nodes.SamplerNode.execute(**{**vars(world.job), "model": model}).args[3]
    other = replace(report.calibration, fingerprint=core.Fingerprint("0123456789abcdef", (1.0,)))
    path = world.user / "models" / "memo" / "calibrations" / "another.json"
    path.parent.mkdir(exist_ok=True)
    path.write_text(other.to_text(), encoding="utf-8")
    beside = world.job.model.clone()
    with replaced(beside.model, "calibration_path", str(path)):
        automatic = error_of(lambda: nodes.TeaCacheNode.execute(beside, "target speed-up", 2.0, 0.0))
    chosen = error_of(
        lambda: nodes.TeaCacheNode.execute(world.job.model, "fast 3.3x", 2.0, 0.0, calibration="another")
    )
    path.unlink()
    return {"chosen": chosen, "automatic": automatic}


def told_of_saved_files(world: World) -> dict[str, str]:
    """What stands on the node that saved a file; twice, so that a name is taken."""
    nodes, told = world.nodes, {}
    model = nodes.TeaCacheNode.execute(world.job.model, "calibrate", 2.0, 0.0).args[0]
    report = nodes.SamplerNode.execute(**{**vars(world.job), "model": model}).args[3]
    runs = {
        "teacache": lambda: nodes.CalibrateNode.execute(report, "mine"),
        "save": lambda: nodes.SaveNode.execute(world.job.model, world.job.memo, "mine", "bf16"),
    }
    for name, run in runs.items():
        texts: list[str] = []
        with replaced(
            world.module(f"nodes.{name}"), "show_text", lambda _node, text, to=texts: to.append(text)
        ):
            paths = [Path(run().args[0]) for _ in range(2)]
        told[name] = texts
        for path in paths:
            path.unlink()
    return told


def voices(world: World) -> dict[str, Any]:
    """A stereo recording at 44.1 kHz, a part of it, and the host's own AUDIO_ENCODER."""
    import torch

    nodes, memo = world.nodes, world.job.memo
    tone = torch.sin(torch.arange(44_100) / 44_100 * 2 * 3.14159 * 220)
    sound = {"waveform": torch.stack([tone, 0.5 * tone])[None], "sample_rate": 44_100}
    whole, frames = nodes.VoiceNode.execute(sound, memo, "happy", 0.0, 0.0).args[:2]
    part = nodes.VoiceNode.execute(sound, memo, "happy", 0.25, 0.5).args[1]
    mono = {"waveform": 0.75 * tone[None, None], "sample_rate": 44_100}
    mixed = nodes.VoiceNode.execute(mono, memo, "happy", 0.0, 0.0).args[0]
    encoder = SimpleNamespace(patcher=host_audio_encoder(world))
    other = nodes.VoiceNode.execute(sound, memo, "happy", 0.0, 0.0, encoder).args[0]
    difference = whole.voice.audio_embeddings - mixed.voice.audio_embeddings
    return {
        "frames": [frames, part],
        "channels are averaged": float(difference.abs().max()),
        "host encoder": [list(other.voice.audio_embeddings.shape), list(whole.voice.audio_embeddings.shape)],
        "finite": bool(other.voice.audio_embeddings.isfinite().all()),
    }


# Means


def write_lora(world: World, style: str) -> str:
    """A LoRA of rank 2 on three linear layers; the same numbers in two spellings."""
    import torch
    from safetensors.torch import save_file

    generator = torch.Generator().manual_seed(3)
    weights = world.job.model.model.diffusion_model.state_dict()
    linear = [name for name, weight in weights.items() if name.endswith("to_q.weight") and weight.ndim == 2]
    state = {}
    for name in linear[:3]:
        outputs, inputs = weights[name].shape
        layer = name.removesuffix(".weight")
        up = torch.randn(outputs, 2, generator=generator)
        down = torch.randn(2, inputs, generator=generator)
        if style == "kohya":
            flat = f"lora_unet_{layer.replace('.', '_')}"
            state |= {f"{flat}.lora_up.weight": up, f"{flat}.lora_down.weight": down}
        else:
            state |= {
                f"diffusion_model.{layer}.lora_B.weight": up,
                f"diffusion_model.{layer}.lora_A.weight": down,
            }
    folder = world.user / "models" / "loras"
    folder.mkdir(parents=True, exist_ok=True)
    save_file(state, folder / f"{style}.safetensors")
    return f"{style}.safetensors"


def zero_attention(function: Any, *args: Any, **kwargs: Any) -> Any:
    return function(*args, **kwargs) * 0


def loaded(world: World, path: Path, name: str = "") -> Any:
    """The job with the model of a saved file, found by name as users do."""
    model, memo = world.nodes.LoadMemo.execute(name or path.name, "auto", world.job.vae).args[:2]
    return replace(world.job, model=model, memo=memo)


def host_audio_encoder(world: World) -> Any:
    """The host's own wav2vec2 class at the tests' width, in a patcher."""
    import comfy.ops
    import torch
    from comfy.audio_encoders.wav2vec2 import Wav2Vec2Model

    torch.manual_seed(0)
    kind = {"conv_norm": False, "conv_bias": False, "do_normalize": False, "do_stable_layer_norm": False}
    factory = {"dtype": torch.float32, "operations": comfy.ops.manual_cast}
    net = Wav2Vec2Model(embed_dim=16, num_heads=2, num_layers=2, **kind, **factory).eval()
    for parameter in net.requires_grad_(False).parameters():
        parameter.copy_(0.02 * torch.randn(parameter.shape))
    return world.module("nodes.host.memory").make_patcher(net)


CHECKS = (
    pack_import,
    weights_that_cannot_be_offloaded,
    lora_files,
    easycache_and_lazycache,
    attention_override,
    torch_compile,
    saved_checkpoints,
    saving_over_a_checkpoint,
    checkpoints_in_folders,
    no_checkpoint_at_all,
    calibration_and_report,
    calibration_of_another_checkpoint,
    told_of_saved_files,
    voices,
)
