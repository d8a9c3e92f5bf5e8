"""One video from its options to its file: its inputs, its clips, and going on where another run stopped."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import av
import torch

from memo_avatar.checkpoint.load import Checkpoint, open_checkpoint
from memo_avatar.clips.conditions import VAE
from memo_avatar.clips.drift_report import DriftMeter
from memo_avatar.clips.loop import OnStep, generate_clips
from memo_avatar.clips.placement import Placement
from memo_avatar.clips.solvers import SOLVERS
from memo_avatar.clips.values import Clip, ClipOfMany, SamplingSettings
from memo_avatar.files.foreign import counted
from memo_avatar.inputs import Portrait, Voice
from memo_avatar.model.config import MemoConfig
from memo_avatar.model.nets import MemoModels
from memo_avatar.portrait.faces import likeness_to
from memo_avatar.timing import clip_spans
from memo_avatar.video.delivery import Delivery
from memo_avatar.video.retime import delivered_count
from memo_avatar.video.streams import Sound, open_video
from memo_avatar.voice.listen import Sources
from memo_avatar.voice.wav2vec2 import Wav2Vec2

from ..arguments import VideoOptions
from ..caching import build_cache, plan_cache, save_results
from ..face_inputs import model_places, read_portraits, warn_of_size
from ..models import ModelFiles, load_models, load_wav2vec2, select_dtype
from ..progress import byte_progress
from ..room import place as place_memory
from ..voice import encode_voice, read_speech, read_voice
from .targets import Pictures, VideoFile, target_of
from .work import LEASE, open_work

_CACHE = "cache"  # the name of what the step cache carries from clip to clip
KEY_TAG = "memo_job"
"""The name under which a finished file holds its job's key."""


@dataclass(frozen=True)
class Inputs:
    """The user's files, read and found good."""

    portraits: Sequence[Portrait]  # of all who speak
    voices: Sequence[Sources]
    guidance_scale: float
    delivery: Delivery
    target: VideoFile | Pictures

    @property
    def size(self) -> tuple[int, int]:
        """Width and height of the video."""
        height, width = self.portraits[0].pixel_values.shape[-2:]
        return self.delivery.size(width, height)


@dataclass(frozen=True)
class Made:
    """A finished video: its frames, of which ``continued_from`` were there before, and what it took."""

    frames: int
    continued_from: int
    evaluations: int
    seconds: float
    lines: tuple[str, ...]  # what the cache has to say


class Studio:
    """A device, and the models of the last video on it: the next one with the same models loads nothing."""

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self._name: tuple[object, ...] = ()
        self._loaded: tuple[MemoModels, VAE] | None = None
        self._encoder: tuple[Path, Wav2Vec2] | None = None

    def listen(self, sources: Sources, wav2vec2: Path, config: MemoConfig) -> Voice:
        """A voice's features and emotions. The encoder waits for the next one in the machine's memory."""
        if self._encoder is None or self._encoder[0] != wav2vec2:
            self._encoder = wav2vec2, load_wav2vec2(wav2vec2)
        encoder = self._encoder[1].to(self.device)
        voice = encode_voice(sources, encoder, self.device, config.audio_proj.input_dim, str(wav2vec2))
        encoder.to("cpu")
        return voice

    def models(self, checkpoint: Checkpoint, vae: Path, dtype: torch.dtype) -> tuple[MemoModels, VAE]:
        """MEMO's nets and the VAE, all weights finite."""
        name = (checkpoint.path, vae, dtype)
        if self._loaded is None or name != self._name:
            self._loaded = None  # never two sets at once
            with byte_progress("loading") as progress:
                self._loaded = load_models(checkpoint, vae, dtype, self.device, progress)
            self._name = name
        return self._loaded


def read_inputs(options: VideoOptions, files: ModelFiles, config: MemoConfig) -> Inputs:
    """Everything that a user can get wrong, before any work."""
    target = target_of(options.output, options.codec)
    target.check(options.inputs, None, (0, 0))
    size = options.size or (files.settings.size, files.settings.size)
    portraits, paster = read_portraits(options, files.settings, size, config.image_proj.embedding_dim)
    speeches = read_speech(options)
    delivery = replace(Delivery.of_voice(len(speeches[0]), options.fps, paster), codec=target.codec)
    target.check(options.inputs, delivery, delivery.size(*size))
    warn_of_size(delivery)
    given = options.guidance_scale
    guidance_scale = files.settings.guidance_scale if given is None else given
    heard = [read_voice(options, speech) for speech in speeches]
    return Inputs(portraits, heard, guidance_scale, delivery, target)


