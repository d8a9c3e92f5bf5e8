"""Making, replacing and removing files, where others have them open, protect them, or plant links."""

import errno
import logging
import os
import stat
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from memo_avatar.files import disk
from memo_avatar.files.disk import (
    DiskError,
    make_folder,
    make_part,
    place,
    place_new,
    remove,
    reopen,
    replacing,
    try_place,
    write_new,
)
from memo_avatar.files.names import alternatives


def write(path: Path, text: str) -> None:
    with replacing(path) as part:
        part.write_text(text)


def names(folder: Path) -> list[str]:
    return sorted(item.name for item in folder.iterdir())


@pytest.fixture
def no_replace(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing called old.* can be replaced, as where another program has it open."""
    real = os.replace

    def refuse(source: Path, target: Path) -> None:
        if Path(target).stem == "old":
            raise PermissionError(errno.EACCES, "Permission denied", str(target))
        real(source, target)

    monkeypatch.setattr(os, "replace", refuse)


def test_a_written_file_takes_its_name_at_the_end_and_leaves_nothing_else(tmp_path: Path) -> None:
    path = tmp_path / "old.txt"
    path.write_text("old")
    with replacing(path) as part:
        part.write_text("new")
        assert path.read_text() == "old"
    assert path.read_text() == "new"
    assert names(tmp_path) == ["old.txt"]


def test_an_error_in_the_block_leaves_what_was_there(tmp_path: Path) -> None:
    path = tmp_path / "old.txt"
    path.write_text("old")
    with pytest.raises(KeyboardInterrupt), replacing(path) as part:
        part.write_text("half")
        raise KeyboardInterrupt
    assert path.read_text() == "old"
    assert names(tmp_path) == ["old.txt"]


def test_a_saved_file_is_as_readable_as_any_other(tmp_path: Path) -> None:
    plain, saved = tmp_path / "plain", tmp_path / "saved.safetensors"
    plain.write_text("")
    with replacing(saved) as part:
        save_file({"x": torch.zeros(2)}, part)
    assert stat.S_IMODE(saved.stat().st_mode) == stat.S_IMODE(plain.stat().st_mode)


def test_a_name_of_the_longest_kind_can_be_written(tmp_path: Path) -> None:
    path = tmp_path / ("w" * 251 + ".mp4")
    write(path, "whole")
    assert path.read_text() == "whole"


@pytest.mark.usefixtures("no_replace")
def test_a_finished_file_that_cannot_replace_the_old_one_is_kept_beside_it(tmp_path: Path) -> None:
    path = tmp_path / "old.txt"
    path.write_text("old")
    (tmp_path / "old (1).txt").write_text("of yesterday")
    with pytest.raises(DiskError, match=r"kept as old \(2\).txt") as caught:
        write(path, "new")
    assert path.read_text() == "old"
    assert caught.value.kept is not None
    assert caught.value.kept.read_text() == "new"
    assert names(tmp_path) == ["old (1).txt", "old (2).txt", "old.txt"]
    assert "\n" not in str(caught.value)


def test_the_name_beside_a_very_long_one_is_cut_to_fit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, real = tmp_path / ("说" * 83 + ".mp4"), os.replace
    path.write_text("old")

    def refuse(source: Path, target: Path) -> None:
        if target == path:
            raise PermissionError(errno.EACCES, "Permission denied", str(target))
        real(source, target)

    monkeypatch.setattr(os, "replace", refuse)
    with pytest.raises(DiskError) as caught:
        write(path, "new")
    assert caught.value.kept is not None
    assert caught.value.kept.name.endswith("说 (1).mp4")
    assert caught.value.kept.read_text() == "new"


def test_where_nothing_can_be_renamed_the_finished_file_stays_and_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(_source: Path, _target: Path) -> None:
        raise PermissionError(errno.EACCES, "Permission denied")

    monkeypatch.setattr(os, "replace", refuse)
    monkeypatch.setattr(os, "link", refuse)
    with pytest.raises(DiskError) as caught:
        write(tmp_path / "out.txt", "new")
    assert caught.value.kept is not None
    assert caught.value.kept.name in str(caught.value)
    assert caught.value.kept.read_text() == "new"
    assert names(tmp_path) == [caught.value.kept.name]


def test_windows_scanner_holds_the_file_only_for_a_moment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real, calls = os.replace, []

    def busy_twice(source: Path, target: Path) -> None:
        calls.append(target)
        if len(calls) <= 2:
            error = PermissionError(errno.EACCES, "Access is denied")
            error.winerror = 5
            raise error
        real(source, target)

    monkeypatch.setattr(os, "replace", busy_twice)
    write(tmp_path / "out.txt", "new")
    assert (tmp_path / "out.txt").read_text() == "new"


def numbered(folder: Path) -> Iterator[Path]:
    return (folder / f"race_{number:05}_.txt" for number in range(1, 100))


def test_a_number_is_taken_when_the_file_is_written(tmp_path: Path) -> None:
    part = make_part(tmp_path)
    part.write_text("mine")
    (tmp_path / "race_00001_.txt").write_text("theirs")
    assert place_new(part, numbered(tmp_path)).name == "race_00002_.txt"
    assert (tmp_path / "race_00001_.txt").read_text() == "theirs"
    assert (tmp_path / "race_00002_.txt").read_text() == "mine"
    assert names(tmp_path) == ["race_00001_.txt", "race_00002_.txt"]


def test_a_number_is_taken_in_one_step(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A process that is killed in between would leave an empty file of that name."""
    part = make_part(tmp_path)
    part.write_text("mine")
    monkeypatch.setattr(disk, "_touch", lambda _path: pytest.fail("an empty file was made"))
    assert place_new(part, numbered(tmp_path)).read_text() == "mine"
    assert names(tmp_path) == ["race_00001_.txt"]


def test_a_folder_that_knows_no_hard_links_gives_numbers_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(_source: Path, _target: Path) -> None:
        raise OSError(errno.EPERM, "Operation not permitted")

    monkeypatch.setattr(os, "link", refuse)
    (tmp_path / "race_00001_.txt").write_text("theirs")
    part = make_part(tmp_path)
    part.write_text("mine")
    assert place_new(part, numbered(tmp_path)).name == "race_00002_.txt"
    assert names(tmp_path) == ["race_00001_.txt", "race_00002_.txt"]


def test_a_link_at_the_wanted_name_is_replaced_and_its_target_left(tmp_path: Path) -> None:
    victim, path = tmp_path / "victim", tmp_path / "out.txt"
    victim.write_text("precious")
    path.symlink_to(victim)
    write(path, "new")
    assert victim.read_text() == "precious"
    assert path.read_text() == "new"
    assert not path.is_symlink()


def test_a_numbered_name_is_not_taken_through_a_dangling_link(tmp_path: Path) -> None:
    (tmp_path / "race_00001_.txt").symlink_to(tmp_path / "elsewhere")
    assert place_new(make_part(tmp_path), numbered(tmp_path)).name == "race_00002_.txt"
    assert not (tmp_path / "elsewhere").exists()


@pytest.mark.parametrize("plant", ["symlink_to", "hardlink_to"])
def test_going_on_with_a_file_follows_no_link(tmp_path: Path, plant: str) -> None:
    victim, path = tmp_path / "victim", tmp_path / "model.part"
    victim.write_text("precious")
    getattr(path, plant)(victim)
    with reopen(path) as stream:
        assert stream.read() == b""
        stream.write(b"new")
    assert victim.read_text() == "precious"
    assert path.read_text() == "new"


def test_going_on_with_a_file_keeps_what_is_there(tmp_path: Path) -> None:
    path = tmp_path / "model.part"
    path.write_text("half")
    with reopen(path) as stream:
        assert stream.read() == b"half"
        stream.write(b" and half")
    assert path.read_text() == "half and half"


def test_a_planted_pipe_does_not_stop_a_run(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "model.part")
    with reopen(tmp_path / "model.part") as stream:
        assert stream.read() == b""


def test_a_folder_of_ours_is_never_a_link(tmp_path: Path) -> None:
    victim, path = tmp_path / "victim", tmp_path / "work"
    victim.mkdir()
    path.symlink_to(victim)
    (make_folder(path) / "clip").write_text("ours")
    assert names(victim) == []
    assert make_folder(path) == path  # a second time is fine


def test_removing_a_folder_leaves_what_its_links_lead_to(tmp_path: Path) -> None:
    victim, work = tmp_path / "victim", tmp_path / "work"
    victim.mkdir()
    (victim / "precious").write_text("")
    work.mkdir()
    (work / "link").symlink_to(victim)
    remove(work)
    assert not work.exists()
    assert names(victim) == ["precious"]


def test_what_cannot_be_removed_is_one_line_in_the_log(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    work = tmp_path / "work"
    work.mkdir()
    for name in ("clip", "so_far.mp4", "z"):
        (work / name).write_text("")
    real = os.unlink

    def refuse(path: str, **rest: int) -> None:
        if str(path).endswith("so_far.mp4"):
            raise PermissionError(errno.EACCES, "Access is denied")
        real(path, **rest)

    monkeypatch.setattr(os, "unlink", refuse)
    with caplog.at_level(logging.WARNING):
        remove(work)
    assert [record.getMessage() for record in caplog.records] == [
        "work could not be removed; another program may have it open."
    ]
    assert names(work) == ["so_far.mp4"]  # the rest is gone


def test_a_good_target_is_tried_without_leaving_a_trace(tmp_path: Path) -> None:
    old = tmp_path / "old.mp4"
    old.write_text("old")
    try_place(tmp_path / "new.mp4", apart_from=[old])
    try_place(old)
    assert old.read_text() == "old"
    assert names(tmp_path) == ["old.mp4"]


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("w" * 252 + ".mp4", "256 bytes where 255 is the most"),
        ("说" * 84 + ".mp4", "256 bytes where 255 is the most"),
        ("a\0b.mp4", "NUL"),
        ("\ud800.mp4", "no text"),
        ("folder", "a folder"),
        ("pipe", "no file"),
        ("input.wav", "one of them"),
        ("protected.mp4", "protected"),
        ("missing/v.mp4", "existing folder"),
    ],
)
def test_a_bad_target_is_found_before_any_work(tmp_path: Path, name: str, text: str) -> None:
    (tmp_path / "folder").mkdir()
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "input.wav").write_text("")
    (tmp_path / "protected.mp4").write_text("")
    (tmp_path / "protected.mp4").chmod(0o444)
    before = names(tmp_path)
    with pytest.raises(DiskError, match=text) as caught:
        try_place(tmp_path / name, apart_from=[tmp_path / "input.wav"])
    assert names(tmp_path) == before
    assert str(caught.value).isprintable()


