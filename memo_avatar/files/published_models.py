"""Every model file that MEMO can use: where it comes from, where it goes, how large it is, what needs it.

The one table: `python teacache_memo.py models` and docs/models.md are written from it. Paths are relative to
a checkpoint's folder, `models/memo/<name>` in ComfyUI. Sizes are what the publishers' pages say, rounded; a
checksum is here only where it is known for certain.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from .config_json import CONFIG_NAME, WEIGHTS_NAME

HUB = "https://huggingface.co"
CONVERTED = "emotion2vec/model.safetensors"
"""What `convert-emotion` makes of emotion2vec's published pickle."""

CLASSIFIER = "misc/audio_emotion_classifier"
FACES = "face_analysis"
"""insightface's ONNX files, `models/*.onnx`; MEMO's repository has them under misc."""

SEPARATOR = "misc/vocal_separator/Kim_Vocal_2.onnx"


@dataclass(frozen=True)
class ModelFile:
    """One file. ``megabytes`` and ``sha256`` are None and "" where they are not known."""

    group: str
    path: str
    repository: str
    source: str
    megabytes: float | None = None
    sha256: str = ""

    @property
    def url(self) -> str:
        return f"{HUB}/{self.repository}/resolve/main/{self.source}"


GROUPS = {
    "memo": "always: MEMO itself",
    "vae": "always: latents to pictures and back (in ComfyUI any SD 1.5 VAE loader will do)",
    "wav2vec2": "always: what the voice says (in ComfyUI also Load Audio Encoder)",
    "face": "who speaks: identity tokens from the portrait's face; needs the package insightface",
    "vocals": "speech over music: separating the vocals; needs the package onnxruntime",
    "emotion": "emotion `auto`: hearing the emotion in the voice",
}
"""What each group of files is needed for, in the order of need."""

REQUIRED = ("memo", "vae", "wav2vec2")

_MEMO, _VAE, _WAV2VEC2 = "memoavatar/memo", "stabilityai/sd-vae-ft-mse", "facebook/wav2vec2-base-960h"
_EMOTION = "emotion2vec/emotion2vec_plus_large"
_NETS = {"diffusion_net": 6710.0, "reference_net": 3430.0, "audio_proj": 146.0, "image_proj": 6.3}


def _published(group: str, path: str, megabytes: float | None = None) -> ModelFile:
    """A file that stays where MEMO's repository has it."""
    return ModelFile(group, path, _MEMO, path, megabytes)


FILES: tuple[ModelFile, ...] = (
    *(_published("memo", f"{net}/{CONFIG_NAME}") for net in _NETS),
    *(_published("memo", f"{net}/{WEIGHTS_NAME}", size) for net, size in _NETS.items()),
    ModelFile("vae", f"vae/{CONFIG_NAME}", _VAE, CONFIG_NAME),
    ModelFile("vae", f"vae/{WEIGHTS_NAME}", _VAE, WEIGHTS_NAME, 335.0),
    ModelFile("wav2vec2", f"wav2vec2/{CONFIG_NAME}", _WAV2VEC2, CONFIG_NAME),
    ModelFile("wav2vec2", "wav2vec2/model.safetensors", _WAV2VEC2, "model.safetensors", 378.0),
    _published("face", "misc/face_analysis/models/scrfd_10g_bnkps.onnx"),
    _published("face", "misc/face_analysis/models/glintr100.onnx"),
    _published("vocals", SEPARATOR),
    _published("emotion", f"{CLASSIFIER}/{CONFIG_NAME}"),
    _published("emotion", f"{CLASSIFIER}/{WEIGHTS_NAME}"),
    ModelFile("emotion", "emotion2vec/model.pt", _EMOTION, "model.pt"),
)


def is_there(file: ModelFile, folder: Path) -> bool:
    """Whether the file, or what it is converted into, lies in its place."""
    path = folder / file.path
    return path.is_file() or (path.suffix == ".pt" and path.with_suffix(".safetensors").is_file())


def missing(folder: Path, groups: Iterable[str] = GROUPS) -> list[ModelFile]:
    """The files of these groups that are not in ``folder``."""
    wanted = set(groups)
    return [file for file in FILES if file.group in wanted and not is_there(file, folder)]


def status(folder: Path, groups: Sequence[str] = tuple(GROUPS)) -> str:
    """What is there and what is not, with sources and places; asks no network."""
    lines = [f"Models in {folder}"]
    for group in groups:
        lines += ["", f"{group}: {GROUPS[group]}"]
        for file in (file for file in FILES if file.group == group):
            mark = "there  " if is_there(file, folder) else "missing"
            size = "" if file.megabytes is None else f"  {format_size(file.megabytes)}"
            lines.append(f"  {mark}  {file.path}{size}")
            if mark == "missing":
                lines.append(f"           from {file.url}")
    count = len(missing(folder, groups))
    needed = len(missing(folder, [group for group in groups if group in REQUIRED]))
    lines += [
        "",
        f"{count} files are missing, {needed} of them always needed." if count else "All are there.",
    ]
    return "\n".join(lines)


def markdown() -> str:
    """The table of docs/models.md."""
    rows = [
        "| file, in the checkpoint's folder | source | size | sha256 | needed for |",
        "|---|---|---|---|---|",
    ]
    for file in FILES:
        link = f"[{file.repository}]({HUB}/{file.repository}) `{file.source}`"
        size = "" if file.megabytes is None else format_size(file.megabytes)
        rows.append(f"| `{file.path}` | {link} | {size} | {file.sha256} | {file.group} |")
    return "\n".join(rows)


def format_size(megabytes: float) -> str:
    """6710 -> 6.71 GB, 146 -> 146 MB."""
    return f"{megabytes / 1000:.2f} GB" if megabytes >= 1000 else f"{megabytes:g} MB"
