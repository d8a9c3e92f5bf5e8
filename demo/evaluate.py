"""Measure the shipped demo model on people and voices it never saw, by the product's own clip loop.

    python -m demo.evaluate

The last line is JSON. Lip sync, identity and emotion are read from the pixels (`demo/meters.py`). Each
video is made by one thread; `seconds_per_frame` is that thread's.
"""

import argparse
import json
import multiprocessing
import os
import time
from dataclasses import dataclass
from functools import lru_cache, partial
from pathlib import Path

import torch
from PIL import Image
from torch import Tensor
from tqdm import tqdm

from memo_avatar.checkpoint.load import load_memo
from memo_avatar.clips.loop import WrapDenoiser, generate_clips
from memo_avatar.clips.values import SamplingSettings
from memo_avatar.inputs import Portrait, Voice
from memo_avatar.model.nets import MemoModels
from memo_avatar.voice.features import voice_features
from memo_avatar.voice.wav2vec2 import Wav2Vec2
from standalone.models import load_wav2vec2
from standalone.vae import DiffusersVAE, load_vae

from .faces import TRAINED_EMOTIONS, People, render, sample_people, still_pose
from .meters import correlation, flicker, identity_error, mouth_opening, read_emotion
from .speech import FPS, SAMPLE_RATE, mouth_from_audio, read_wav
from .training.autoencoder import HELD_OUT_SEED, vae_psnr

FRAMES = 16
CHECKPOINT = Path(__file__).parent / "checkpoint"
HELD_OUT_SPEECH = Path(__file__).parent / "held_out.wav"
OTHERS_FROM = 24  # held-out people from here on calibrate step caches and are never measured


@dataclass(frozen=True)
class DemoModel:
    """The shipped model, ready to talk."""

    models: MemoModels
    vae: DiffusersVAE
    wav2vec2: Wav2Vec2
    guidance_scale: float
    size: int

    @classmethod
    def load(cls, folder: Path = CHECKPOINT) -> "DemoModel":
        """All parts of a demo checkpoint, computing in float32."""
        settings = json.loads((folder / "demo.json").read_text())
        return cls(
            models=load_memo(folder, dtype=torch.float32),
            vae=load_vae(folder / "vae", dtype=torch.float32),
            wav2vec2=load_wav2vec2(folder / "wav2vec2"),
            guidance_scale=settings["guidance_scale"],
            size=settings["size"],
        )

    @torch.no_grad()
    def inputs(self, portrait: Tensor, waveform: Tensor, emotion: int) -> tuple[Portrait, Voice]:
        """A portrait (3, S, S) in 0..1 and a waveform (N,) at 16 kHz, as the clip loop takes them."""
        features = voice_features(waveform, self.wav2vec2, fps=FPS, frames_per_clip=FRAMES)
        emotions = torch.full((features.embeddings.shape[0],), emotion)
        voice = Voice(features.embeddings, emotions, features.num_frames)
        return Portrait(portrait[None] * 2 - 1, torch.zeros(1, 512)), voice

    @torch.no_grad()
    def talk(
        self,
        portrait: Tensor,
        waveform: Tensor,
        emotion: int,
        *,
        seed: int = 42,
        steps: int = 20,
        guidance_scale: float | None = None,
        wrap_denoiser: WrapDenoiser | None = None,
    ) -> Tensor:
        """A portrait (3, S, S) in 0..1 and a waveform (N,) at 16 kHz -> frames (T, 3, S, S) in 0..1."""
        image, voice = self.inputs(portrait, waveform, emotion)
        settings = SamplingSettings(
            steps=steps,
            guidance_scale=self.guidance_scale if guidance_scale is None else guidance_scale,
        )
        clips = generate_clips(
            self.models, self.vae, image, voice, settings, seed=seed, wrap_denoiser=wrap_denoiser
        )
        return torch.cat([clip.frames for clip in clips])


@dataclass(frozen=True)
class Case:
    """One held-out video to make: who, what they hear, and how they feel."""

    person: People
    portrait: Tensor
    waveform: Tensor
    mouth: Tensor
    emotion: int


def held_out_speech(start: int, seconds: float) -> Tensor:
    """A stretch of `held_out.wav`, from the beginning again where it ends."""
    speech = read_wav(HELD_OUT_SPEECH)
    index = (start + torch.arange(int(seconds * SAMPLE_RATE))) % len(speech)
    return speech[index]


def held_out_cases(count: int, clips: int, size: int) -> list[Case]:
    """People of seeds that training never draws, saying sentences it never hears in voices it never hears."""
    seconds = clips * FRAMES / FPS
    cases = []
    for index in range(count):
        person = sample_people(1, HELD_OUT_SEED + 10_000 + index)
        waveform = held_out_speech(int(index * seconds * SAMPLE_RATE), seconds)
        emotion = TRAINED_EMOTIONS[index % len(TRAINED_EMOTIONS)]
        portrait = render(person, still_pose(1), size)[0]
        cases.append(Case(person, portrait, waveform, mouth_from_audio(waveform)[:, 0], emotion))
    return cases