def test_two_outputs_that_are_not_there_yet_may_not_be_one(tmp_path: Path) -> None:
    (tmp_path / "sub").mkdir()
    with pytest.raises(DiskError, match="one of them"):
        try_place(tmp_path / "v.mp4", apart_from=[tmp_path / "sub" / ".." / "v.mp4"])


def test_too_little_room_is_told_in_megabytes(tmp_path: Path) -> None:
    with pytest.raises(DiskError, match="expected 10000000000000 MB of free space"):
        try_place(tmp_path / "v.mp4", nbytes=10**19)


def test_a_full_disk_at_the_end_is_the_systems_own_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(_descriptor: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(disk.os, "fsync", full)
    part = make_part(tmp_path)
    with pytest.raises(OSError, match="No space left"):
        place(part, tmp_path / "out.txt")
    assert part.exists()  # whoever made it decides
    with pytest.raises(DiskError, match=r"expected to write out\.txt but got: No space left"):
        write(tmp_path / "out.txt", "new")
    assert names(tmp_path) == [part.name]


def test_a_new_file_never_replaces_one_that_is_there(tmp_path: Path) -> None:
    path = tmp_path / "memo.safetensors"
    path.write_text("a user's")
    try_place(path, replace=False)
    assert write_new(alternatives(path), lambda part: part.write_text("ours")).name == "memo (1).safetensors"
    assert path.read_text() == "a user's"
    assert names(tmp_path) == ["memo (1).safetensors", "memo.safetensors"]


def test_a_new_file_that_fails_takes_no_name(tmp_path: Path) -> None:
    def fail(_part: Path) -> None:
        raise OSError(errno.EFBIG, "File too large")

    with pytest.raises(DiskError, match=r"expected to write memo\.safetensors but got: File too large"):
        write_new(alternatives(tmp_path / "memo.safetensors"), fail)
    assert names(tmp_path) == []


def test_a_folder_that_is_gone_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(DiskError, match=r"expected to write v\.mp4 but got: No such file"):
        write(tmp_path / "gone" / "v.mp4", "")
