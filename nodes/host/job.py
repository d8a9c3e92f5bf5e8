"""Everything that a video depends on, as one value; and the name by which it is continued."""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import comfy.samplers
from comfy.model_patcher import ModelPatcher
from comfy_api.latest import io
from torch import Tensor

from ...memo_avatar.clips.values import SamplingSettings
from ...memo_avatar.inputs import Portrait
from ...memo_avatar.timing import clip_spans
from ...memo_avatar.video.delivery import Delivery
from ...memo_avatar.video.job_key import key_of
from ...teacache_core import Fingerprint
from .cached_sampling import KEY as CACHE_KEY
from .cached_sampling import settings_of
from .model import MemoModel
from .sockets import EncodedVoice, MemoNets
from .vae import check_vae


@dataclass(frozen=True)
class VideoJob:
    """Everything that a video depends on. ``model`` is a MODEL from Load MEMO, ``vae`` a host VAE."""

    model: Any
    memo: MemoNets
    portrait: Portrait
    voice: EncodedVoice
    vae: Any
    seed: int
    steps: int
    cfg: float
    sampler_name: str
    scheduler: str
    guard_drift: bool = False

    def __post_init__(self) -> None:
        check_vae(self.vae)
        check_model(self.model, self.memo)
        _check_voice(self.voice, self.memo)

    @property
    def settings(self) -> SamplingSettings:
        return SamplingSettings(steps=self.steps, guidance_scale=self.cfg, guard_drift=self.guard_drift)

    @property
    def num_frames(self) -> int:
        return self.voice.voice.num_frames

    @property
    def num_clips(self) -> int:
        return len(clip_spans(self.num_frames, self.settings.frames_per_clip))

    @property
    def size(self) -> tuple[int, int]:
        """Height and width in pixels."""
        height, width = self.portrait.pixel_values.shape[-2:]
        return height, width

    def sigmas(self) -> Tensor:
        """The host's noise levels; those of "normal" are upstream's."""
        return comfy.samplers.KSampler(
            self.model,
            steps=self.steps,
            device=self.model.load_device,
            sampler=self.sampler_name,
            scheduler=self.scheduler,
            denoise=1.0,
            model_options=self.model.model_options,
        ).sigmas


def check_model(model: Any, memo: MemoNets) -> None:
    """Raise unless the MODEL has the sizes of the nets that work for it."""
    if not isinstance(model.model, MemoModel):
        raise ValueError(
            "expected a MODEL from Load MEMO but got a model of another kind (model). "
            "Connect model and memo of the same Load MEMO."
        )
    if model.model.diffusion_model.config != memo.config.diffusion_net:
        raise ValueError(
            "expected a MODEL and MEMO of one checkpoint but got two of different sizes (model, memo). "
            "Connect model and memo of the same Load MEMO."
        )


def _check_voice(voice: EncodedVoice, memo: MemoNets) -> None:
    """Raise unless a frame's features are as many as the checkpoint takes."""
    wanted, got = memo.config.audio_proj.input_dim, math.prod(voice.voice.audio_embeddings.shape[1:])
    if got != wanted:
        raise ValueError(
            f"expected {wanted} audio features a frame but got {got} (voice). "
            "Connect the same Load MEMO to MEMO Voice as to the sampler."
        )


_OUR_NODES = "MEMO_"
_NOT_IN_A_VIDEO = ("path", "wav2vec2", "size", "guidance_scale", "memory")
"""Fields of `MemoNets` that tell where it came from, what it recommends, where memory lives. What was made of
them is in other fields of a job."""


def job_key(job: VideoJob, delivery: Delivery | None = None, node: type[io.ComfyNode] | None = None) -> str:
    """The same for jobs that give the same video, in this process or the next; ``node`` is who makes it."""
    return key_of((job, job.sigmas(), delivery, _foreign(job.model, node)), _see)


def _see(value: Any) -> Any:
    """The host's own values, as their contents."""
    if isinstance(value, MemoNets):
        names = (field.name for field in dataclasses.fields(value))
        return {name: getattr(value, name) for name in names if name not in _NOT_IN_A_VIDEO}
    if isinstance(value, ModelPatcher):
        return _weights(value.model), _content(value.patches), settings_of(value)
    net = getattr(value, "first_stage_model", None)  # of a VAE
    return value if net is None else Fingerprint.of(net.state_dict())


def _weights(model: Any) -> Any:
    if isinstance(model, MemoModel):
        return model.fingerprint, model.get_dtype_inference()
    return Fingerprint.of(model.state_dict())


def _content(value: Any) -> Any:
    """What LoRA and other packs put on a model, by its tensors and plain values. The names of their classes
    and their other attributes change from version to version, and the same patch would become another.
    """
    if isinstance(value, Tensor | bool | int | float | str | None):
        return value
    if isinstance(value, Mapping):
        return {str(name): _content(item) for name, item in value.items()}
    if isinstance(value, list | tuple):
        return [_content(item) for item in value]
    weights = getattr(value, "weights", None)  # of the host's adapters
    if weights is not None:
        return str(getattr(value, "name", "")), _content(weights)
    return sorted(
        key_of(item) for item in getattr(value, "__dict__", {}).values() if isinstance(item, Tensor)
    )


def _foreign(model: Any, node: type[io.ComfyNode] | None) -> Any:
    """What else was done to the model, in functions that nobody can look into: by the nodes that it came
    through, as the user set them. Where no graph was queued, by the numbers among its options.
    """
    hidden = None if node is None else node.hidden
    graph = None if hidden is None else hidden.dynprompt
    if hidden is None or graph is None:
        options = model.model_options.get("transformer_options", {})
        return _content({name: item for name, item in options.items() if not str(name).startswith(CACHE_KEY)})
    link = graph.get_node(hidden.unique_id)["inputs"].get("model")
    return list(_nodes_before(link, graph, set()))


def _nodes_before(link: Any, graph: Any, seen: set[tuple[str, int]]) -> Iterator[Any]:
    """Class and settings of every node of other packs that a value went through, from the last one on."""
    if not _is_link(link) or tuple(link) in seen:
        return
    seen.add(tuple(link))
    found = graph.get_node(link[0])
    inputs = sorted(found["inputs"].items())
    if not found["class_type"].startswith(_OUR_NODES):
        typed = [(name, value) for name, value in inputs if not _is_link(value)]
        yield found["class_type"], link[1], json.dumps(typed, sort_keys=True)
    for _, value in inputs:
        yield from _nodes_before(value, graph, seen)


def _is_link(value: Any) -> bool:
    return isinstance(value, list) and len(value) == 2 and isinstance(value[0], str)
