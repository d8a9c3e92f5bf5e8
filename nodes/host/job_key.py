"""A name for all that a video depends on: equal jobs get the same one, in this process or the next."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from ...memo_avatar.video.delivery import Delivery
from ...teacache_core import Fingerprint
from .cached_sampling import KEY as CACHE_KEY
from .cached_sampling import CacheSettings
from .job import VideoJob

_PLAIN = (str, int, float, bool, type(None), torch.dtype)


def job_key(job: VideoJob, settings: CacheSettings | None, delivery: Delivery | None = None) -> str:
    """The same for jobs that give the same video, in this process or the next."""
    portrait, voice = job.portrait, job.voice.voice
    options = job.model.model_options["transformer_options"]
    cache = None if settings is None else (settings.config.to_json(), settings.calibration)
    digest = hashlib.sha256()
    for value in (
        job.model.model.fingerprint.to_json(),
        job.model.model.get_dtype_inference(),
        job.model.patches,
        Fingerprint.of(job.vae.first_stage_model.state_dict()).to_json(),
        (job.seed, job.cfg, job.sampler_name, job.sigmas(), voice.num_frames),
        None if cache is None else (cache[0], None if cache[1] is None else cache[1].to_json()),
        {key: value for key, value in options.items() if not str(key).startswith(CACHE_KEY)},  # other packs'
        (portrait.pixel_values, portrait.face_embedding),
        (voice.emotions, voice.audio_embeddings[::8, 2], job.voice.waveform),
        None if delivery is None else delivery_key(delivery),
    ):
        update_digest(digest, value)
    return digest.hexdigest()[:16]


def delivery_key(delivery: Delivery) -> tuple[Any, ...]:
    """What the rate and the picture around the face add to a job's key."""
    paster = delivery.paster
    if paster is None:
        return (delivery.fps,)
    return delivery.fps, paster.crop.box, paster.mask, paster.picture, paster.match_colour


def update_digest(digest: Any, value: Any) -> None:
    """Feed a value to a hash by its contents. Of an object (a LoRA's adapter, another node's settings), its
    class, weights and plain attributes count, never its address.
    """
    if isinstance(value, Tensor):
        digest.update(f"{tuple(value.shape)} {value.dtype}".encode())
        digest.update(value.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes())
    elif isinstance(value, Mapping):
        for key in sorted(value, key=str):
            update_digest(digest, (str(key), value[key]))
    elif isinstance(value, list | tuple):
        digest.update(f"[{len(value)}".encode())
        for item in value:
            update_digest(digest, item)
    elif isinstance(value, _PLAIN):
        digest.update(repr(value).encode())
    elif callable(value):
        digest.update(getattr(value, "__qualname__", type(value).__qualname__).encode())
    else:
        named = getattr(value, "__dict__", {}).items()
        plain = {name: item for name, item in named if name == "weights" or isinstance(item, _PLAIN)}
        update_digest(digest, (type(value).__qualname__, plain))
