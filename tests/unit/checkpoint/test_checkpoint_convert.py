"""Converting writes the whole file or nothing, and refuses destinations that would do harm."""

import shutil
from pathlib import Path

import pytest
import torch
from safetensors import safe_open

from memo_avatar.checkpoint import convert as converting
from memo_avatar.checkpoint import load
from memo_avatar.checkpoint.convert import convert
from memo_avatar.checkpoint.load import PARTS, CheckpointError, open_checkpoint
from memo_avatar.files.disk import DiskError

MICRO = Path(__file__).resolve().parents[2] / "goldens" / "micro" / "checkpoint"


def test_the_file_is_plain_safetensors_with_configs(tmp_path: Path) -> None:
    convert(MICRO, tmp_path / "memo.safetensors", torch.bfloat16)
    with safe_open(str(tmp_path / "memo.safetensors"), framework="pt") as file:
        assert len(list(file.keys())) == 1324 + 414 + 4 + 8
        assert set(file.metadata()) == {"format", *(f"{part}.config" for part in PARTS)}
        assert file.get_tensor("image_proj.proj.weight").dtype is torch.bfloat16
    assert list(tmp_path.iterdir()) == [tmp_path / "memo.safetensors"]


def test_progress_ends_at_the_total(tmp_path: Path) -> None:
    seen: list[tuple[int, int]] = []
    convert(MICRO, tmp_path / "memo.safetensors", torch.float32, lambda *done_total: seen.append(done_total))
    assert seen == sorted(seen)
    assert seen[-1][0] == seen[-1][1] == open_checkpoint(MICRO).nbytes(torch.float32)


@pytest.mark.parametrize("interruption", [KeyboardInterrupt, RuntimeError])
def test_an_interruption_leaves_what_was_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, interruption: type[BaseException]
) -> None:
    monkeypatch.setattr(load, "REPORT_BYTES", 2**20)
    old = tmp_path / "memo.safetensors"
    old.write_bytes(b"the one before")

    def interrupt(done: int, total: int) -> None:
        assert done < total
        raise interruption

    with pytest.raises(interruption):
        convert(MICRO, old, torch.float32, interrupt)
    assert old.read_bytes() == b"the one before"
    assert list(tmp_path.iterdir()) == [old]


def test_weights_that_are_not_finite_leave_nothing(tmp_path: Path) -> None:
    source = Path(shutil.copytree(MICRO, tmp_path / "source"))
    file = source / "image_proj" / "diffusion_pytorch_model.safetensors"
    data = bytearray(file.read_bytes())
    data[-2:] = b"\x00\x7e"  # a float16 NaN
    file.write_bytes(data)
    with pytest.raises(CheckpointError, match="got NaN or infinity"):
        convert(source, tmp_path / "memo.safetensors", torch.bfloat16)
    assert list(tmp_path.iterdir()) == [source]


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("source/memo.safetensors", "expected a file outside the source but got one inside it"),
        ("source/deep/../memo.safetensors", "expected a file outside the source but got one inside it"),
        ("memo.ckpt", "expected a name that ends in .safetensors but got memo.ckpt"),
        ("memo", "expected a name that ends in .safetensors but got memo"),
        ("folder.safetensors", "expected a file but got a folder"),
        ("nowhere/memo.safetensors", "expected an existing folder but got none"),
    ],
)
def test_destinations_that_are_refused(tmp_path: Path, name: str, expected: str) -> None:
    source = Path(shutil.copytree(MICRO, tmp_path / "source"))
    (source / "deep").mkdir()
    (tmp_path / "folder.safetensors").mkdir()
    with pytest.raises((CheckpointError, DiskError), match=expected):
        convert(source, tmp_path / name, torch.bfloat16)


def test_a_file_is_not_converted_onto_itself(tmp_path: Path) -> None:
    file = tmp_path / "memo.safetensors"
    convert(MICRO, file, torch.float32)
    with pytest.raises(DiskError, match="apart from the inputs"):
        convert(file, file, torch.bfloat16)


def test_an_unknown_dtype_is_refused(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"expected float32, bfloat16 or float16 but got torch\.int8"):
        convert(MICRO, tmp_path / "memo.safetensors", torch.int8)


def test_a_full_disk_is_seen_before_writing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    usage = shutil.disk_usage(tmp_path)._replace(free=1000)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage)
    with pytest.raises(DiskError, match=r"expected 11 MB of free space but got 0 MB"):
        convert(MICRO, tmp_path / "memo.safetensors", torch.float32)
    assert list(tmp_path.iterdir()) == []


def test_a_disk_that_fills_up_while_writing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(converting, "_write_tensors", fail)
    with pytest.raises(DiskError, match=r"expected to write memo\.safetensors but got: No space left"):
        convert(MICRO, tmp_path / "memo.safetensors", torch.float32)
    assert list(tmp_path.iterdir()) == []
