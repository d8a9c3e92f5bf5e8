"""`unfinished` lists what nobody went on with, and removes it when told; nothing else, and nothing in use."""

from __future__ import annotations

import os
import time
from dataclasses import replace
from itertools import islice
from pathlib import Path

import pytest

from memo_avatar.video.left_over import NODES_ROOT, root_beside
from memo_avatar.video.unfinished import Unfinished
from standalone.command import main
from tests.helpers.fake_video import FakeVideo

VIDEO = FakeVideo()
DAY = 86400


def leave(root: Path, video: FakeVideo, name: str, days: float) -> Path:
    """A video that was stopped after two clips, so many days ago."""
    with Unfinished.open(root, video.key, name) as work:
        work.fill(islice(video.clips(), 2), video.delivery())
    for path in work.folder.iterdir():
        os.utime(path, (time.time() - days * DAY,) * 2)
    return work.folder


@pytest.fixture
def old(tmp_path: Path) -> Path:
    """Of a node, in the output folder."""
    return leave(tmp_path / NODES_ROOT, VIDEO, "talk", 12)


@pytest.fixture
def new(tmp_path: Path) -> Path:
    """Of the command, beside its output, in a folder of it."""
    output = tmp_path / "friday" / "说话.mp4"
    return leave(root_beside(output), replace(VIDEO, fps=25), output.name, 0.5)


def test_they_are_listed_the_oldest_first_and_nothing_is_removed(
    old: Path, new: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["unfinished", str(tmp_path)]) == 0
    first, second, total = capsys.readouterr().out.splitlines()
    assert first.startswith("talk  12 days  2 clips  ") and first.endswith(f" MB  {old}")
    assert second.startswith("说话.mp4  12.0 hours  2 clips  ") and second.endswith(f" MB  {new}")
    assert total.startswith("Unfinished: 2, ") and total.endswith("with --remove removes them.")
    assert old.exists() and new.exists()


def test_only_those_that_are_old_enough_are_removed_and_only_when_told(
    old: Path, new: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["unfinished", str(tmp_path), "--older-than", "7", "--remove"]) == 0
    assert "Removed: 1 of 1." in capsys.readouterr().out
    assert not old.parent.exists(), "the empty folder goes, too"
    assert new.exists()


def test_what_is_being_made_now_stays(old: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with Unfinished.open(old.parent, VIDEO.key):
        assert main(["unfinished", str(tmp_path), "--remove"]) == 1
    assert f"Kept: {old} (it is being made now" in capsys.readouterr().out
    assert (old / "clip_000001.mp4").is_file()


def test_folders_of_others_and_links_are_nobodys_business(
    old: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    elsewhere = tmp_path / "mine"
    foreign = elsewhere / "0123456789abcdef"
    foreign.mkdir(parents=True)
    (foreign / "clip_000000.mp4").write_text("mine")
    (old.parent / "fedcba9876543210").symlink_to(foreign, target_is_directory=True)
    (tmp_path / ".unfinished-0123456789ab").symlink_to(elsewhere, target_is_directory=True)
    assert main(["unfinished", str(tmp_path), "--remove"]) == 0
    assert "Removed: 1 of 1." in capsys.readouterr().out
    assert (foreign / "clip_000000.mp4").read_text() == "mine"


def test_a_damaged_state_is_listed_without_a_name(
    old: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (old / "state.safetensors").write_bytes(b"?")
    assert main(["unfinished", str(old.parent)]) == 0, "the folder of unfinished videos itself"
    assert capsys.readouterr().out.startswith("?  ")


def test_nothing_there_and_no_folder(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["unfinished", str(tmp_path)]) == 0
    assert capsys.readouterr().out == "Unfinished: 0, 0.0 MB.\n"
    assert main(["unfinished", str(tmp_path / "none")]) == 2
    assert "Error: expected a folder but got" in capsys.readouterr().err
    assert main(["unfinished", "--older-than", "-1"]) == 2
    assert "expected 0 days or more but got -1" in capsys.readouterr().err


def test_one_that_cannot_be_looked_into_hides_no_other(
    old: Path, new: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Another user's, or on Windows one that is just going."""
    look = Path.iterdir

    def denied(path: Path) -> object:
        if path == old:
            raise PermissionError(13, "Permission denied", str(path))
        return look(path)

    monkeypatch.setattr(Path, "iterdir", denied)
    assert main(["unfinished", str(tmp_path)]) == 0
    first, total = capsys.readouterr().out.splitlines()
    assert first.startswith("说话.mp4  ") and total.startswith("Unfinished: 1, ")
