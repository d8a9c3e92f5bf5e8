"""Run many clips in this process and print, as JSON, its memory after each: resident MiB from /proc.

Usage: python measure_memory.py CHECKPOINT VIDEO CLIPS
"""

import json
import sys
from pathlib import Path

sys.path.append(str(Path(__file__).resolve().parents[2]))

import torch

from memo_avatar.checkpoint.load import load_memo
from memo_avatar.clips.loop import generate_clips
from memo_avatar.clips.values import SamplingSettings
from memo_avatar.inputs import Portrait, Voice
from memo_avatar.video.writer import VideoWriter
from standalone.vae import load_vae


def resident_mib() -> float:
    """VmRSS of this process."""
    status = Path("/proc/self/status").read_text()
    line = next(line for line in status.splitlines() if line.startswith("VmRSS:"))
    return int(line.split()[1]) / 1024


def main(checkpoint: Path, video: Path, clips: int) -> None:
    """Memory after every clip, of a loop that writes its video as the command does."""
    models = load_memo(checkpoint, dtype=torch.float32)
    vae = load_vae(checkpoint / "vae", dtype=torch.float32)
    frames = 16 * clips
    voice = Voice(torch.randn(frames, 5, 2, 16), torch.full((frames,), 4), frames)
    portrait = Portrait(torch.zeros(1, 3, 64, 64), torch.zeros(1, models.config.image_proj.embedding_dim))
    measured = []
    with VideoWriter(video, width=64, height=64) as writer:
        for clip in generate_clips(models, vae, portrait, voice, SamplingSettings(steps=1)):
            writer.write(clip.frames)
            measured.append(resident_mib())
    print(json.dumps(measured))


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3]))
