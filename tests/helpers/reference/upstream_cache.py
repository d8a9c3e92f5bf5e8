"""Runs inside an environment with upstream's own `memo` package: its pipeline with and without our cache.

    python tests/helpers/reference/upstream_cache.py UPSTREAM CASE OUT.json

UPSTREAM is a checkout of memoavatar/memo, CASE a golden case. Writes what was found as JSON; the assertions
are in tests/parity/test_upstream_cache.py. xformers is replaced by a stand-in that is never called:
upstream's memory processor is pure torch, only its switch asks for xformers.
"""

from __future__ import annotations

import json
import sys
import types
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file

STEPS = 6
SHORT, LONG = 2, 3  # clips
THRESHOLD = 0.5
SEED = 7


def import_upstream(checkout: Path) -> None:
    """Make `memo` importable without xformers."""
    import diffusers.utils.import_utils  # noqa: F401 - looks for the real xformers, so it comes first

    stand_in, ops = types.ModuleType("xformers"), types.ModuleType("xformers.ops")
    stand_in.ops = ops  # type: ignore[attr-defined]
    sys.modules.update({"xformers": stand_in, "xformers.ops": ops})
    sys.path.insert(0, str(checkout))


def load_pipeline(case: Path) -> tuple[Any, Any]:
    """Upstream's pipeline and audio projection on the case's weights, float32 on the CPU."""
    from diffusers import AutoencoderKL, FlowMatchEulerDiscreteScheduler
    from memo.models.attention_processor import MemoryLinearAttnProcessor
    from memo.models.audio_proj import AudioProjModel
    from memo.models.image_proj import ImageProjModel
    from memo.models.unet_2d_condition import UNet2DConditionModel
    from memo.models.unet_3d import UNet3DConditionModel
    from memo.pipelines.video_pipeline import VideoPipeline

    folder = case / "checkpoint"
    nets: dict[str, Any] = {}
    for name, kind in (("reference_net", UNet2DConditionModel), ("diffusion_net", UNet3DConditionModel)):
        nets[name] = kind.from_config(json.loads((folder / name / "config.json").read_text()))
    image = load_file(folder / "image_proj" / "diffusion_pytorch_model.safetensors")
    width = image["norm.weight"].shape[0]
    nets["image_proj"] = ImageProjModel(width, 512, image["proj.weight"].shape[0] // width)
    audio = load_file(folder / "audio_proj" / "diffusion_pytorch_model.safetensors")
    window, blocks, channels = load_file(case / "golden.safetensors")["audio_emb"].shape[1:]
    hidden, width = audio["proj2.weight"].shape[0], audio["norm.weight"].shape[0]
    tokens = audio["proj3.weight"].shape[0] // width
    nets["audio_proj"] = AudioProjModel(window, blocks, channels, hidden, width, tokens)
    nets["vae"] = AutoencoderKL.from_config(json.loads((folder / "vae" / "config.json").read_text()))
    for name, net in nets.items():
        weights = load_file(folder / name / "diffusion_pytorch_model.safetensors")
        net.load_state_dict({key: value.float() for key, value in weights.items()})
        net.eval().requires_grad_(False)
    for module in nets["diffusion_net"].modules():
        if getattr(module, "attention_mode", None) == "Temporal":
            module.set_processor(MemoryLinearAttnProcessor())
    audio_proj = nets.pop("audio_proj")
    pipeline = VideoPipeline(scheduler=FlowMatchEulerDiscreteScheduler(), **nets)
    pipeline.set_progress_bar_config(disable=True)
    return pipeline, audio_proj


def memory_of(net: Any) -> list[torch.Tensor]:
    """Every temporal memory of the net, in order."""
    found = [getattr(module, "processor", None) for module in net.modules()]
    return [
        processor.memory[key].clone()
        for processor in found
        if hasattr(processor, "memory")
        for key in ("KV", "Z")
    ]


class Video:
    """One case's inputs; `run` makes a video clip by clip, as upstream's inference.py does."""

    def __init__(self, case: Path, pipeline: Any, audio_proj: Any) -> None:
        self.golden = load_file(case / "golden.safetensors")
        self.info = json.loads((case / "run.json").read_text())
        self.pipeline, self.audio_proj = pipeline, audio_proj

    def run(
        self, clips: int, past: list[torch.Tensor] | None = None
    ) -> tuple[list[torch.Tensor], list[torch.Tensor], int]:
        """Frames and memory of each clip, and how often the body ran. `past` replaces the own past frames."""
        net, calls = self.pipeline.diffusion_net, [0]
        counter = net.mid_block.register_forward_hook(lambda *_: calls.__setitem__(0, calls[0] + 1))
        generator, frames, memories = torch.Generator().manual_seed(SEED), [], []
        for clip in range(clips):
            before = (frames if past is None else past)[clip - 1] if clip else None
            frames.append(self.clip(clip, before, generator))
            memories.append(torch.cat([tensor.flatten() for tensor in memory_of(net)]))
        counter.remove()
        return frames, memories, calls[0]

    def clip(self, index: int, past: torch.Tensor | None, generator: torch.Generator) -> torch.Tensor:
        info, golden = self.info, self.golden
        image, length = golden["pixel_values"], info["frames_per_clip"]
        frames = image.repeat(info["past_frames"], 1, 1, 1)
        if past is not None:
            frames = past[0].permute(1, 0, 2, 3)[-info["past_frames"] :] * 2.0 - 1.0
        span = torch.arange(index * length, (index + 1) * length) % golden["audio_emb"].shape[0]
        with torch.no_grad():
            audio = self.audio_proj(golden["audio_emb"][span][None])
        height, width = info["resolution"]
        return self.pipeline(
            ref_image=torch.cat([image, frames])[None],
            face_emb=golden["face_emb"],
            audio_tensor=audio,
            audio_emotion=golden["audio_emotion"][span],
            emotion_class_num=info["null_emotion"],
            width=width,
            height=height,
            video_length=length,
            num_inference_steps=STEPS,
            guidance_scale=info["guidance_scale"],
            generator=generator,
            is_new_audio=index == 0,
        ).videos


def find_out(case: Path) -> dict[str, Any]:
    """Every fact the test asserts."""
    from standalone.published_memo import apply_teacache, remove_teacache, teacache_report

    video = Video(case, *load_pipeline(case))
    net, twin = video.pipeline.diffusion_net, load_pipeline(case)[0].diffusion_net
    plain, _, plain_calls = video.run(SHORT)
    apply_teacache(net, rel_l1_thresh=0.0, num_inference_steps=STEPS)
    facts: dict[str, Any] = {"zero_attaches_nothing": "forward" not in vars(net)}
    apply_teacache(net, rel_l1_thresh=1e-9, num_inference_steps=STEPS)
    never, _, _ = video.run(SHORT)
    facts["never_skipping_identical"] = all(map(torch.equal, never, plain))
    remove_teacache(net)
    apply_teacache(net, rel_l1_thresh=THRESHOLD, num_inference_steps=STEPS)
    facts["twin_untouched"] = "forward" not in vars(twin)
    cached, memories, calls = video.run(LONG)
    report = teacache_report(net)
    facts.update(
        plain_calls=plain_calls,
        steps=STEPS,
        threshold=THRESHOLD,
        seed=SEED,
        cached_calls=calls,
        masks=list(report.masks()),
        rel_l1=[record.rel_l1 for record in report.records],
        finite=all(bool(torch.isfinite(frames).all()) for frames in cached),
        changed=not torch.equal(cached[0], plain[0]),
    )
    remove_teacache(net)
    facts["removed_leaves_nothing"] = not {"forward", "_teacache"} & set(vars(net))
    _, own_memories, _ = video.run(LONG, past=cached)
    facts["memory_identical"] = all(map(torch.equal, memories, own_memories))
    again, _, _ = video.run(1)
    facts["removed_identical"] = torch.equal(again[0], plain[0])
    return facts


def main() -> None:
    """Command line."""
    checkout, case, out = map(Path, sys.argv[1:4])
    sys.path.append(str(Path(__file__).resolve().parents[3]))
    import_upstream(checkout)
    torch.set_num_threads(1)
    out.write_text(json.dumps(find_out(case)))


if __name__ == "__main__":
    main()
