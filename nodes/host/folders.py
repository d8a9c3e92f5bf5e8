"""Where the pack's files lie in a user's ComfyUI: checkpoints, calibrations, the bundled demo."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import folder_paths

from ...memo_avatar.checkpoint.companions import VAE_FOLDER, WAV2VEC2_FOLDER, face_folders, home
from ...memo_avatar.checkpoint.load import PARTS, CheckpointError
from ...memo_avatar.files.published_models import FACES

FOLDER = "memo"
DEMO = "cartoons only: demo, 96x96"
"""What counts comes first: a node in the page shows some fifteen letters of it."""
OLD_DEMOS = ("demo: cartoons only, 96x96", "demo (comes with the pack)")
"""Its names in workflows of before; they still run."""
DEMO_FOLDER = Path(__file__).resolve().parents[2] / "demo" / "checkpoint"
_MARK = "diffusion_net"  # a folder with this in it is a checkpoint
_COMPANIONS = {*PARTS, VAE_FOLDER, WAV2VEC2_FOLDER, FACES, "misc", "emotion2vec", "calibrations", ".git"}


def register_folder() -> None:
    """models/memo, and whatever a user's extra_model_paths.yaml adds."""
    folder_paths.add_model_folder_path(FOLDER, str(Path(folder_paths.models_dir) / FOLDER))
    folder_paths.folder_names_and_paths[FOLDER][1].update({".safetensors"})


def save_folder(inner: str = "") -> Path:
    """models/memo, as the nodes say, and no other folder that extra_model_paths.yaml puts before it."""
    folder = Path(folder_paths.models_dir) / FOLDER / inner
    with suppress(OSError):  # whoever writes there says what is wrong
        folder.mkdir(parents=True, exist_ok=True)
    return folder


def find_checkpoints() -> dict[str, Path]:
    """Name -> path of everything that can be loaded: folders, single files, the bundled demo."""
    found = {DEMO: DEMO_FOLDER} if (DEMO_FOLDER / _MARK).is_dir() else {}
    for root in map(Path, folder_paths.get_folder_paths(FOLDER)):
        for path in _search(root):
            name = root.name if path == root else path.relative_to(root).as_posix()
            found.setdefault(name, path)
    return found


def _search(root: Path) -> Iterator[Path]:
    """Checkpoints at any depth, each once, links followed as the host does; no parts of a checkpoint."""
    seen: set[str] = set()
    for folder, inner, files in os.walk(root, followlinks=True):
        path, real = Path(folder), os.path.realpath(folder)
        if real in seen:  # a link to a folder above itself would never end
            inner.clear()
            continue
        seen.add(real)
        if _MARK in inner:
            yield path
        inner[:] = sorted(set(inner) - _COMPANIONS)
        yield from (path / name for name in sorted(files) if name.endswith(".safetensors"))


def find_checkpoint(name: str) -> Path | None:
    """The path of a combo's name, of today's or of before; None where there is no such checkpoint."""
    return find_checkpoints().get(DEMO if name in OLD_DEMOS else name)


def find_begun(name: str) -> Path | None:
    """The folder of this name in models/memo in which no checkpoint is yet: its download may have begun."""
    if any(other.startswith(f"{name}/") for other in find_checkpoints()):
        return None
    roots = map(Path, folder_paths.get_folder_paths(FOLDER))
    folders = (path for root in roots if root.is_dir() for path in root.iterdir() if path.is_dir())
    return next((path for path in folders if path.name == name and name not in _COMPANIONS), None)


def checkpoint_path(name: str) -> Path:
    """The same, or an error that says what to do."""
    found = find_checkpoint(name)
    if found is None:
        folders = " or ".join(folder_paths.get_folder_paths(FOLDER))
        raise CheckpointError(
            f"expected a MEMO checkpoint but got {name!r}, which is not there ({folders}). "
            "Put the folder with diffusion_net, reference_net, image_proj and audio_proj in it, or a "
            "single file made by MEMO Save Checkpoint, and press R to refresh."
        )
    return found


def face_places(checkpoint: Path) -> list[Path]:
    """Where the face models' ONNX files may lie: in models/memo, with the checkpoint, or where other packs
    keep the same two. The first is what a message names.
    """
    roots = [Path(folder) for folder in folder_paths.get_folder_paths(FOLDER)]
    ours = face_folders([*roots, home(checkpoint)])
    theirs = Path(folder_paths.models_dir) / "insightface"
    return [*ours, theirs / "models" / "antelopev2", theirs / "antelopev2"]


CALIBRATIONS = "calibrations"


def find_calibrations() -> dict[str, Path]:
    """Name -> file of what TeaCache Calibrate has saved, sub-folders included."""
    found: dict[str, Path] = {}
    for root in map(Path, folder_paths.get_folder_paths(FOLDER)):
        folder = root / CALIBRATIONS
        for path in sorted(path for path in folder.rglob("*.json") if path.is_file()):
            found.setdefault(path.relative_to(folder).with_suffix("").as_posix(), path)
    return found
