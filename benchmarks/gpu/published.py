"""The published code on the same card: a later clip of its own pipeline, run by a Python with what it needs.

    python benchmarks/gpu/published.py --checkout MEMO --scale real|rehearsal [--dry]

Random weights in bfloat16, torch's attention in place of xformers. Speaks as `measure.py` does.
"""

from __future__ import annotations

import argparse
import sys
import time
import warnings
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
sys.path += [str(ROOT), str(ROOT / "tests" / "helpers" / "reference")]

import torch  # noqa: E402 - after the paths
import upstream  # noqa: E402
import upstream_case  # noqa: E402

from benchmarks.gpu.measure import add_limits, open_device, run, say  # noqa: E402
from benchmarks.gpu.meter import Meter, Values  # noqa: E402
from benchmarks.gpu.workload import EMOTION, REAL, fill  # noqa: E402

MICRO = ROOT / "tests" / "goldens" / "micro"
DTYPE = torch.bfloat16
CLIPS, STEPS = 2, 20


class Published:
    """Its nets at the published widths, or as narrow as a golden case's, and its pipeline."""

    def __init__(self, device: torch.device, meter: Meter, *, real: bool) -> None:
        self.device, self.meter = device, meter
        size, self.run = (REAL.size if real else 64), dict(upstream_case.RUN)
        self.run |= {"num_inference_steps": STEPS, "resolution": [size, size]}
        builders = upstream_case.builders(MICRO)
        if not real:
            builders |= {name: partial(narrow, name) for name in ("reference_net", "diffusion_net")}
        nets = {name: self.ready(build) for name, build in builders.items()}
        nets["vae"] = self.ready(partial(autoencoder, real=real))
        self.audio_proj = nets.pop("audio_proj")
        self.pipeline = upstream.make_pipeline(nets)
        self.inputs = upstream_case.make_inputs(torch.Generator().manual_seed(0))
        self.inputs["pixel_values"] = torch.rand(1, 3, size, size) * 2 - 1
        self.inputs["audio_emotion"] = torch.full_like(self.inputs["audio_emotion"], EMOTION)

    def ready(self, build: Callable[[], Any]) -> Any:
        """Made where it is used, with random weights."""
        with self.device:
            return fill(build().to(device=self.device, dtype=DTYPE))

    def measure(self) -> Values:
        """A later clip, as its inference.py makes one after the other."""
        generator, spent = torch.Generator().manual_seed(1), list[float]()
        past = self.clip(0, None, generator)
        with self.meter.watched() as found, self.evaluations(spent):
            self.clip(1, past, generator)
        if "seconds" in found:
            found["frames_per_second"] = self.run["frames_per_clip"] / found["seconds"]
            found["seconds_by_kind"] = {"an evaluation": sum(spent) / len(spent)}
        return found | {"evaluations": len(spent)}

    def clip(self, index: int, past: Any, generator: torch.Generator) -> torch.Tensor:
        span = upstream.clip_span(self.inputs, self.run, index)
        with torch.no_grad():
            voice = self.inputs["audio_emb"][span][None].to(self.device, DTYPE)
            tokens = self.audio_proj(voice)
            return upstream.run_clip(self.pipeline, tokens, self.inputs, self.run, index, past, generator)

    def evaluations(self, spent: list[float]) -> Any:
        """Adds the seconds of each evaluation of the net, while it is entered."""
        return Evaluations(self.pipeline.diffusion_net, self.meter, spent)


class Evaluations:
    """Hooks that wait for the device before and after each call of a net."""

    def __init__(self, net: Any, meter: Meter, spent: list[float]) -> None:
        self.net, self.meter, self.spent = net, meter, spent
        self.started = 0.0

    def __enter__(self) -> None:
        self.hooks = [
            self.net.register_forward_pre_hook(self.start),
            self.net.register_forward_hook(self.end),
        ]

    def __exit__(self, *_error: object) -> None:
        for hook in self.hooks:
            hook.remove()

    def start(self, *_call: object) -> None:
        self.meter.wait()
        self.started = time.perf_counter()

    def end(self, *_call: object) -> None:
        self.meter.wait()
        self.spent.append(time.perf_counter() - self.started)


def narrow(name: str) -> Any:
    """A net of the golden case, as wide as the published projections want it."""
    sizes = {"cross_attention_dim": 768}
    if name == "diffusion_net":
        sizes["audio_attention_dim"] = 768
    return upstream.make_unet(name, upstream.read_config(MICRO / "checkpoint" / name) | sizes)


def autoencoder(*, real: bool) -> Any:
    """diffusers' class, in the published sizes or in a golden case's."""
    from diffusers import AutoencoderKL

    config = upstream.read_config(MICRO / "checkpoint" / "vae")
    return AutoencoderKL.from_config(config | (dict(REAL.vae) if real else {}))


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--checkout", type=Path, required=True)
    add_limits(parser)
    given = parser.parse_args()
    device = open_device(dry=given.dry, scale_name=given.scale)
    warnings.simplefilter("ignore")  # diffusers deprecates what the published code calls, at every step
    upstream.import_upstream(given.checkout)
    meter = Meter(device, timed=not given.dry)

    def measure() -> Values:
        return Published(device, meter, real=given.scale == "real").measure()

    say(left=run({"clip, 20 evaluations": measure}, done=given.done, until=given.until))


if __name__ == "__main__":
    main()
