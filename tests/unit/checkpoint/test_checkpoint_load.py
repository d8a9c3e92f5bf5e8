"""Checkpoints load as they were stored, in any dtype, within the promised memory."""

import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from memo_avatar.checkpoint.convert import convert
from memo_avatar.checkpoint.load import PARTS, load_memo, open_checkpoint
from memo_avatar.checkpoint.parts import metadata_of
from memo_avatar.files.header import header_bytes
from memo_avatar.files.weights_file import CHUNK_BYTES, tensor_bytes
from memo_avatar.model.nets import MemoModels, build_models
from memo_avatar.torch_ops import sdpa_attention

ROOT = Path(__file__).resolve().parents[3]
MICRO = ROOT / "tests" / "goldens" / "micro" / "checkpoint"


def weights(models: MemoModels) -> Iterator[tuple[str, str, torch.Tensor]]:
    for part in PARTS:
        for key, tensor in getattr(models, part).state_dict().items():
            yield part, key, tensor


def test_the_folder_loads_as_stored() -> None:
    models = load_memo(MICRO)
    assert models.dtype is torch.float16
    stored = {part: load_file(MICRO / part / "diffusion_pytorch_model.safetensors") for part in PARTS}
    assert sum(1 for _ in weights(models)) == sum(len(tensors) for tensors in stored.values())
    for part, key, tensor in weights(models):
        assert torch.equal(tensor, stored[part][key]), (part, key)
        assert not tensor.requires_grad
    assert not models.diffusion_net.training


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16], ids=str)
def test_a_converted_file_equals_the_folder(tmp_path: Path, dtype: torch.dtype) -> None:
    file = tmp_path / "memo.safetensors"
    convert(MICRO, file, dtype)
    from_file, from_folder = load_memo(file), load_memo(MICRO, dtype=dtype)
    assert from_file.dtype is from_folder.dtype is dtype
    assert from_file.config == from_folder.config
    for (part, key, ours), (_, _, theirs) in zip(weights(from_file), weights(from_folder), strict=True):
        assert ours.dtype is dtype
        assert torch.equal(ours, theirs), (part, key)
    configs = [open_checkpoint(path).parts["diffusion_net"].config for path in (file, MICRO)]
    assert configs[0] == configs[1]


def test_a_file_loads_in_another_dtype_and_reports_progress(tmp_path: Path) -> None:
    file = tmp_path / "memo.safetensors"
    convert(MICRO, file, torch.float32)
    seen: list[tuple[int, int]] = []
    checkpoint = open_checkpoint(file)
    models = checkpoint.load(dtype=torch.bfloat16, progress=lambda done, total: seen.append((done, total)))
    assert models.dtype is torch.bfloat16
    assert checkpoint.dtype is torch.float32
    assert seen[-1] == (checkpoint.nbytes(torch.bfloat16),) * 2


def test_converting_a_single_file_again_changes_nothing(tmp_path: Path) -> None:
    first, second = tmp_path / "first.safetensors", tmp_path / "second.safetensors"
    convert(MICRO, first, torch.float16)
    convert(first, second, torch.float16)
    assert first.read_bytes() == second.read_bytes()


def write_large(path: Path, dtype: torch.dtype) -> int:
    """A loadable single file of the micro structure, eight times as wide; returns its weights' bytes."""
    micro, width = open_checkpoint(MICRO), {"block_out_channels": (256,) * 4}
    nets = {
        name: replace(getattr(micro.config, name), **width) for name in ("diffusion_net", "reference_net")
    }
    config = replace(micro.config, **nets)
    models = build_models(config, operations=torch.nn, attention=sdpa_attention, device="meta")
    shapes = {f"{part}.{key}": tuple(tensor.shape) for part, key, tensor in weights(models)}
    configs = {name: {**part.config} for name, part in micro.parts.items()}
    for name in nets:
        configs[name]["block_out_channels"] = [256] * 4
    with path.open("wb") as out:
        out.write(header_bytes(shapes, dtype, metadata_of(configs)))
        for shape in shapes.values():
            out.write(tensor_bytes(torch.full(shape, 0.5, dtype=dtype)))
    return sum(torch.Size(shape).numel() for shape in shapes.values()) * dtype.itemsize


# The libraries' own memory is no part of it: torch alone takes 220 MiB without CUDA, 510 MiB with it.
MEASURE_PEAK = """
import sys, torch
from memo_avatar.checkpoint.load import load_memo
def read(name):
    status = open("/proc/self/status").read().splitlines()
    return next(int(line.split()[1]) for line in status if line.startswith(name))
before = read("VmRSS")
models = load_memo(sys.argv[1], dtype=getattr(torch, sys.argv[2]))
print(read("VmHWM") - before)
"""


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="peak memory is read from /proc (Linux)")
@pytest.mark.parametrize(
    ("stored", "compute"),
    [("float32", "bfloat16"), ("bfloat16", "bfloat16"), ("float32", "float32")],
)
def test_peak_memory_of_loading(tmp_path: Path, stored: str, compute: str) -> None:
    file = tmp_path / "large.safetensors"
    stored_bytes = write_large(file, getattr(torch, stored))
    compute_bytes = stored_bytes // getattr(torch, stored).itemsize * getattr(torch, compute).itemsize
    command = [sys.executable, "-c", MEASURE_PEAK, str(file), compute]
    run = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    # A piece as it was read and as it was converted are all that the reader holds beside the weights.
    peak, limit = int(run.stdout) * 1024, 1.2 * compute_bytes + 2 * CHUNK_BYTES
    assert peak <= limit, f"{peak / 2**20:.0f} MiB for {compute_bytes / 2**20:.0f} MiB of weights"
    print(f"{stored} -> {compute}: {peak / 2**20:.0f} MiB of at most {limit / 2**20:.0f}")
