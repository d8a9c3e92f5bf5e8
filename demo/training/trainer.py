"""Training MEMO's nets on the cartoon world: one worker's loop, EMA weights, and resume."""

import copy
import logging
import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from diffusers import AutoencoderKL
from torch import nn

from ..speech import Utterance
from .dataset import FRAMES, Example, Examples, collate
from .muon import Muon
from .nets import build_models, parts, save_checkpoint
from .objective import flow_matching_loss, loss_weights
from .parallel import agree, average_gradients
from .voice import frame_features

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class TrainSettings:
    """How the nets are trained; `minutes` of wall clock decide the length, and the schedule follows them."""

    minutes: float
    seed: int = 0
    size: int = 96
    short_frames: int = 8  # frames per example at first, when the nets learn to see
    short_share: float = 0.45
    short_batch: int = 6  # examples per worker
    batch: int = 4
    pool: int = 120  # examples per worker before the first step
    refresh: int = 2  # a new example every so many steps
    lr: float = 8e-3
    adam_lr: float = 2e-3
    save_minutes: float = 4.0
    device: str = "cpu"


@dataclass
class Progress:
    """How far a run has come; what a training checkpoint counts."""

    step: int = 0
    seconds: float = 0.0


class Ema:
    """A running mean of the weights, slow once training is under way."""

    def __init__(self, module: nn.Module) -> None:
        self.module = copy.deepcopy(module).requires_grad_(False)

    @torch.no_grad()
    def update(self, module: nn.Module, step: int) -> None:
        """Move towards `module`."""
        decay = min(0.995, (1 + step) / (20 + step))
        mine, theirs = list(self.module.parameters()), list(module.parameters())
        torch._foreach_lerp_(mine, theirs, 1 - decay)


def learning_rate(share: float, step: int) -> float:
    """Warm-up, a plateau, and a cosine to a twentieth over the last 60 %."""
    fall = max(0.0, (share - 0.4) / 0.6)
    return min(1.0, (step + 1) / 60) * (0.525 + 0.475 * math.cos(math.pi * min(1.0, fall)))


def _state(net: nn.Module, ema: Ema, optimizer: Muon, progress: Progress) -> dict[str, Any]:
    return {
        "net": net.state_dict(),
        "ema": ema.module.state_dict(),
        "optimizer": optimizer.state_dict(),
        "step": progress.step,
        "seconds": progress.seconds,
    }


def _resume(path: Path, net: nn.Module, ema: Ema, optimizer: Muon) -> Progress:
    if not path.exists():
        return Progress()
    state = torch.load(path, map_location="cpu", weights_only=True)
    net.load_state_dict(state["net"])
    ema.module.load_state_dict(state["ema"])
    optimizer.load_state_dict(state["optimizer"])
    return Progress(state["step"], state["seconds"])


def _save(work: Path, models_ema: Any, state: dict[str, Any]) -> None:
    save_checkpoint(models_ema, work / "nets")
    torch.save(state, work / "training.tmp")
    (work / "training.tmp").replace(work / "training.pt")


def train_nets(
    rank: int,
    workers: int,
    work: Path,
    utterances: list[Utterance],
    wav2vec2: nn.Module,
    settings: TrainSettings,
    on_step: Callable[[float, str], None] | None = None,
) -> None:
    """Train until the clock is up: EMA weights in `work/nets`, what resume needs in `work/training.pt`."""
    vae = AutoencoderKL.from_pretrained(work / "vae").eval().to(settings.device)
    features = [frame_features(wav2vec2, u.waveform) for u in utterances]
    source = Examples(vae, utterances, features, settings.size)
    models = build_models(settings.seed)
    net = parts(models).to(settings.device)
    ema = Ema(net)
    optimizer = Muon(net.named_parameters(), lr=settings.lr, adam_lr=settings.adam_lr, weight_decay=0.05)
    progress = _resume(work / "training.pt", net, ema, optimizer)
    seeds = iter(range(1_000 + progress.step * workers * 10 + rank, 10**9, workers))
    torch.manual_seed(settings.seed + 7919 * rank + progress.step)
    pool: list[Example] = []
    while len(pool) < settings.pool:
        pool.append(source.make(next(seeds)))
        if rank == 0 and on_step is not None and len(pool) % 20 == 0:
            on_step(0.0, f"rendered {len(pool)} of {settings.pool} first clips")
    loop = _Loop(models, net, ema, optimizer, source, pool, seeds, settings, rank, workers)
    loop.run(work, progress, on_step)


@dataclass
class _Loop:
    """The state of a run; a class because every step touches all of it."""

    models: Any
    net: nn.Module
    ema: Ema
    optimizer: Muon
    source: Examples
    pool: list[Example]
    seeds: Any
    settings: TrainSettings
    rank: int
    workers: int

    def run(self, work: Path, progress: Progress, on_step: Callable[[float, str], None] | None) -> None:
        """Step until the share of the time is one, saving as it goes."""
        began, saved, loss = time.monotonic() - progress.seconds, time.monotonic(), 0.0
        share = 0.0
        while share < 1.0:
            progress.seconds = agree(time.monotonic() - began, self.workers)
            share = min(1.0, progress.seconds / (60 * self.settings.minutes))
            value = self.step(share, progress.step)
            loss = value if loss == 0 else 0.97 * loss + 0.03 * value
            progress.step += 1
            if self.rank:
                continue
            if on_step is not None and progress.step % 10 == 0:
                on_step(share, f"step {progress.step} loss {loss:.4f}")
            if share >= 1.0 or time.monotonic() - saved > 60 * self.settings.save_minutes:
                saved = time.monotonic()
                self.save(work, progress)

    def step(self, share: float, step: int) -> float:
        """One update; returns the loss."""
        short = share < self.settings.short_share
        count = self.settings.short_batch if short else self.settings.batch
        if step % self.settings.refresh == 0:
            self.pool[step // self.settings.refresh % len(self.pool)] = self.source.make(next(self.seeds))
        picks = torch.randperm(len(self.pool))[:count].tolist()
        batch = collate([self.pool[i] for i in picks], self.settings.short_frames if short else FRAMES)
        weights = loss_weights(*batch.reference.shape[-2:]).to(batch.reference)
        loss = flow_matching_loss(self.models, batch, weights)
        self.optimizer.zero_grad()
        loss.backward()
        parameters = [p for p in self.net.parameters() if p.requires_grad]
        average_gradients(parameters, self.workers)
        torch.nn.utils.clip_grad_norm_(parameters, 1.0)
        self.optimizer.step(learning_rate(share, step))
        self.ema.update(self.net, step)
        return loss.item()

    def save(self, work: Path, progress: Progress) -> None:
        """EMA weights for use, everything for resume."""
        names = ("diffusion_net", "reference_net", "image_proj", "audio_proj")
        models = type(self.models)(**{n: self.ema.module[n] for n in names}, config=self.models.config)
        _save(work, models, _state(self.net, self.ema, self.optimizer, progress))
        logger.info("saved step %d", progress.step)
