"""Training clips: rendered people who say an utterance, encoded once by the frozen VAE.

An example is a clip as the clip loop meets it: the reference image, every second frame of the clip before,
16 frames and their audio features. New people keep arriving while training runs, so few are seen often.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from diffusers import AutoencoderKL
from torch import Tensor
from torch.nn import functional

from ..faces import EMOTIONS, TRAINED_EMOTIONS, Pose, render, sample_people, stack_people
from ..motion import video_poses
from ..speech import Utterance
from .autoencoder import SCALING_FACTOR
from .voice import windows

FRAMES = 16
PAST = 16
PAST_STRIDE = 2
NEUTRAL = 4
# A video's own past slowly turns into somebody else. So in most examples some traits of the person in the
# past are another's: the reference image alone says who it is, the past says where the head is.
STRANGER_PROBABILITY = 0.85
STRANGER_SHARE = 0.6


@dataclass(frozen=True)
class Example:
    """One training clip; latents are scaled to unit deviation."""

    reference: Tensor  # (4, h, w)
    past: Tensor  # (PAST / PAST_STRIDE, 4, h, w)
    frames: Tensor  # (16, 4, h, w)
    audio: Tensor  # (16, 5, layers, D)
    emotion: int
    first: bool  # the clip before is the reference image itself


def draw_emotion(generator: torch.Generator) -> int:
    """Mostly the five trained classes, at times one of the classes that borrow a face."""
    if torch.rand(1, generator=generator) < 0.1:
        return int(torch.randint(len(EMOTIONS), (1,), generator=generator))
    return TRAINED_EMOTIONS[int(torch.randint(len(TRAINED_EMOTIONS), (1,), generator=generator))]


class Examples:
    """Makes examples, each determined by its seed."""

    def __init__(
        self, vae: AutoencoderKL, utterances: Sequence[Utterance], features: Sequence[Tensor], size: int = 96
    ) -> None:
        self.device = next(vae.parameters()).device
        self.vae, self.utterances, self.features, self.size = vae, utterances, features, size

    @torch.no_grad()
    def make(self, seed: int) -> Example:
        """Render and encode one example."""
        generator = torch.Generator().manual_seed(seed)

        def chance(probability: float) -> bool:
            return bool(torch.rand(1, generator=generator) < probability)

        number = int(torch.randint(len(self.utterances), (1,), generator=generator))
        mouth = self.utterances[number].mouth
        start = int(torch.randint(mouth.shape[0] - FRAMES, (1,), generator=generator))
        first = chance(0.35)
        emotion = draw_emotion(generator)
        earlier = draw_emotion(generator) if chance(0.2) else emotion
        # One timeline: the past, the clip, and a stretch from which the portrait is taken.
        index = torch.arange(start - PAST, start + FRAMES).clamp(min=0)
        labels = torch.tensor([earlier] * PAST + [emotion] * FRAMES)
        poses = video_poses(mouth[index][None], labels[None], generator)
        portrait = _portrait_pose(generator)
        if first:
            # A first clip goes on from the portrait's own pose.
            for name in ("x", "y", "roll", "yaw", "gaze"):
                getattr(portrait, name)[:] = getattr(poses, name)[PAST - 1]
        keep = torch.arange(PAST, PAST + FRAMES)
        if not first:
            keep = torch.cat([torch.arange(1, PAST, PAST_STRIDE), keep])
        person = sample_people(1, seed)
        past_person = person
        if chance(STRANGER_PROBABILITY):
            past_person = person.mixed(sample_people(1, seed + 10**9), STRANGER_SHARE, generator)
        drawn = [past_person] * (len(keep) - FRAMES) + [person] * FRAMES
        pixels = torch.cat(
            [
                render(person, portrait, self.size),
                render(stack_people(drawn), poses.index(keep), self.size),
            ]
        )
        latents = self.vae.encode((pixels * 2 - 1).to(self.device)).latent_dist.mode() * SCALING_FACTOR
        past = latents[:1].expand(PAST // PAST_STRIDE, -1, -1, -1) if first else latents[1:-FRAMES]
        audio = windows(self.features[number], start, FRAMES).to(self.device)
        return Example(latents[0], past, latents[-FRAMES:], audio, emotion, first)


def _portrait_pose(generator: torch.Generator) -> Pose:
    """Mostly neutral with the mouth shut, at times anything."""
    plain = torch.rand(2, generator=generator) < 0.7
    label = NEUTRAL if plain[0] else draw_emotion(generator)
    opening = 0.0 if plain[1] else float(torch.rand(1, generator=generator))
    return video_poses(torch.tensor([[[opening, 0.5]]]), torch.tensor([[label]]), generator)


@dataclass(frozen=True)
class Batch:
    """Examples side by side, and what chance decided about each: uncond rows come first."""

    reference: Tensor  # (B, 4, h, w)
    past: Tensor  # (B, P, 4, h, w)
    frames: Tensor  # (B, F, 4, h, w)
    audio: Tensor  # (B, F, 5, layers, D)
    emotion: Tensor  # (B,)
    first: Tensor  # (B,) bool
    uncond: int


def degrade(latents: Tensor) -> Tensor:
    """Past frames (B, P, 4, h, w) as a video's own past looks: noisy, blotchy, off in colour."""
    rows, height, width = latents.shape[0], *latents.shape[-2:]
    noise = 0.3 * torch.rand(rows, 1, 1, 1, 1).to(latents) * torch.randn_like(latents)
    blotches = functional.interpolate(torch.randn(rows, 4, 4, 4), (height, width), mode="bicubic")[:, None]
    noise = noise + 0.4 * torch.rand(rows, 1, 1, 1, 1).to(latents) * blotches.to(latents)
    shift = 0.15 * torch.randn(rows, 1, 4, 1, 1)
    gain = 1 + 0.1 * torch.randn(rows, 1, 4, 1, 1)
    keep = (torch.rand(rows, 1, 1, 1, 1) < 0.1).to(latents)
    return keep * latents + (1 - keep) * (latents * gain.to(latents) + shift.to(latents) + noise)


def collate(examples: Sequence[Example], frames: int = FRAMES, uncond_probability: float = 0.1) -> Batch:
    """A batch of `frames` frames per example, with classifier-free drop-out decided."""
    uncond = int((torch.rand(len(examples)) < uncond_probability).sum())
    return Batch(
        reference=torch.stack([e.reference for e in examples]),
        past=torch.stack([e.past for e in examples]),
        frames=torch.stack([e.frames[:frames] for e in examples]),
        audio=torch.stack([e.audio[:frames] for e in examples]),
        emotion=torch.tensor([e.emotion for e in examples], device=examples[0].frames.device),
        first=torch.tensor([e.first for e in examples], device=examples[0].frames.device),
        uncond=uncond,
    )
