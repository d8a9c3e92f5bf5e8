"""Every model file that MEMO can use: where it comes from, where it goes, how large it is, what needs it.

The one table: `python teacache_memo.py models` and docs/models.md are written from it. Paths are relative to
a checkpoint's folder, `models/memo/<name>` in ComfyUI. Sizes are what the publishers' pages say; a checksum
is here only where independent records of a revision agree on it.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from .config_json import CONFIG_NAME, WEIGHTS_NAME
from .disk import open_regular
from .foreign import LONGEST_START, CheckpointError, counted, kind_of
from .header import read_header
from .json_file import read_json
from .limits import MAX_CONFIG_BYTES, MAX_UNKNOWN_BYTES

HUB = "https://huggingface.co"
CONVERTED = "emotion2vec/model.safetensors"
"""What `convert-emotion` makes of emotion2vec's published pickle."""

CLASSIFIER = "misc/audio_emotion_classifier"
FACES = "face_analysis"
"""insightface's ONNX files, `models/*.onnx`; MEMO's repository has them under misc."""

SEPARATOR = "misc/vocal_separator/Kim_Vocal_2.onnx"


@dataclass(frozen=True)
class ModelFile:
    """One file. ``megabytes`` is None and ``sha256`` "" where they are not known; with a checksum the
    ``revision`` is the one that has it.
    """

    group: str
    path: str
    repository: str
    source: str
    megabytes: float | None = None
    sha256: str = ""
    revision: str = "main"

    @property
    def url(self) -> str:
        return f"{HUB}/{self.repository}/resolve/{self.revision}/{self.source}"

    @property
    def most(self) -> int:
        """Bytes that a download may have."""
        if self.path.endswith(".json"):
            return MAX_CONFIG_BYTES
        return MAX_UNKNOWN_BYTES if self.megabytes is None else round(1.05e6 * self.megabytes)


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
_THERE = "there"

_MEMO, _EMOTION = "memoavatar/memo", "emotion2vec/emotion2vec_plus_large"
_NETS = {"diffusion_net": 6710.0, "reference_net": 3430.0, "audio_proj": 146.0, "image_proj": 6.3}


def _published(group: str, path: str, megabytes: float | None = None) -> ModelFile:
    """A file that stays where MEMO's repository has it."""
    return ModelFile(group, path, _MEMO, path, megabytes)


def _pinned(group: str, repository: str, revision: str, *files: tuple[str, float, str]) -> list[ModelFile]:
    """Files of another project, by name, size and checksum at a revision."""
    return [
        ModelFile(group, f"{group}/{name}", repository, name, megabytes, sha256, revision)
        for name, megabytes, sha256 in files
    ]


FILES: tuple[ModelFile, ...] = (
    *(_published("memo", f"{net}/{CONFIG_NAME}") for net in _NETS),
    *(_published("memo", f"{net}/{WEIGHTS_NAME}", size) for net, size in _NETS.items()),
    *_pinned(
        "vae",
        "stabilityai/sd-vae-ft-mse",
        "31f26fdeee1355a5c34592e401dd41e45d25a493",
        (CONFIG_NAME, 0.000547, "92d3dfb746fca211a2c9e019e285f8597412211728dce3c5bcf4eda0f2d62e7e"),
        (WEIGHTS_NAME, 334.643276, "a1d993488569e928462932c8c38a0760b874d166399b14414135bd9c42df5815"),
    ),
    *_pinned(
        "wav2vec2",
        "facebook/wav2vec2-base-960h",
        "22aad52d435eb6dbaf354bdad9b0da84ce7d6156",
        (CONFIG_NAME, 0.001596, "d3ec255c063d9f95057b553b19c20135b259875834a4fe9deb218a6be25b4cf3"),
        ("model.safetensors", 377.607901, "8aa76ab2243c81747a1f832954586bc566090c83a0ac167df6f31f0fa917d74a"),
    ),
    _published("face", f"misc/{FACES}/models/scrfd_10g_bnkps.onnx"),
    _published("face", f"misc/{FACES}/models/glintr100.onnx"),
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


def damage(path: Path) -> str | None:
    """What is wrong with a file that is there, as far as its start, its header and its length tell."""
    try:
        if path.suffix == ".safetensors":
            read_header(path)
        elif path.suffix == ".json":
            read_json(path, most=MAX_CONFIG_BYTES)
        else:
            return _foreign_start(path)
    except CheckpointError as error:
        return str(error)
    return None


def _foreign_start(path: Path) -> str | None:
    """Of an ONNX file or a pickle, which have no header that could be read safely."""
    try:
        with open_regular(path) as stream:
            start = stream.read(LONGEST_START)
    except OSError as error:
        return error.strerror or str(error)
    what = kind_of(start) if start else "an empty file"
    return None if what is None or "pickle" in what else f"expected a model but got {what} ({path})."


def to_fetch(folder: Path, groups: Iterable[str] = GROUPS) -> list[ModelFile]:
    """The files of these groups that are missing or damaged."""
    wanted = set(groups)
    return [file for file in FILES if file.group in wanted and _mark(file, folder) != _THERE]


def _mark(file: ModelFile, folder: Path) -> str:
    if not is_there(file, folder):
        return "missing"
    path = folder / file.path
    return "damaged" if path.is_file() and damage(path) else _THERE


def status(folder: Path, groups: Sequence[str] = tuple(GROUPS)) -> str:
    """What is there and what is not, with sources and places; asks no network."""
    lines, wanted = [f"Models in {folder}"], list[ModelFile]()
    for group in groups:
        lines += ["", f"{group}: {GROUPS[group]}"]
        for file in (file for file in FILES if file.group == group):
            mark = _mark(file, folder)
            size = "" if file.megabytes is None else f"  {format_size(file.megabytes)}"
            lines.append(f"  {mark:7}  {file.path}{size}")
            if mark != _THERE:
                wanted.append(file)
                lines.append(f"           from {file.url}")
    needed = sum(file.group in REQUIRED for file in wanted)
    lines += ["", "All are there."]
    if wanted:
        lines[-1] = f"{counted(len(wanted), 'file')} missing or damaged, {needed} of them always needed."
    return "\n".join(lines)


def markdown() -> str:
    """The table of docs/models.md."""
    rows = [
        "| file, in the checkpoint's folder | size | checked by | needed for |",
        "|---|---|---|---|",
    ]
    for file in FILES:
        size = "not said" if file.megabytes is None else format_size(file.megabytes)
        check = f"sha256 `{file.sha256}` of revision `{file.revision[:12]}`" if file.sha256 else "size alone"
        rows.append(f"| [{file.path}]({file.url}) | {size} | {check} | {file.group} |")
    return "\n".join(rows)


def format_size(megabytes: float) -> str:
    """6710 -> 6.71 GB, 146 -> 146 MB, 0.0016 -> 1.6 kB."""
    if megabytes >= 1000:
        return f"{megabytes / 1000:.2f} GB"
    return f"{megabytes:.3g} MB" if megabytes >= 1 else f"{1000 * megabytes:.2g} kB"