@dataclass(frozen=True)
class Measured:
    """What one video showed."""

    lip_sync: float
    identity_first: float
    identity_last: float
    emotions_right: list[bool]
    flicker: float


def measure(frames: Tensor, case: Case) -> Measured:
    """Read a video; emotion is read once per clip, from every fourth frame."""
    clips = frames.split(FRAMES)
    return Measured(
        lip_sync=correlation(mouth_opening(frames), case.mouth[: len(frames)]),
        identity_first=identity_error(clips[0], case.portrait),
        identity_last=identity_error(clips[-1], case.portrait),
        emotions_right=[read_emotion(clip[::4], case.person) == case.emotion for clip in clips],
        flicker=flicker(frames),
    )


def summarise(results: list[Measured], vae: float, seconds_per_frame: float) -> dict[str, float]:
    """Over all videos, rounded to four digits."""

    def mean(values: list[float]) -> float:
        return sum(values) / len(values)

    lips = torch.tensor([r.lip_sync for r in results])
    right = [float(ok) for r in results for ok in r.emotions_right]
    figures = {
        "lip_sync_median": float(lips.quantile(0.5)),
        "lip_sync_p10": float(lips.quantile(0.1)),
        "identity_error_first": mean([r.identity_first for r in results]),
        "identity_error_last": mean([r.identity_last for r in results]),
        "emotion_accuracy": mean(right),
        "flicker": mean([r.flicker for r in results]),
        "vae_psnr": vae,
        "seconds_per_frame": seconds_per_frame,
    }
    return {key: round(value, 4) for key, value in figures.items()}


def contact_sheet(frames: Tensor, columns: int = 16) -> Image.Image:
    """Frames (T, 3, S, S) in rows of `columns`."""
    rows = -(-len(frames) // columns)
    padded = torch.cat([frames, torch.ones(rows * columns - len(frames), *frames.shape[1:])])
    grid = padded.unflatten(0, (rows, columns)).permute(0, 3, 1, 4, 2).flatten(2, 3).flatten(0, 1)
    return Image.fromarray((grid.clamp(0, 1) * 255).round().byte().numpy())


@dataclass(frozen=True)
class Result:
    """What a worker hands back of one video."""

    measured: Measured
    frames: int
    seconds: float
    sheet: Tensor  # the portrait and 15 frames, (16, 3, S, S)


def evaluate_one(index: int, options: argparse.Namespace) -> Result:
    """Make and measure one video; runs in a process of one thread, which loads the model once."""
    torch.set_num_threads(1)
    demo = _load(options.checkpoint)
    case = held_out_cases(options.videos, options.clips, demo.size)[index]
    began = time.perf_counter()
    frames = demo.talk(
        case.portrait,
        case.waveform,
        case.emotion,
        seed=index,
        steps=options.steps,
        guidance_scale=options.guidance_scale,
    )
    seconds = time.perf_counter() - began
    shown = frames[:: max(1, len(frames) // 15)][:15]
    return Result(measure(frames, case), len(frames), seconds, torch.cat([case.portrait[None], shown]))


_load = lru_cache(maxsize=1)(DemoModel.load)


def parse() -> argparse.Namespace:
    """Options."""
    parser = argparse.ArgumentParser(description="Measure the demo model on held-out people and voices.")
    parser.add_argument("--checkpoint", type=Path, default=CHECKPOINT)
    parser.add_argument("--videos", type=int, default=20)
    parser.add_argument("--clips", type=int, default=4)
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--guidance-scale", type=float, default=None, help="default: demo.json's")
    parser.add_argument("--workers", type=int, default=os.cpu_count(), help="processes (default: all cores)")
    parser.add_argument(
        "--sheet", type=Path, default=None, help="save a contact sheet of every video's frames"
    )
    return parser.parse_args()


def main() -> None:
    """Make the videos, measure them, print the figures."""
    options = parse()
    results: list[Result] = []
    with multiprocessing.get_context("spawn").Pool(options.workers) as pool:
        made = pool.imap(partial(evaluate_one, options=options), range(options.videos))
        for index, result in enumerate(tqdm(made, desc="videos", total=options.videos)):
            results.append(result)
            tqdm.write(f"video {index}: {result.measured}")
    if options.sheet is not None:
        contact_sheet(torch.cat([result.sheet for result in results])).save(options.sheet)
    pace = sum(result.seconds for result in results) / sum(result.frames for result in results)
    vae = vae_psnr(_load(options.checkpoint).vae.model)
    tqdm.write(json.dumps(summarise([result.measured for result in results], vae, pace)))


if __name__ == "__main__":
    main()
