"""Under Windows' file rules: converting, also while a checkpoint is loaded and its file mapped."""

from pathlib import Path

import pytest
import torch

from memo_avatar.checkpoint.convert import convert
from memo_avatar.checkpoint.load import load_memo
from memo_avatar.files.disk import DiskError
from standalone.command import main
from tests.helpers.windows_rules import windows_rules

MICRO = Path(__file__).resolve().parents[2] / "goldens" / "micro" / "checkpoint"


def test_the_command_converts(tmp_path: Path) -> None:
    target = tmp_path / "memo.safetensors"
    with windows_rules() as refused:
        assert main(["convert", str(MICRO), str(target)]) == 0
        assert main(["convert", str(MICRO), str(target), "--dtype", "float16"]) == 0  # over the one before
    assert refused == []
    assert list(tmp_path.iterdir()) == [target]


def test_a_file_that_is_loaded_stays_and_the_new_one_is_kept_beside_it(tmp_path: Path) -> None:
    target = tmp_path / "memo.safetensors"
    convert(MICRO, target, torch.float32)
    before = target.read_bytes()
    models = load_memo(target)
    with windows_rules(), pytest.raises(DiskError, match=r"kept as memo \(1\)\.safetensors"):
        convert(MICRO, target, torch.bfloat16)
    assert target.read_bytes() == before
    assert load_memo(tmp_path / "memo (1).safetensors").image_proj.proj.weight.dtype is torch.bfloat16
    assert models.image_proj.proj.weight.isfinite().all()
