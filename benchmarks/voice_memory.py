"""Memory and time of the voice front-end at real sizes, and what windows change.

    python -m benchmarks.voice_memory piece --minutes 10     one piece, wav2vec2-base at its real size
    python -m benchmarks.voice_memory windows --minutes 20   in windows, as voices over ten minutes go
    python -m benchmarks.voice_memory hour                   an hour in windows, the demo's wav2vec2
    python -m benchmarks.voice_memory emotion --minutes 2    emotion2vec_plus_large at its real size
    python -m benchmarks.voice_memory seams --minutes 4      windows against one piece, the demo's wav2vec2

The weights of real size are random: memory and time do not depend on their values. Peak memory is that of the
whole process, Python and torch included. The last line is JSON.
"""

from __future__ import annotations

import argparse
import gc
import json
import platform
import resource
import time
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from memo_avatar.timing import FPS, SAMPLE_RATE
from memo_avatar.torch_ops import sdpa_attention
from memo_avatar.voice.emotion2vec import Emotion2vecConfig, EmotionNet
from memo_avatar.voice.emotions import hear_emotions
from memo_avatar.voice.features import VoiceFeatures, voice_features
from memo_avatar.voice.sound_files import load_audio
from memo_avatar.voice.wav2vec2 import Wav2Vec2
from memo_avatar.voice.windows import WindowPlan
from standalone.models import load_wav2vec2

ROOT = Path(__file__).resolve().parent.parent
WAV2VEC2_BASE: dict[str, Any] = {
    "conv_dim": [512] * 7,
    "conv_kernel": [10, 3, 3, 3, 3, 2, 2],
    "conv_stride": [5, 2, 2, 2, 2, 2, 2],
    "hidden_size": 768,
    "num_hidden_layers": 12,
    "num_attention_heads": 12,
    "intermediate_size": 3072,
    "num_conv_pos_embeddings": 128,
    "num_conv_pos_embedding_groups": 16,
    "layer_norm_eps": 1e-5,
}
EMOTION2VEC_LARGE = Emotion2vecConfig(
    kernels=(10, 3, 3, 3, 3, 2, 2),
    conv_width=512,
    conv_layer_norm=True,
    width=1024,
    hidden=4096,
    heads=16,
    alibi_scale=(1, 1, 16, 1, 1),
    extra_tokens=10,
    pos_depth=5,
    pos_kernel=19,
    pos_groups=16,
    prenet_depth=8,
    depth=16,
)
CLASSIFIER = (1024, 2048, 2048, 2048, 2048, 9)


def resident_mib() -> float:
    """What this process holds now."""
    status = Path("/proc/self/status").read_text(encoding="utf-8")
    return int(next(line for line in status.splitlines() if line.startswith("VmRSS:")).split()[1]) / 1024


def peak_mib() -> float:
    """The most that this process ever held."""
    scale = 1024 if platform.system() == "Linux" else 1024**2
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / scale


def noise(minutes: float) -> Tensor:
    """A recording of that length."""
    return torch.randn(round(60 * minutes * SAMPLE_RATE), generator=torch.Generator().manual_seed(0)) * 0.1


def demo_speech() -> Tensor:
    """44 s of speech that the demo's training never heard."""
    return load_audio(ROOT / "demo" / "held_out.wav")


def base_encoder() -> Wav2Vec2:
    return Wav2Vec2(WAV2VEC2_BASE, attention=sdpa_attention, operations=nn).eval().requires_grad_(False)


def demo_encoder() -> Wav2Vec2:
    return load_wav2vec2(ROOT / "demo" / "checkpoint" / "wav2vec2")


def measure_voice(encoder: Wav2Vec2, waveform: Tensor, plan: WindowPlan) -> dict[str, Any]:
    """Peak memory and time of one voice; the resident memory once it is a tenth, two tenths, … done."""
    before, started = resident_mib(), time.monotonic()
    held: list[int] = []

    def watch(share: float) -> None:
        if share * 10 >= len(held) + 1:
            held.append(round(resident_mib()))

    features = voice_features(waveform, encoder, windows=plan, on_layer=watch)
    return {
        "minutes": round(len(waveform) / SAMPLE_RATE / 60, 2),
        "frames": features.num_frames,
        "seconds": round(time.monotonic() - started, 1),
        "before_mib": round(before),
        "peak_mib": round(peak_mib()),
        "resident_by_tenths_mib": held,
    }


