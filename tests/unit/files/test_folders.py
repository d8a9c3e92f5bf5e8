"""A folder that is finished takes its name, and the place of what had it."""

import os
from pathlib import Path

import pytest

from memo_avatar.files.disk import place_folder


def test_a_folder_gets_its_name_when_all_in_it_is_on_the_disk_and_the_one_before_goes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    part, folder = tmp_path / ".0.part", tmp_path / "frames"
    for path, text in ((part / "0.png", "new"), (part / "1.png", "new"), (folder / "0.png", "old")):
        path.parent.mkdir(exist_ok=True)
        path.write_text(text)
    real, synced = os.fsync, set[int]()
    wanted = {path.stat().st_ino for path in part.iterdir()}

    def fsync(descriptor: int) -> None:
        assert folder.joinpath("1.png").exists() or (folder / "0.png").read_text() == "old"
        synced.add(os.fstat(descriptor).st_ino)
        real(descriptor)

    monkeypatch.setattr(os, "fsync", fsync)
    place_folder(part, folder)
    assert synced >= wanted
    assert list(tmp_path.iterdir()) == [folder]
    assert {path.name: path.read_text() for path in folder.iterdir()} == {"0.png": "new", "1.png": "new"}


def test_where_the_name_cannot_be_given_the_folder_before_stays(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    part, folder, real = tmp_path / ".0.part", tmp_path / "frames", os.replace
    part.mkdir()
    folder.mkdir()
    (folder / "0.png").write_text("old")

    def failing(source: Path, target: Path) -> None:
        if source == part:
            raise PermissionError("held")
        real(source, target)

    monkeypatch.setattr(os, "replace", failing)
    with pytest.raises(PermissionError):
        place_folder(part, folder)
    assert (folder / "0.png").read_text() == "old" and part.is_dir()
