"""Every reader of what a stranger may have made, with files or texts for it that are nearly right."""

from __future__ import annotations

import json
import math
import shutil
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path
from typing import Any
from unittest import mock

import torch
from hypothesis import strategies as st
from safetensors.torch import save_file

from memo_avatar.checkpoint import companions
from memo_avatar.checkpoint.companions import read_settings, read_vae, read_wav2vec2
from memo_avatar.files.header import read_header
from memo_avatar.files.json_file import parse_json, read_json
from memo_avatar.files.weights_file import read_all
from memo_avatar.model.config import (
    AudioProjectionConfig,
    ImageProjectionConfig,
    ReferenceUNetConfig,
    UNet3DConfig,
)
from memo_avatar.portrait.face_crop import check_margin, parse_box, plan_crop
from memo_avatar.portrait.face_places import mask_box
from memo_avatar.voice.emotions import parse_plan
from standalone import arguments
from standalone.batch.manifest import read_manifest
from standalone.face_inputs import load_face_embedding
from teacache_core import Calibration
from tests.fuzz.strategies import (
    NUMBERS,
    TEXTS,
    Strategy,
    changed,
    damaged,
    json_bytes,
    lines,
    safetensors_bytes,
)

ROOT = Path(__file__).resolve().parents[2]
DEMO = ROOT / "demo" / "checkpoint"
HEADER: dict[str, Any] = {
    "__metadata__": {"format": "pt"},
    "a.weight": {"dtype": "F32", "shape": [2, 3], "data_offsets": [0, 24]},
    "b.weight": {"dtype": "BF16", "shape": [4], "data_offsets": [24, 32]},
    "c": {"dtype": "I64", "shape": [], "data_offsets": [32, 40]},
}
CALIBRATION: dict[str, Any] = {
    "format": "teacache-calibration",
    "version": 1,
    "fingerprint": None,
    "coefficients": [1.0, 0.0],
    "range": [0.0, None],
    "r_squared": 0.9,
    "recordings": [
        {
            "sigmas": [1.0, 0.5],
            "signal_change": [0.1],
            "output_change": [0.2],
            "gram": [[1.0, 0.5], [0.5, 1.0]],
        }
    ],
}


@dataclass(frozen=True)
class Reader:
    """``read`` gives a value or raises one of our errors, for whatever ``given`` makes.

    ``has_neighbours``: what is given is bytes or a text.
    """

    given: Strategy
    read: Callable[[Any], object]
    has_neighbours: bool = True


@cache
def folder() -> Path:
    """Where the files are written; gone with the process's temporary folder."""
    path = Path(tempfile.mkdtemp(prefix="memo-fuzz-"))
    (path / "embedding").mkdir()
    save_file({"face": torch.ones(4)}, path / "embedding" / "face.safetensors")
    for part in ("vae", "wav2vec2"):
        shutil.copytree(DEMO / part, path / part)
    return path


def from_file(name: str, read: Callable[[Path], object]) -> Callable[[bytes], object]:
    """The reader of a file of that name in the folder."""

    def run(data: bytes) -> object:
        path = folder() / name
        path.write_bytes(data)
        return read(path)

    return run


def config_of(part: str) -> dict[str, Any]:
    return json.loads((DEMO / part / "config.json").read_text(encoding="utf-8"))


@cache
def shapes_of(part: str) -> dict[str, tuple[int, ...]]:
    stored = read_header(DEMO / part / "diffusion_pytorch_model.safetensors").tensors
    return {name: tensor.shape for name, tensor in stored.items()}


def infer(kind: Any, part: str, data: bytes) -> object:
    return kind.infer(parse_json(data.decode("utf-8", "replace"), part), shapes_of(part))


def read_calibration(path: Path) -> object:
    return Calibration.from_json(read_json(path), str(path))