def piece(minutes: float) -> dict[str, Any]:
    return measure_voice(base_encoder(), noise(minutes), WindowPlan(one_piece_seconds=60 * minutes))


def windows(minutes: float) -> dict[str, Any]:
    return measure_voice(base_encoder(), noise(minutes), WindowPlan(one_piece_seconds=0))


def hour(_minutes: float) -> dict[str, Any]:
    return measure_voice(demo_encoder(), noise(60), WindowPlan())


@torch.inference_mode()
def emotion(minutes: float) -> dict[str, Any]:
    """Every second's emotion, as upstream hears it: three seconds of sound for each."""
    net = EmotionNet(EMOTION2VEC_LARGE, CLASSIFIER, operations=nn).eval()
    waveform, before, started = noise(minutes), resident_mib(), time.monotonic()
    labels = hear_emotions(waveform, net, round(60 * minutes * FPS))
    seconds = time.monotonic() - started
    return {
        "minutes": minutes,
        "parameters_millions": round(sum(p.numel() for p in net.parameters()) / 1e6),
        "frames": len(labels),
        "seconds": round(seconds, 1),
        "seconds_per_minute": round(seconds / minutes, 1),
        "before_mib": round(before),
        "peak_mib": round(peak_mib()),
    }


def seams(minutes: float) -> dict[str, Any]:
    """Windows of several sizes against one piece, on the demo's held-out speech and its trained net."""
    encoder, speech = demo_encoder(), demo_speech()
    waveform = speech.repeat(round(2 * minutes))[: round(60 * minutes * SAMPLE_RATE)]
    whole = rows_of(voice_features(waveform, encoder))
    rows = {}
    for window, overlap in ((120, 20), (60, 10), (30, 10), (30, 4), (10, 2)):
        plan = WindowPlan(one_piece_seconds=0, window_seconds=window, overlap_seconds=overlap)
        rows[f"{window} s, {overlap} s shared"] = compare(
            whole, voice_features(waveform, encoder, windows=plan), plan
        )
        gc.collect()
    for name, row in rows.items():
        print(f"{name:22}" + "  ".join(f"{key} {value:.2e}" for key, value in row.items()))
    return {"seams": rows}


def rows_of(features: VoiceFeatures) -> Tensor:
    """(N, L, D): each frame's own states."""
    return features.embeddings[:, 2]


def compare(whole: Tensor, parts: VoiceFeatures, plan: WindowPlan) -> dict[str, float]:
    """Relative differences: of everything, of the frames at the seams, and the worst frame's."""
    found = rows_of(parts) if isinstance(parts.embeddings, Tensor) else parts.embeddings[:, 2]
    error = (found - whole).flatten(1).norm(dim=1) / whole.flatten(1).norm(dim=1)
    near = torch.zeros(len(whole), dtype=torch.bool)
    for centre in seam_centres(plan, len(whole)):
        near[max(0, centre - FPS) : centre + FPS] = True
    return {
        "mean": float(error.mean()),
        "at seams": float(error[near].mean()),
        "worst frame": float(error.max()),
        "jump at seams": jump(found, whole, near),
    }


def jump(found: Tensor, whole: Tensor, near: Tensor) -> float:
    """How much more the states move from frame to frame near the seams than they do in one piece."""
    moved = [states.diff(dim=0).flatten(1).norm(dim=1)[near[1:]].mean() for states in (found, whole)]
    return float(moved[0] / moved[1] - 1)


def seam_centres(plan: WindowPlan, num_frames: int) -> Iterator[int]:
    spans = plan.spans(num_frames)
    for earlier, later in pairwise(spans):
        yield (earlier[1] + later[0]) // 2


SCENARIOS = {"piece": piece, "windows": windows, "hour": hour, "emotion": emotion, "seams": seams}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("scenario", choices=SCENARIOS)
    parser.add_argument("--minutes", type=float, default=10.0)
    options = parser.parse_args()
    found = SCENARIOS[options.scenario](options.minutes)
    machine = {"torch": torch.__version__, "threads": torch.get_num_threads(), "cpu": platform.machine()}
    print(json.dumps({"scenario": options.scenario} | found | machine))


if __name__ == "__main__":
    main()
