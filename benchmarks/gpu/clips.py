"""Whole clips, and the phases that a clip is made of, in one dtype and on one device."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from memo_avatar.clips.conditions import VideoConditions
from memo_avatar.clips.denoiser import ClipDenoiser
from memo_avatar.clips.loop import clip_voice, decode_frames, generate_clips
from memo_avatar.clips.placement import ClipNeeds, ClipSizes, Placement
from memo_avatar.clips.values import SamplingSettings
from memo_avatar.inputs import VAE_STRIDE
from memo_avatar.model.attention import AudioTransformer, SpatialTransformer
from memo_avatar.model.context import ClipContext
from memo_avatar.model.layers import Downsample, ResnetBlock, Upsample
from memo_avatar.model.linear_memory import MemoryLinearAttention, MotionModule
from memo_avatar.model.nets import MemoModels
from memo_avatar.timing import clip_spans
from teacache_core import Calibration, StepCache, StepCacheConfig

from .meter import GIB, Meter, Values
from .workload import PARTS, SEED, OneByOneVAE, Scale, weights_of

CALIBRATION = Path(__file__).resolve().parents[2] / "demo" / "checkpoint" / "calibration.json"
CLIPS = 2  # the first warms up, the second is measured
STEPS = 20
Measurement = Callable[[], Values]


@dataclass(frozen=True)
class Bench:
    """The nets on the device, and what is measured with them."""

    scale: Scale
    models: MemoModels
    vae: OneByOneVAE
    meter: Meter

    @property
    def weights(self) -> int:
        return weights_of(*(getattr(self.models, part) for part in PARTS), self.vae.net)

    def needs(self, settings: SamplingSettings) -> ClipNeeds:
        """What the product expects a clip to take."""
        size, itemsize = self.scale.size, self.models.dtype.itemsize
        return ClipSizes(self.models.config, size, size, True, settings, itemsize).needs()

    def placed(self, *, in_ram: bool) -> Placement:
        """All of the memory on the device; or in RAM, with one branch after the other: the two extremes."""
        parts = len(self.needs(self.scale.settings()).memory)
        return Placement((in_ram,) * parts, apart=in_ram)


def clip_measurements(bench: Bench) -> dict[str, Measurement]:
    """By name, the most telling first."""
    guided, alone = bench.scale.settings(), bench.scale.settings(guidance_scale=1.0)
    return {
        "clip, 20 evaluations": partial(measure_clip, bench, guided),
        "clip, 10 evaluations": partial(measure_clip, bench, guided, computed=10),
        "clip, 6 evaluations": partial(measure_clip, bench, guided, computed=6),
        "clip, memory in RAM": partial(measure_clip, bench, guided, in_ram=True),
        "clip, guidance 1": partial(measure_clip, bench, alone),
    }


def measure_clip(
    bench: Bench,
    settings: SamplingSettings,
    *,
    computed: int = STEPS,
    in_ram: bool = False,
) -> Values:
    """A later clip as the command makes it; the peak beside what the product expects."""
    placement, scale = bench.placed(in_ram=in_ram), bench.scale
    caches: list[StepCache] = []

    def cached(denoiser: ClipDenoiser, sigmas: Tensor, index: int) -> AbstractContextManager[Any]:
        caches.append(step_cache(computed, settings.guidance_scale))
        return caches[-1].wrap(denoiser, sigmas, index)

    inputs = (bench.models, bench.vae, scale.portrait(), scale.voice(CLIPS), settings)
    clips = generate_clips(*inputs, placement=placement, wrap_denoiser=cached)
    next(clips)
    with bench.meter.watched() as found:
        next(clips)
    if "seconds" in found:
        found["frames_per_second"] = scale.frames / found["seconds"]
    masks = caches[-1].report.masks()
    found["evaluations"] = masks[0].count("1") if masks else settings.steps
    found["expected_gib"] = (bench.weights + bench.needs(settings).on_device(placement)) / GIB
    return found


def step_cache(computed: int, guidance_scale: float) -> StepCache:
    """A clip's, which computes so many of 20 steps. The demo's calibration stands for this net's, which would
    cost as much, and no clip learns from the one before that random velocities are hard to foretell."""
    if computed == STEPS:
        return StepCache(StepCacheConfig())
    known = replace(Calibration.load(CALIBRATION), fingerprint=None, guidance_scale=guidance_scale)
    config = StepCacheConfig(target_speedup=STEPS / computed)
    return StepCache(config, known, guidance_scale=guidance_scale)


class Phases:
    """A later clip, one phase after the other."""

    def __init__(self, bench: Bench) -> None:
        self.bench, self.settings = bench, bench.scale.settings()
        models, scale = bench.models, bench.scale
        self.conditions = VideoConditions(models, bench.vae, scale.portrait(), self.settings)
        drawn, side = torch.Generator().manual_seed(SEED), scale.size // VAE_STRIDE
        self.frames = torch.rand(scale.frames, 3, scale.size, scale.size, generator=drawn) * 2 - 1
        self.latents = torch.randn(1, 4, scale.frames, side, side, generator=drawn).to(models.device)
        self.past = self.latents[0].transpose(0, 1).to(models.dtype)
        self.timestep = torch.tensor(500.0)
        spans = clip_spans(scale.frames * CLIPS, scale.frames)
        self.audio, self.emotion = clip_voice(scale.voice(CLIPS), spans[1])
        self.context = self.conditions.clip(None, None, *clip_voice(scale.voice(CLIPS), spans[0]))

    def measurements(self) -> dict[str, Measurement]:
        """By name, the most telling first."""
        needs, on_device = self.bench.needs(self.settings), self.bench.placed(in_ram=False)
        steps, making = needs.steps(on_device), needs.making(on_device)
        return {
            "evaluation, both branches": partial(self.measure, self.evaluate, steps),
            "evaluation, by kind of layer": self.by_kind,
            "evaluation, branches apart": partial(self.measure, partial(self.evaluate, apart=True)),
            "evaluation, cond alone": partial(self.measure, self.evaluate_cond),
            "decode the frames": partial(self.measure, self.decode),
            "encode the past frames": partial(self.measure, self.encode),
            "reference net, past frames": partial(self.measure, self.reference),
            "reference net, one image": partial(self.measure, self.reference_image),
            "reference net, memory and context": partial(self.measure, self.remember, making),
            "watched signal of the cache": partial(self.measure, self.watch),
        }

    def measure(self, work: Callable[[], object], expected: int | None = None) -> Values:
        """``expected``: bytes beside weights, by the product's own arithmetic."""
        found = self.bench.meter(work, self.bench.scale.repeats)
        if expected is not None:
            found["expected_gib"] = (self.bench.weights + expected) / GIB
        return found

    def by_kind(self) -> Values:
        self.evaluate()
        net = self.bench.models.diffusion_net
        return {"seconds_by_kind": self.bench.meter.by_kind(kinds(net), self.evaluate)}

    def denoiser(self, *, apart: bool = False) -> ClipDenoiser:
        models = self.bench.models
        return ClipDenoiser(
            models.diffusion_net, self.context, self.settings.branches, models.dtype, apart=apart
        )

    def evaluate(self, *, apart: bool = False) -> dict[str, Tensor]:
        return self.denoiser(apart=apart)(self.latents, self.timestep)

    def evaluate_cond(self) -> dict[str, Tensor]:
        models = self.bench.models
        cond = ClipDenoiser(models.diffusion_net, self.context.row(1), ("cond",), models.dtype)
        return cond(self.latents, self.timestep)

    def watch(self) -> Tensor:
        return self.denoiser().modulated_input(self.latents, self.timestep)

    def decode(self) -> Tensor:
        return decode_frames(self.bench.vae, self.latents, self.bench.models.dtype)

    def encode(self) -> Tensor:
        return self.conditions.encode(self.frames)

    def reference(self) -> object:
        return self.conditions.reference(self.conditions.plan(self.past), self.past)

    def reference_image(self) -> object:
        tokens = self.conditions.face_tokens[:1]
        return self.bench.models.reference_net(self.conditions.image_latents, tokens)

    def remember(self) -> ClipContext:
        """The memory of the context at hand goes into the next one's."""
        self.context = self.conditions.clip(self.past, self.context.memory, self.audio, self.emotion)
        return self.context


