"""A ComfyUI user's folder for the tests: the pack in custom_nodes, a tiny checkpoint, a picture, a voice."""

from __future__ import annotations

import json
import math
import shutil
import struct
import wave
from pathlib import Path

ROOT = Path(__file__).resolve().parents[3]
PACK_NAME = "teacache-memo"
CHECKPOINT = "micro"
VOICE_SECONDS = 1.1  # 33 frames: three clips, the last of one frame
SIZE = 64


def make_user_folder(base: Path) -> Path:
    """What ComfyUI's --base-directory points at."""
    for name in ("custom_nodes", "models/memo", "input", "output", "temp", "user"):
        (base / name).mkdir(parents=True, exist_ok=True)
    (base / "custom_nodes" / PACK_NAME).symlink_to(ROOT, target_is_directory=True)
    write_checkpoint(base / "models" / "memo" / CHECKPOINT)
    write_picture(base / "input" / "portrait.png")
    write_voice(base / "input" / "voice.wav")
    return base


def write_checkpoint(folder: Path) -> None:
    """The stored reference nets with an audio encoder of their size beside them."""
    shutil.copytree(ROOT / "tests" / "goldens" / "micro" / "checkpoint", folder)
    write_wav2vec2(folder / "wav2vec2")
    (folder / "demo.json").write_text(json.dumps({"size": SIZE, "guidance_scale": 2.0}), encoding="utf-8")


def write_wav2vec2(folder: Path, width: int = 16, layers: int = 2, conv: int = 8, inner: int = 24) -> None:
    """Random weights in Hugging Face's layout, written without torch: the host suite starts in seconds."""
    import numpy as np
    from safetensors.numpy import save_file

    kernels, strides, positions, groups = (10, 3, 3, 3, 3, 2, 2), (5, 2, 2, 2, 2, 2, 2), 16, 2
    shapes: dict[str, tuple[int, ...]] = {
        f"feature_extractor.conv_layers.{i}.conv.weight": (conv, conv if i else 1, kernel)
        for i, kernel in enumerate(kernels)
    }
    norms = {"feature_extractor.conv_layers.0.layer_norm": conv, "feature_projection.layer_norm": conv}
    norms["encoder.layer_norm"] = width
    linears = {"feature_projection.projection": (width, conv)}
    for i in range(layers):
        layer = f"encoder.layers.{i}"
        norms |= {f"{layer}.layer_norm": width, f"{layer}.final_layer_norm": width}
        linears |= {f"{layer}.attention.{name}_proj": (width, width) for name in ("q", "k", "v", "out")}
        linears[f"{layer}.feed_forward.intermediate_dense"] = (inner, width)
        linears[f"{layer}.feed_forward.output_dense"] = (width, inner)
    position = "encoder.pos_conv_embed.conv"
    shapes[f"{position}.parametrizations.weight.original0"] = (1, 1, positions)
    shapes[f"{position}.parametrizations.weight.original1"] = (width, width // groups, positions)
    shapes[f"{position}.bias"] = (width,)
    shapes |= {f"{name}.weight": shape for name, shape in linears.items()}
    shapes |= {f"{name}.bias": shape[:1] for name, shape in linears.items()}
    random = np.random.default_rng(0)
    state = {name: 0.3 * random.standard_normal(shape, np.float32) for name, shape in shapes.items()}
    state |= {f"{name}.weight": np.ones(size, np.float32) for name, size in norms.items()}
    state |= {f"{name}.bias": np.zeros(size, np.float32) for name, size in norms.items()}
    folder.mkdir(parents=True)
    save_file(state, folder / "model.safetensors")
    config = {
        "model_type": "wav2vec2",
        "feat_extract_norm": "group",
        "do_stable_layer_norm": False,
        "conv_bias": False,
        "conv_dim": [conv] * len(kernels),
        "conv_kernel": kernels,
        "conv_stride": strides,
        "hidden_size": width,
        "intermediate_size": inner,
        "num_attention_heads": 2,
        "num_hidden_layers": layers,
        "num_conv_pos_embeddings": positions,
        "num_conv_pos_embedding_groups": groups,
        "layer_norm_eps": 1e-5,
    }
    (folder / "config.json").write_text(json.dumps(config), encoding="utf-8")


def write_picture(path: Path, size: int = SIZE) -> None:
    """A smooth square picture of exactly the video's size, so that fitting it changes nothing."""
    from PIL import Image

    pixels = bytes(
        value
        for y in range(size)
        for x in range(size)
        for value in (4 * x % 256, 4 * y % 256, (2 * x + 2 * y) % 256)
    )
    Image.frombytes("RGB", (size, size), pixels).save(path)


def write_voice(
    path: Path, seconds: float = VOICE_SECONDS, sample_rate: int = 16_000, channels: int = 1
) -> None:
    """A gliding tone as 16-bit WAV."""
    count = round(seconds * sample_rate)
    samples = []
    for index in range(count):
        t = index / sample_rate
        value = int(12_000 * math.sin(2 * math.pi * (140 + 60 * t) * t) * (0.4 + 0.6 * math.sin(7 * t) ** 2))
        samples += [value] * channels
    with wave.open(str(path), "wb") as out:
        out.setnchannels(channels)
        out.setsampwidth(2)
        out.setframerate(sample_rate)
        out.writeframes(struct.pack(f"<{len(samples)}h", *samples))
