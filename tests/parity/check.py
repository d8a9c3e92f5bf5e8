"""Compare this MEMO with stored results of upstream's own code: ``python tests/parity/check.py CASE_DIR...``.

A case is laid out as ``tests/goldens/README.md`` says: a model case has ``checkpoint/``, an audio case
``speech.wav``. Prints every tensor's relative L2 error, its largest absolute error and its tolerance; exits 1
when one is passed.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor

sys.path.append(str(Path(__file__).resolve().parents[2]))

from memo_avatar.checkpoint.load import load_memo
from memo_avatar.clips.denoiser import ClipDenoiser
from memo_avatar.clips.loop import Denoise, generate_clips
from memo_avatar.clips.solvers import Velocity, sample_euler
from memo_avatar.clips.values import SamplingSettings
from memo_avatar.inputs import Portrait, Voice
from memo_avatar.model.nets import MemoModels
from memo_avatar.voice.features import voice_features
from memo_avatar.voice.sound_files import load_audio
from standalone.models import load_wav2vec2
from standalone.vae import DiffusersVAE, load_vae

FIRST_CLIP, LATER_CLIPS, AUDIO = 1e-5, 1e-4, 1e-5
"""Relative L2 tolerances: later clips run freely, on frames this implementation decoded itself."""

VIDEO = 3e-3
"""Absolute tolerance of pixels in 0..1; the stored video is float16 (steps of 5e-4 near 1)."""


@dataclass(frozen=True)
class Row:
    """One compared tensor; ``error`` is what the tolerance bounds."""

    name: str
    relative: float
    absolute: float
    error: float
    tolerance: float

    @property
    def passed(self) -> bool:
        return self.error <= self.tolerance  # false for NaN

    def __str__(self) -> str:
        verdict = "ok" if self.passed else "FAILED"
        numbers = (
            f"relative {self.relative:.2e}  absolute {self.absolute:.2e}  tolerance {self.tolerance:.1e}"
        )
        return f"  {self.name:28s} {numbers}  {verdict}"


def relative_error(ours: Tensor, theirs: Tensor) -> float:
    """|ours - theirs| / |theirs| in the L2 norm, in float64."""
    ours, theirs = ours.double(), theirs.double()
    return float((ours - theirs).norm() / theirs.norm().clamp(min=1e-30))


def compare(name: str, ours: Tensor, theirs: Tensor) -> Row:
    """One row; another shape is an infinite error."""
    if ours.shape != theirs.shape:
        return Row(f"{name} {tuple(ours.shape)} != {tuple(theirs.shape)}", *(float("inf"),) * 3, 0.0)
    relative, absolute = relative_error(ours, theirs), float((ours.double() - theirs.double()).abs().max())
    error = absolute if name.endswith("video") else relative
    return Row(name, relative, absolute, error, tolerance(name))


def tolerance(name: str) -> float:
    """What the stored tensor of this name may differ by."""
    if name.endswith("video"):
        return VIDEO
    if name.startswith("clip"):
        return FIRST_CLIP if name.startswith("clip0.") else LATER_CLIPS
    return AUDIO


# Model cases


def run_model(
    models: MemoModels, vae: DiffusersVAE, golden: Mapping[str, Tensor], run: Mapping[str, Any]
) -> dict[str, Tensor]:
    """Generate the case's video from the stored noise and record what the golden file stores."""
    recorded: dict[str, Tensor] = {}

    def solver(velocity: Velocity, latents: Tensor, sigmas: Tensor) -> Tensor:
        latents = sample_euler(velocity, latents, sigmas)
        clip = sum(key.endswith(".latents") for key in recorded)
        recorded[f"clip{clip}.latents"] = latents
        return latents

    settings = SamplingSettings(
        steps=run["num_inference_steps"],
        guidance_scale=run["guidance_scale"],
        frames_per_clip=run["frames_per_clip"],
        past_frames=run["past_frames"],
        solver=solver,
    )
    voice = Voice(golden["audio_emb"], golden["audio_emotion"], golden["audio_emb"].shape[0])
    portrait = Portrait(golden["pixel_values"], golden["face_emb"])

    @contextmanager
    def record(denoiser: ClipDenoiser, sigmas: Tensor, clip: int) -> Iterator[Denoise]:
        recorded.setdefault("sigmas", sigmas)
        recorded[f"clip{clip}.audio_tokens"] = denoiser.context.audio_tokens[-1:]

        def denoise(latents: Tensor, timestep: Tensor) -> dict[str, Tensor]:
            step = sum(key.startswith(f"clip{clip}.step") for key in recorded)
            velocities = denoiser(latents, timestep)
            recorded[f"clip{clip}.step{step}.velocity"] = torch.cat(list(velocities.values()))
            return velocities

        yield denoise

    clips = generate_clips(
        models,
        vae,
        portrait,
        voice,
        settings,
        wrap_denoiser=record,
        draw_noise=lambda clip, _shape: golden[f"clip{clip}.noise"],
    )
    for clip in clips:
        recorded[f"clip{clip.index}.video"] = clip.frames.transpose(0, 1)[None]
    return recorded


def check_model(case: Path) -> list[Row]:
    """All tensors of a model case."""
    golden, run = load_file(case / "golden.safetensors"), json.loads((case / "run.json").read_text())
    models = load_memo(case / "checkpoint", dtype=torch.float32)
    vae = load_vae(case / "checkpoint" / "vae", dtype=torch.float32)
    ours = run_model(models, vae, golden, run)
    stored = [name for name in sorted(golden) if name in ours]
    missing = [
        name for name in golden if name.startswith("clip") and ".velocity" in name and name not in ours
    ]
    rows = [compare(name, ours[name], golden[name]) for name in stored]
    return rows + [Row(f"{name} was not computed", *(float("inf"),) * 3, 0.0) for name in missing]


# Audio cases


def check_audio(case: Path) -> list[Row]:
    """The audio features and the frame count of an audio case."""
    golden, run = load_file(case / "golden.safetensors"), json.loads((case / "run.json").read_text())
    encoder = load_wav2vec2(case / "wav2vec2")
    features = voice_features(
        load_audio(case / "speech.wav"),
        encoder,
        fps=run["fps"],
        frames_per_clip=run["num_generated_frames_per_clip"],
    )
    stored = int(golden["audio_length"])
    frames = Row("audio_length", 0.0, abs(features.embeddings.shape[0] - stored), 0.0, 0.0)
    if features.embeddings.shape[0] != stored:
        frames = Row(f"audio_length {features.embeddings.shape[0]} != {stored}", *(float("inf"),) * 3, 0.0)
    return [compare("audio_emb", features.embeddings, golden["audio_emb"]), frames]


def check(case: Path) -> bool:
    """Compare one case and print its table; True when every tensor is within its tolerance."""
    print(case)
    with torch.inference_mode():
        is_model = (case / "checkpoint").is_dir()
        rows = check_model(case) if is_model else check_audio(case)
    for row in rows:
        print(row)
    return bool(rows) and all(row.passed for row in rows)


def main(arguments: list[str] | None = None) -> int:
    """Check every case named on the command line."""
    parser = argparse.ArgumentParser(
        description="Compare this MEMO with stored results of upstream's own code."
    )
    parser.add_argument(
        "cases", nargs="+", type=Path, help="folders laid out as tests/goldens/README.md says"
    )
    options = parser.parse_args(arguments)
    results = [check(case) for case in options.cases]
    print(f"parity: {sum(results)} of {len(results)} cases within tolerance")
    return 0 if all(results) else 1


if __name__ == "__main__":
    raise SystemExit(main())