def kinds(net: nn.Module) -> Mapping[str, list[nn.Module]]:
    """The diffusion net's modules by what they are; each part of an evaluation is in one kind at most."""

    def of(*classes: type[nn.Module]) -> list[nn.Module]:
        return [module for module in net.modules() if isinstance(module, classes)]

    children = dict(net.named_children())
    return {
        "stem": [children["conv_in"]],
        "timestep": [children["time_embedding"]],
        "ResNets": of(ResnetBlock),
        "spatial": of(SpatialTransformer),
        "audio": of(AudioTransformer),
        "motion": of(MotionModule),
        "resampling": of(Downsample, Upsample),
        "head": [children["conv_norm_out"], children["conv_out"]],
    }


def compile_regions(models: MemoModels, vae: OneByOneVAE, backend: str) -> None:
    """Compile every layer by itself: equal ones share what is compiled, and memory is fetched in between."""
    # recompile_limit by the name that torch 2.4 knows, too.
    torch._dynamo.config.cache_size_limit = 256  # pyright: ignore[reportPrivateImportUsage]
    for module in _regions(models):
        entry = "forward_reference" if _is_reference(models, module) else "forward"
        setattr(module, entry, _compiled(getattr(module, entry), backend))
    vae.net.decode = _compiled(vae.net.decode, backend)
    vae.net.encode = _compiled(vae.net.encode, backend)


def _regions(models: MemoModels) -> Iterator[nn.Module]:
    layers = (ResnetBlock, SpatialTransformer, AudioTransformer, MemoryLinearAttention, Downsample, Upsample)
    for net in (models.diffusion_net, models.reference_net):
        yield from (module for module in net.modules() if isinstance(module, layers))


def _is_reference(models: MemoModels, module: nn.Module) -> bool:
    """A transformer of the reference net has an entry of its own."""
    inside = models.reference_net.modules()
    return isinstance(module, SpatialTransformer) and any(module is other for other in inside)


def _compiled(call: Any, backend: str) -> Any:
    return torch.compile(call, backend=backend, fullgraph=True, dynamic=False)