def companion(read: Callable[[Path], object], path: Path) -> object:
    """Without reading the weights, which the same tests read elsewhere."""
    with mock.patch.object(companions, "read_tensors", lambda *_: {}):
        return read(path.parent)


def crop(values: tuple[list[float], float]) -> object:
    box, margin = values
    check_margin(margin)
    return plan_crop((box[0], box[1], box[2], box[3]), (640, 480), (512, 512), margin)


def parse_option(name: str, text: str) -> object:
    return arguments.parse_video(["--image", "p", "--audio", "a", "--output", "v.mp4", f"--{name}={text}"])


FINITE = st.floats(-1e4, 1e4)
MASKS = st.tuples(st.integers(0, 9), st.integers(0, 9), st.sampled_from([0.0, 1.0, math.nan, math.inf, -1.0]))
OPTIONS = ("steps", "seed", "size", "face-box", "face-crop", "face-index", "guidance-scale", "max-seconds",
           "rel-l1-thresh", "target-speedup", "emotion", "fps", "fit", "dtype")  # fmt: skip

READERS: dict[str, Reader] = {
    "header": Reader(safetensors_bytes(HEADER, 40), from_file("m.safetensors", read_header)),
    "tensors": Reader(safetensors_bytes(HEADER, 40), from_file("m.safetensors", read_all)),
    "bytes": Reader(st.binary(max_size=300), from_file("m.safetensors", read_all)),
    "demo.json": Reader(
        json_bytes({"size": 96, "guidance_scale": 1.5, "face_embeddings": False}),
        from_file("demo.json", read_settings),
    ),
    "VAE config": Reader(
        json_bytes(config_of("vae")), from_file("vae/config.json", partial(companion, read_vae))
    ),
    "wav2vec2 config": Reader(
        json_bytes(config_of("wav2vec2")),
        from_file("wav2vec2/config.json", partial(companion, read_wav2vec2)),
    ),
    **{
        f"{part} config": Reader(json_bytes(config_of(part)), partial(infer, kind, part))
        for part, kind in (
            ("diffusion_net", UNet3DConfig),
            ("reference_net", ReferenceUNetConfig),
            ("image_proj", ImageProjectionConfig),
            ("audio_proj", AudioProjectionConfig),
        )
    },
    "calibration": Reader(json_bytes(CALIBRATION), from_file("calibration.json", read_calibration)),
    "face embedding": Reader(
        safetensors_bytes({"face": {"dtype": "F32", "shape": [4], "data_offsets": [0, 16]}}, 16),
        from_file("embedding/face.safetensors", lambda path: load_face_embedding(path, 4)),
    ),
    "manifest": Reader(
        changed(["id,image,audio,steps", "one,p.png,a.wav,4", 'two,"p,q.png",b.wav,x'])
        .map(lambda rows: "\n".join(map(str, rows)) if isinstance(rows, list) else str(rows))
        .map(lambda text: text.encode("utf-8", "surrogatepass"))
        .flatmap(damaged),
        from_file("m.csv", read_manifest),
    ),
    "manifest lines": Reader(
        json_bytes({"id": "one", "image": "p.png", "audio": "a.wav", "steps": 4}),
        from_file("m.jsonl", read_manifest),
    ),
    "emotions": Reader(lines("0", "happy", "3.5", "sad", "auto", "1e308", "5s", "neutral"), parse_plan),
    "face box": Reader(lines("400", "300", "--5", "1e3", "7_0"), parse_box),
    "crop": Reader(st.tuples(st.lists(FINITE, min_size=4, max_size=4), st.floats()), crop, False),
    "mask": Reader(
        MASKS.map(lambda m: torch.full(m[:2], m[2])), lambda mask: mask_box(mask, (64, 48)), False
    ),
    "options": Reader(
        st.tuples(st.sampled_from(OPTIONS), st.one_of(TEXTS, NUMBERS.map(str))),
        lambda pair: parse_option(*pair),
        False,
    ),
}
