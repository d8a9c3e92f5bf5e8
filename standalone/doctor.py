"""`teacache_memo.py doctor`: what a bug report needs, in one text. No path but the models' folders."""

from __future__ import annotations

import importlib.metadata
import platform
import shutil
import time
from collections.abc import Sequence
from pathlib import Path

import torch

from memo_avatar.checkpoint.load import CheckpointError, open_checkpoint
from memo_avatar.files import published_models

from .arguments import DEMO_CHECKPOINT, Parser
from .models import select_device, select_dtype
from .models_command import default_folder

PACKAGES = ("torch", "diffusers", "safetensors", "numpy", "av", "pillow", "tqdm")
OPTIONAL = {
    "imageio": "GIF, WebP, APNG, PNG frames",
    "insightface": "faces",
    "onnxruntime": "vocals",
    "ray": "batch --ray",
}
_GB = 1e9
_STEPS, _STEP_TERAFLOPS, _REFERENCE_TERAFLOPS = 20, 50.85, 24.30
"""Of a clip at 512x512 with guidance, counted by `python -m benchmarks.flops`."""

_SIDE, _PRODUCTS = 1024, 8


def doctor(arguments: Sequence[str]) -> int:
    """Print it; the exit status."""
    parser = Parser(
        prog="teacache_memo.py doctor",
        allow_abbrev=False,
        description="Versions, device, model files: the text to put into a bug report.",
    )
    parser.add_argument("--folder", type=Path, default=default_folder(), metavar="DIR",
        help="of MEMO's weights (default: where models download puts them)")  # fmt: skip
    options = parser.parse_args(arguments)
    device = select_device(None)
    for lines in (_machine(device), _packages(), _models(options.folder), _clip(device)):
        print("\n".join(lines), end="\n\n")
    return 0


def _machine(device: torch.device) -> list[str]:
    dtype = str(select_dtype(None, device)).removeprefix("torch.")
    lines = [
        f"System: {platform.system()} {platform.release()} ({platform.machine()}), "
        f"Python {platform.python_version()}",
        f"Device: {_name(device)}, computes in {dtype} by default",
        f"Disk: {shutil.disk_usage(Path.cwd()).free / _GB:.1f} GB free here",
    ]
    if device.type == "cuda":
        free, total = torch.cuda.mem_get_info(device)
        lines.append(f"Memory of the device: {free / _GB:.1f} of {total / _GB:.1f} GB free")
    return lines


def _name(device: torch.device) -> str:
    if device.type == "cuda":
        return f"{torch.cuda.get_device_name(device)} (CUDA {torch.version.cuda})"
    return f"{device.type}, {torch.get_num_threads()} threads" if device.type == "cpu" else device.type


def _packages() -> list[str]:
    lines = ["Packages: " + ", ".join(f"{name} {_version(name) or 'MISSING'}" for name in PACKAGES)]
    for name, use in OPTIONAL.items():
        lines.append(f"  {name}: {_version(name) or 'not there'} ({use})")
    return lines


def _version(name: str) -> str | None:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return None


def _models(folder: Path) -> list[str]:
    lines = [f"Bundled model: {_whole(DEMO_CHECKPOINT)}", f"Weights in {folder}:"]
    for file in published_models.FILES:
        path = folder / file.path
        lines.append(f"  {_state(path) if path.exists() else 'missing'}  {file.path}")
    return lines


def _state(path: Path) -> str:
    if problem := published_models.damage(path):
        return f"DAMAGED: {problem}"
    word = "whole" if path.suffix == ".safetensors" else "there"
    return f"{word}, {path.stat().st_size / 1e6:.1f} MB"


def _whole(checkpoint: Path) -> str:
    try:
        open_checkpoint(checkpoint)
    except CheckpointError as error:
        return f"DAMAGED: {error}"
    return "whole"


def _clip(device: torch.device) -> list[str]:
    """What MEMO's own size takes, from the speed of matrix products: no clip is faster than that."""
    dtype = select_dtype(None, device)
    work = _STEPS * _STEP_TERAFLOPS + _REFERENCE_TERAFLOPS
    stored = sum(file.megabytes or 0 for file in published_models.FILES if file.group == "memo") / 1000
    weights = stored * dtype.itemsize / torch.float32.itemsize
    speed = _teraflops(device, dtype)
    return [
        f"A clip of 16 frames at 512x512 in {_STEPS} steps: {work:.0f} teraflops, at {speed:.2f} a second "
        f"here (matrix products) at least {work / speed:.0f} s without a step cache; weights {weights:.1f} GB"
    ]


def _teraflops(device: torch.device, dtype: torch.dtype) -> float:
    """Teraflops a second of square matrix products, the best of three tries."""
    matrix = torch.ones(_SIDE, _SIDE, device=device, dtype=dtype)
    best = 0.0
    for _ in range(3):
        started = time.perf_counter()
        for _ in range(_PRODUCTS):
            product = matrix @ matrix
        float(product[0, 0])  # waits for the device
        best = max(best, 2 * _SIDE**3 * _PRODUCTS / (time.perf_counter() - started) / 1e12)
    return best