class Video:
    """A video that is ready to be made, or to be gone on with: ``found`` of its frames are there already."""

    def __init__(self, studio: Studio, options: VideoOptions, key: str, *, patience: float = 0.0) -> None:
        """Check, hear, load. ``key`` names the job (`job_key`), ``patience`` is `open_work`'s."""
        self._started, self._options, self._key = time.monotonic(), options, key
        self._evaluations = 0
        dtype = select_dtype(options.dtype, studio.device)
        with torch.inference_mode():
            files = ModelFiles.find(options.checkpoint, options.vae, options.wav2vec2)
            plan = plan_cache(options, files)
            checkpoint = open_checkpoint(files.checkpoint)
            self._inputs = read_inputs(options, files, checkpoint.config)
            self._voices = [
                studio.listen(one, files.wav2vec2, checkpoint.config) for one in self._inputs.voices
            ]
            self._models, self._vae = studio.models(checkpoint, files.vae, dtype)
            observe = options.cache_report is not None
            guidance = self._inputs.guidance_scale
            self._caches = [build_cache(plan, self._models, guidance, observe=observe) for _ in self._voices]
            self._meter = self._make_meter() if observe else None
        self.settings = SamplingSettings(
            steps=options.steps,
            guidance_scale=self._inputs.guidance_scale,
            solver=SOLVERS[options.solver],
            guard_drift=options.guard_drift,
            past=options.past,
        )
        self.num_clips = len(clip_spans(self._voices[0].num_frames, self.settings.frames_per_clip))
        anew = options.restart or options.calibrate is not None  # a calibration is taught by every clip
        self._work = open_work(self._inputs.target.place, f"{key} {dtype}", anew=anew, patience=patience)
        self._states = self._work.load_all(self._delivery, self._take_up)
        self.num_clips_found, self.found = self._work.done, self.finished

    def __enter__(self) -> Video:
        return self

    def __exit__(self, *_error: object) -> None:
        """Let go of what is unfinished; it stays for the next run."""
        self._work.close()

    @property
    def _delivery(self) -> Delivery:
        return self._inputs.delivery

    @property
    def size(self) -> tuple[int, int]:
        """Width and height."""
        return self._inputs.size

    @property
    def total(self) -> int:
        """Frames of the whole video."""
        return self._delivery.total

    @property
    def num_speakers(self) -> int:
        """Whose clips are made in turn."""
        return len(self._voices)

    @property
    def finished(self) -> int:
        """Frames that are done and will not be lost."""
        if self._work.done == self.num_clips:
            return self.total
        return delivered_count(self._work.done * self.settings.frames_per_clip, self._delivery.fps)

    def render(self, on_step: OnStep | None = None) -> Iterator[int]:
        """Make the missing clips; after each, how many frames are finished. What is finished survives."""
        portraits = self._inputs.portraits
        placement = place_memory(self._models, portraits, self.settings, self._options.memory)
        turns = [self._clips(number, placement, on_step) for number in range(self.num_speakers)]
        for clips in zip(*turns, strict=True):
            with torch.inference_mode():
                clip = ClipOfMany(clips) if self._options.speakers else clips[0]
                self._work.fill([clip], self._delivery, self._notes)
            yield self.finished

    def _clips(self, number: int, placement: Placement, on_step: OnStep | None) -> Iterator[Clip]:
        """One speaker's, as if nobody else were there."""

        def count(clip_index: int, step: int, latents: torch.Tensor) -> None:
            self._evaluations += 1
            if on_step is not None:
                on_step(clip_index, number * self.settings.steps + step, latents)

        clips = generate_clips(
            self._models,
            self._vae,
            self._inputs.portraits[number],
            self._voices[number],
            self.settings,
            seed=self._options.seed,
            state=self._states[number] if self._states else None,
            placement=placement,
            on_step=count,
            wrap_denoiser=partial(self._caches[number].wrap, euler=self._options.solver == "euler"),
        )
        return self._meter.watch(clips) if self._meter else clips

    def _make_meter(self) -> DriftMeter:
        """For the report, which there is of one speaker alone."""
        known = self._inputs.portraits[0].face_embedding
        return DriftMeter(likeness_to(known, model_places(self._options)))

    def finish(self) -> Made:
        """Put the video in its place; what it was made in is gone."""
        self._join({KEY_TAG: self._key})
        self._work.remove()
        seconds = time.monotonic() - self._started
        drift = self._meter.curve if self._meter else ()
        lines = [
            line for cache in self._caches for line in save_results(cache, drift, self._options, seconds)
        ]
        if self.found and self._options.cache_report is not None:
            made = counted(self.total - self.found, "frame")
            lines.append(f"The cache report is about what was made since, {made}.")
        return Made(self.total, self.found, self._evaluations, seconds, tuple(lines))

    def keep_so_far(self) -> bool:
        """A playable file of the clips that are finished, in the video's place, if any is."""
        if self._work.done:
            self._join({})
        return bool(self._work.done)

    def _take_up(self, notes: Mapping[str, str]) -> None:
        for cache, carried in zip(self._caches, json.loads(notes[_CACHE]), strict=True):
            cache.take_up(carried)

    def _notes(self) -> dict[str, str]:
        return {_CACHE: json.dumps([cache.carry() for cache in self._caches])}

    def _join(self, tags: dict[str, str]) -> None:
        sound = Sound.of_files(self._options.recordings)
        try:
            self._inputs.target.write(self._work, sound, self._delivery, tags, whole=bool(tags))
        finally:
            sound.close()


def render_video(studio: Studio, options: VideoOptions, key: str) -> Iterator[int | Made]:
    """Make a video, or what is missing of it: finished frames, again and again, and then what was made."""
    with Video(studio, options, key, patience=LEASE) as video:
        yield video.found
        yield from video.render()
        yield video.finish()


def holds_job(path: Path, key: str, frames: int) -> bool:
    """Whether a file is the finished video of this job: by the key in it and the pictures of its index."""
    try:
        with open_video(path) as container:
            tags = {name.lower(): value for name, value in container.metadata.items()}
            pictures = container.streams.video[0].frames if container.streams.video else 0
    except (av.FFmpegError, OSError):
        return False
    return tags.get(KEY_TAG) == key and pictures == frames
