"""The stand-in for Windows' file rules refuses what Windows refuses; our files are written whole in it."""

import os
import shutil
from pathlib import Path

import pytest
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

from memo_avatar.files.disk import DiskError, remove, replacing
from tests.helpers.windows_rules import windows_rules


def test_an_open_file_can_be_neither_replaced_nor_removed_nor_moved(tmp_path: Path) -> None:
    held, other = tmp_path / "held", tmp_path / "other"
    other.write_text("")
    with held.open("w"), windows_rules() as refused:
        for refuse in (
            lambda: os.replace(other, held),
            lambda: os.replace(held, other),
            held.unlink,
            lambda: shutil.rmtree(tmp_path),
        ):
            with pytest.raises(PermissionError):
                refuse()
        with pytest.raises(SafetensorError, match="os error 5"):
            save_file({"x": torch.zeros(1)}, held)
    assert refused == ["replace held", "replace held", "unlink held", "unlink held", "save held"]


def test_a_mapped_file_cannot_be_replaced_until_its_tensors_are_gone(tmp_path: Path) -> None:
    held, other = tmp_path / "held.safetensors", tmp_path / "other"
    save_file({"x": torch.ones(1000)}, held)
    other.write_text("new")
    with safe_open(str(held), framework="pt") as stored:
        tensor = stored.get_tensor("x")
    with windows_rules():
        with pytest.raises(PermissionError):
            os.replace(other, held)
        assert tensor.sum() == 1000
        del tensor, stored
        os.replace(other, held)
    assert held.read_text() == "new"


def test_a_device_name_is_no_target(tmp_path: Path) -> None:
    (tmp_path / "v").write_text("")
    with windows_rules(), pytest.raises(OSError, match="denied"):
        os.replace(tmp_path / "v", tmp_path / "CON.mp4")


def test_tensors_are_saved_over_an_old_file_of_ours(tmp_path: Path) -> None:
    path = tmp_path / "state.safetensors"
    with windows_rules() as refused:
        for value in (1.0, 2.0):
            with replacing(path) as part:
                save_file({"x": torch.full((4,), value)}, part)
    assert refused == []
    assert [item.name for item in tmp_path.iterdir()] == ["state.safetensors"]


def test_a_video_that_a_player_has_open_is_kept_beside_it(tmp_path: Path) -> None:
    path = tmp_path / "v.mp4"
    path.write_text("old")
    kept = pytest.raises(DiskError, match=r"kept as v \(1\)\.mp4")
    with path.open(), windows_rules(), kept, replacing(path) as part:
        part.write_text("new")
    assert (tmp_path / "v (1).mp4").read_text() == "new"


def test_cleaning_up_leaves_what_is_open_and_goes_on(tmp_path: Path) -> None:
    work = tmp_path / "work"
    work.mkdir()
    for name in ("a", "held", "z"):
        (work / name).write_text("")
    with (work / "held").open(), windows_rules():
        remove(work)
    assert [item.name for item in work.iterdir()] == ["held"]
