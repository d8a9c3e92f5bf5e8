"""Train the demo model from nothing: speech, wav2vec2, VAE, then MEMO's nets. Figures: demo/README.md.

    python -m demo.train --minutes 180

Every stage leaves its result in the work folder and is skipped when it is there; the longest one also resumes
from its last checkpoint, so the same command continues an interrupted run.
"""

import argparse
import json
import logging
import shutil
from collections.abc import Callable
from pathlib import Path

import torch
from diffusers import AutoencoderKL
from tqdm import tqdm
from transformers import Wav2Vec2FeatureExtractor, Wav2Vec2Model

from .speech import build_corpus
from .training.autoencoder import refine_decoder, train_vae
from .training.parallel import run_workers
from .training.trainer import TrainSettings, train_nets
from .training.voice import train_wav2vec2

GUIDANCE_SCALE = 1.5
SHARES = {"wav2vec2": 0.05, "vae": 0.18, "nets": 0.66, "decoder": 0.11}


class _Bar:
    """A progress bar over a share of 1, with the time left and a line of text."""

    def __init__(self, title: str) -> None:
        self.bar = tqdm(
            total=1000,
            desc=title,
            bar_format="{desc}: {percentage:3.0f}%|{bar:20}| {elapsed}<{remaining}{postfix}",
        )

    def __call__(self, share: float, text: str) -> None:
        self.bar.set_postfix_str(text, refresh=False)
        self.bar.update(round(1000 * share) - self.bar.n)
        self.bar.refresh()


def _bar(rank: int, title: str) -> Callable[[float, str], None] | None:
    return _Bar(title) if rank == 0 else None


def _wav2vec2_stage(rank: int, _workers: int, work: Path, minutes: float, seed: int) -> None:
    utterances = build_corpus(work / "speech", seed=seed)
    train_wav2vec2(work / "wav2vec2", utterances, minutes=minutes, seed=seed, on_step=_bar(rank, "wav2vec2"))


def _vae_stage(rank: int, workers: int, work: Path, minutes: float, seed: int, device: str) -> None:
    train_vae(rank, workers, work / "vae", minutes, seed, device=device, on_step=_bar(rank, "vae"))


def _nets_stage(rank: int, workers: int, work: Path, settings: TrainSettings) -> None:
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    utterances = build_corpus(work / "speech", seed=settings.seed)
    wav2vec2 = Wav2Vec2Model.from_pretrained(work / "wav2vec2").eval()  # nosec B615
    train_nets(rank, workers, work, utterances, wav2vec2, settings, _bar(rank, "nets"))


def _decoder_stage(rank: int, workers: int, work: Path, minutes: float, seed: int, device: str) -> None:
    folders = (work / "vae", work / "vae_refined")
    refine_decoder(rank, workers, *folders, minutes, seed, device=device, on_step=_bar(rank, "decoder"))


def assemble(work: Path, target: Path) -> None:
    """The shipped checkpoint: float16, upstream's layout, and demo.json with the recommended settings."""
    shutil.copytree(work / "nets", target, dirs_exist_ok=True)
    refined = work / "vae_refined"
    # Folders that this program wrote, no downloads: nothing to pin.
    vae = AutoencoderKL.from_pretrained(refined if refined.exists() else work / "vae")  # nosec B615
    vae.half().save_pretrained(target / "vae")
    wav2vec2 = Wav2Vec2Model.from_pretrained(work / "wav2vec2")  # nosec B615
    wav2vec2.half().save_pretrained(target / "wav2vec2")
    extractor = Wav2Vec2FeatureExtractor.from_pretrained(work / "wav2vec2")  # nosec B615
    extractor.save_pretrained(target / "wav2vec2")
    settings = {"guidance_scale": GUIDANCE_SCALE, "size": 96, "face_embeddings": False, "photographs": False}
    (target / "demo.json").write_text(json.dumps(settings, indent=2) + "\n")


def main() -> None:
    """Run every stage whose result is missing."""
    parser = argparse.ArgumentParser(description="Train the demo model.")
    parser.add_argument("--minutes", type=float, default=180, help="wall clock for the whole training")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--workers", type=int, default=2, help="processes of one thread, one per CPU core")
    parser.add_argument("--device", default="cpu", help="with cuda, use one worker")
    parser.add_argument("--work", type=Path, default=Path("demo/work"), help="where stages keep results")
    parser.add_argument("--out", type=Path, default=Path("demo/checkpoint"))
    options = parser.parse_args()
    work, workers, seed = options.work, options.workers, options.seed
    work.mkdir(parents=True, exist_ok=True)
    minutes = {stage: share * options.minutes for stage, share in SHARES.items()}
    if not (work / "wav2vec2").exists():
        run_workers(_wav2vec2_stage, 1, work, minutes["wav2vec2"], seed)
    if not (work / "vae").exists():
        run_workers(_vae_stage, workers, work, minutes["vae"], seed, options.device)
    if not (work / "nets.done").exists():
        run_workers(_nets_stage, workers, work, TrainSettings(minutes["nets"], seed, device=options.device))
        (work / "nets.done").touch()
    if not (work / "vae_refined").exists():
        run_workers(_decoder_stage, workers, work, minutes["decoder"], seed, options.device)
    assemble(work, options.out)


if __name__ == "__main__":
    torch.set_flush_denormal(True)
    main()
