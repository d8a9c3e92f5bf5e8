"""Runs inside an environment with upstream's own `memo` package: its pipeline with and without our cache.

    python tests/helpers/reference/upstream_cache.py UPSTREAM CASE OUT.json

UPSTREAM is a checkout of memoavatar/memo, CASE a golden case. Writes what was found as JSON; the assertions
are in tests/parity/test_upstream_cache.py.
"""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from upstream import (
    WEIGHTS,
    clip_span,
    import_upstream,
    load_autoencoder,
    load_weights,
    make_pipeline,
    make_unet,
    read_config,
    run_clip,
)

STEPS = 6
SHORT, LONG = 2, 3  # clips
THRESHOLD = 0.5
SEED = 7


def load_pipeline(case: Path) -> tuple[Any, Any]:
    """Upstream's pipeline and audio projection on the case's weights, float32 on the CPU."""
    from memo.models.audio_proj import AudioProjModel
    from memo.models.image_proj import ImageProjModel

    folder = case / "checkpoint"
    nets = {name: make_unet(name, read_config(folder / name)) for name in ("reference_net", "diffusion_net")}
    image = load_file(folder / "image_proj" / WEIGHTS)
    width = image["norm.weight"].shape[0]
    nets["image_proj"] = ImageProjModel(width, 512, image["proj.weight"].shape[0] // width)
    audio = load_file(folder / "audio_proj" / WEIGHTS)
    window, blocks, channels = load_file(case / "golden.safetensors")["audio_emb"].shape[1:]
    hidden, width = audio["proj2.weight"].shape[0], audio["norm.weight"].shape[0]
    tokens = audio["proj3.weight"].shape[0] // width
    audio_proj = AudioProjModel(window, blocks, channels, hidden, width, tokens).eval()
    for name, net in (*nets.items(), ("audio_proj", audio_proj)):
        load_weights(net, folder / name)
    return make_pipeline(nets | {"vae": load_autoencoder(folder / "vae")}), audio_proj


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
        self.info = json.loads((case / "run.json").read_text()) | {"num_inference_steps": STEPS}
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
        span = clip_span(self.golden, self.info, index)
        with torch.no_grad():
            tokens = self.audio_proj(self.golden["audio_emb"][span][None])
        return run_clip(self.pipeline, tokens, self.golden, self.info, index, past, generator)


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
    return facts | original_script(video, plain)


def documented_snippet() -> str:
    """The first block of code of the page about the original script."""
    page = Path(__file__).resolve().parents[3] / "docs" / "original-script.md"
    found = re.search(r"```python\n(.*?)```", page.read_text(encoding="utf-8"), re.DOTALL)
    assert found is not None and "teacache_forward" in found[1]
    return found[1]


def original_script(video: Video, plain: list[torch.Tensor]) -> dict[str, Any]:
    """The same by the original script's interface: the class's forward replaced, its attributes set."""
    from memo.models.unet_3d import UNet3DConditionModel

    from standalone.published_memo import teacache_report

    net, published = video.pipeline.diffusion_net, UNet3DConditionModel.forward
    exec(documented_snippet())  # noqa: S102 - what docs/original-script.md tells people to run
    UNet3DConditionModel.num_steps = STEPS
    UNet3DConditionModel.rel_l1_thresh = 0.0
    UNet3DConditionModel.cnt = 0
    UNet3DConditionModel.accumulated_rel_l1_distance = 0
    UNet3DConditionModel.previous_modulated_input = None
    UNet3DConditionModel.previous_residual = None
    off, _, _ = video.run(SHORT)
    UNet3DConditionModel.rel_l1_thresh = 0.25
    cached, memories, calls = video.run(LONG)
    masks = list(teacache_report(net).masks())
    UNet3DConditionModel.forward = published
    _, own_memories, _ = video.run(LONG, past=cached)
    return {
        "script_zero_identical": all(map(torch.equal, off, plain)),
        "script_first_clip_identical": torch.equal(cached[0], plain[0]),
        "script_memory_identical": all(map(torch.equal, memories, own_memories)),
        "script_masks": masks,
        "script_calls": calls,
    }


def main() -> None:
    """Command line."""
    checkout, case, out = map(Path, sys.argv[1:4])
    sys.path.append(str(Path(__file__).resolve().parents[3]))
    import_upstream(checkout)
    torch.set_num_threads(1)
    out.write_text(json.dumps(find_out(case)))


if __name__ == "__main__":
    main()
