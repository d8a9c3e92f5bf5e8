"""A video on the disk while it is made: it goes on after any stop, and nothing of it is believed unread."""

import logging
import os
import shutil
import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from itertools import islice
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save_file

from memo_avatar.clips.values import Clip
from memo_avatar.files import disk
from memo_avatar.files.disk import DiskError, make_part
from memo_avatar.video import unfinished
from memo_avatar.video.left_over import left_in, root_beside
from memo_avatar.video.unfinished import Unfinished
from memo_avatar.voice.sound import MediaError
from tests.helpers.fake_video import WORK_FOLDER, FakeVideo, make, stopped
from tests.helpers.media import read_video
from tests.helpers.weights import copied_weights
from tests.helpers.windows_rules import windows_rules

VIDEO = FakeVideo()
CLIPS = 5


@pytest.fixture(autouse=True)
def a_state_after_every_clip(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(unfinished, "SAVE_SHARE", 1e9)


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """The file of a run that nobody disturbed."""
    return make(VIDEO, tmp_path_factory.mktemp("whole")).read_bytes()


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


@pytest.mark.parametrize("clips", range(CLIPS + 1))
def test_stopped_anywhere_and_run_again_it_is_the_file_of_an_undisturbed_run(
    tmp_path: Path, clips: int, whole: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    if clips < CLIPS:
        stopped(VIDEO, tmp_path, clips)
    assert make(VIDEO, tmp_path).read_bytes() == whole
    assert names(tmp_path) == ["video"], "no folder, also no empty one, stays"
    assert names(tmp_path / "video") == ["talk_00001_.mp4"]
    assert not caplog.messages


def test_stopped_before_the_first_clip_nothing_is_left(tmp_path: Path) -> None:
    stopped(VIDEO, tmp_path, 0, MemoryError)
    assert names(tmp_path) == []


def test_only_the_clips_that_are_missing_are_made(tmp_path: Path, whole: bytes) -> None:
    notes: dict[str, str] = {}
    stopped(VIDEO, tmp_path, 3)
    with Unfinished.open(tmp_path / WORK_FOLDER, VIDEO.key) as work:
        state = work.load(VIDEO.delivery(), notes.update)
        assert state is not None and state.clip_index == 2 and work.done == 3
        assert notes["learned"] == "a thing"
        before = [path.stat().st_mtime_ns for path in sorted(work.folder.glob("clip_*"))]
        work.fill(VIDEO.clips(state), VIDEO.delivery())
        assert work.done == CLIPS
        after = [path.stat().st_mtime_ns for path in sorted(work.folder.glob("clip_*"))]
        assert after[:3] == before
        work.join(tmp_path / "v.mp4", VIDEO.sound(), VIDEO.delivery())
    assert (tmp_path / "v.mp4").read_bytes() == whole


def test_a_pasted_video_that_goes_on_keeps_the_colours_of_its_first_frame(tmp_path: Path) -> None:
    video = replace(VIDEO, pasted=True, fps=24)
    expected = make(video, tmp_path / "whole").read_bytes()
    stopped(video, tmp_path, 2)
    assert make(video, tmp_path).read_bytes() == expected


def test_the_clips_so_far_are_a_video_with_its_sound(tmp_path: Path) -> None:
    stopped(VIDEO, tmp_path, 2)
    with Unfinished.open(tmp_path / WORK_FOLDER, VIDEO.key) as work:
        work.load(VIDEO.delivery())
        work.join(tmp_path / "v.mp4", VIDEO.sound(), VIDEO.delivery())
    found = read_video(tmp_path / "v.mp4")
    assert found.num_frames == 32 and found.sound_seconds == pytest.approx(32 / 30, abs=0.03)


# What lies there is not believed


def truncate(path: Path) -> None:
    os.truncate(path, path.stat().st_size // 2)


def zero(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[-200:] = bytes(200)
    path.write_bytes(data)


def link(path: Path) -> None:
    shutil.move(path, path.with_suffix(".moved"))
    path.symlink_to(path.with_suffix(".moved"))


def name_twice(path: Path) -> None:
    path.with_suffix(".second").hardlink_to(path)


def make_folder(path: Path) -> None:
    path.unlink()
    path.mkdir()


def another_clip(path: Path) -> None:
    shutil.copy(path.parent / "clip_000000.mp4", path)


def another_videos_state(path: Path) -> None:
    shutil.copy(stopped(replace(VIDEO, numbers=5000), path.parents[2] / "other", 3) / path.name, path)


def changed_number(path: Path) -> None:
    """A state with its own header and one other number."""
    with safe_open(str(path), framework="pt") as stored:
        metadata = stored.metadata()
    tensors = copied_weights(path)
    tensors["0.memory.0.kv"][5] += 1e-6
    save_file(tensors, path, metadata=metadata)


def foreign_tensors(path: Path) -> None:
    save_file({"a": torch.zeros(3)}, path)


def text(path: Path) -> None:
    path.write_text("<html>")


DAMAGES = {
    "clip_000000.mp4": (truncate, zero, link, name_twice, make_folder, text, Path.unlink, Path.write_bytes),
    "clip_000001.mp4": (truncate, another_clip, Path.unlink, Path.write_bytes),
    "state.safetensors": (
        truncate, zero, link, name_twice, make_folder, text, Path.unlink, Path.write_bytes,
        another_videos_state, changed_number, foreign_tensors,
    ),
}  # fmt: skip


@pytest.mark.parametrize(
    ("name", "damage"), [(name, damage) for name, all_of in DAMAGES.items() for damage in all_of],
    ids=lambda value: getattr(value, "__name__", str(value)),
)  # fmt: skip
def test_what_is_damaged_is_made_anew_with_a_line_in_the_log(
    tmp_path: Path,
    name: str,
    damage: Callable[..., object],
    whole: bytes,
    caplog: pytest.LogCaptureFixture,
) -> None:
    folder = stopped(VIDEO, tmp_path, 3)
    damage(folder / name, *([b""] if damage is Path.write_bytes else []))
    with caplog.at_level(logging.WARNING):
        assert make(VIDEO, tmp_path).read_bytes() == whole
    expected = 0 if (name, damage) == ("state.safetensors", Path.unlink) else 1
    assert len(caplog.messages) == expected, "a state that was never saved is no damage"
    assert all("is made anew" in message and "\n" not in message for message in caplog.messages)
    shutil.rmtree(tmp_path / "other", ignore_errors=True)
    assert names(tmp_path) == ["video"]


@pytest.mark.parametrize(
    "name", ["clip_000000.mp4", "clip_000003.mp4", "state.safetensors", "so_far.mp4", "lock"]
)
@pytest.mark.parametrize("plant", ["symlink_to", "hardlink_to"])
def test_a_link_that_somebody_planted_leads_to_no_write_elsewhere(
    tmp_path: Path, name: str, plant: str, whole: bytes
) -> None:
    victim = tmp_path / "victim"
    victim.write_text("precious")
    folder = stopped(VIDEO, tmp_path, 1)
    (folder / name).unlink(missing_ok=True)
    getattr(folder / name, plant)(victim)
    assert make(VIDEO, tmp_path).read_bytes() == whole
    assert victim.read_text() == "precious"


def test_a_link_in_place_of_the_folder_is_not_followed(tmp_path: Path, whole: bytes) -> None:
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    (elsewhere / "precious").write_text("precious")
    (tmp_path / WORK_FOLDER).mkdir()
    (tmp_path / WORK_FOLDER / VIDEO.key).symlink_to(elsewhere, target_is_directory=True)
    assert make(VIDEO, tmp_path).read_bytes() == whole
    assert names(elsewhere) == ["precious"]


def test_a_file_in_place_of_the_folder_is_left_alone(tmp_path: Path, whole: bytes) -> None:
    (tmp_path / WORK_FOLDER).mkdir()
    (tmp_path / WORK_FOLDER / VIDEO.key).write_text("somebody's")
    assert make(VIDEO, tmp_path).read_bytes() == whole
    assert names(tmp_path / WORK_FOLDER) == [VIDEO.key]


def test_a_clip_that_changes_while_others_are_made_is_found(tmp_path: Path) -> None:
    def clips(folder: Path) -> Iterator[Clip]:
        for clip in VIDEO.clips():
            yield clip
            if clip.index == 2:
                another_clip(folder / "clip_000001.mp4")

    with Unfinished.open(tmp_path, VIDEO.key) as work:
        work.fill(clips(work.folder), VIDEO.delivery())
        with pytest.raises(MediaError, match="expected the clips that were written but got other files"):
            work.join(tmp_path / "v.mp4", VIDEO.sound(), VIDEO.delivery())


def test_notes_that_their_owner_refuses_are_a_video_made_anew(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    def refuse(_notes: object) -> None:
        raise ValueError("a calibration of another kind")

    stopped(VIDEO, tmp_path, 2)
    with Unfinished.open(tmp_path / WORK_FOLDER, VIDEO.key) as work:
        assert work.load(VIDEO.delivery(), refuse) is None
        assert work.done == 0
    assert "is made anew: a calibration of another kind" in caplog.text


# The disk, and other processes


@pytest.mark.parametrize("clip", [0, 2])
def test_a_full_disk_stops_with_one_line_and_what_is_done_goes_on(
    tmp_path: Path, clip: int, whole: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(path: Path, *_rest: object) -> None:
        if path.name == f"clip_{clip:06d}.mp4":
            raise DiskError(f"expected to write {path.name} but got: No space left on device")
        real(path, *_rest)

    real = unfinished.write_segment
    monkeypatch.setattr(unfinished, "write_segment", full)
    with pytest.raises(DiskError, match="No space left on device"):
        make(VIDEO, tmp_path)
    monkeypatch.setattr(unfinished, "write_segment", real)
    with Unfinished.open(tmp_path / WORK_FOLDER, VIDEO.key) as work:
        work.load(VIDEO.delivery())
        assert work.done == clip
    assert make(VIDEO, tmp_path).read_bytes() == whole


def test_a_state_that_has_no_room_does_not_stop_the_video(
    tmp_path: Path, whole: bytes, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def full(*_arguments: object, **_options: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(unfinished, "save_file", full)
    assert make(VIDEO, tmp_path).read_bytes() == whole
    assert all("could not be saved" in message for message in caplog.messages) and caplog.messages


def test_a_process_that_finds_another_at_its_video_makes_its_own(tmp_path: Path, whole: bytes) -> None:
    stopped(VIDEO, tmp_path, 2)
    with Unfinished.open(tmp_path / WORK_FOLDER, VIDEO.key) as first:
        assert make(VIDEO, tmp_path).read_bytes() == whole
        state = first.load(VIDEO.delivery())
        assert state is not None and state.clip_index == 1, "the other one's is untouched"
    assert names(tmp_path / WORK_FOLDER) == [VIDEO.key]
    assert make(VIDEO, tmp_path).name == "talk_00002_.mp4"


def test_of_two_folders_that_are_left_each_is_gone_on_with(tmp_path: Path) -> None:
    with Unfinished.open(tmp_path / WORK_FOLDER, VIDEO.key):
        stopped(VIDEO, tmp_path, 1)
    with Unfinished.open(tmp_path / WORK_FOLDER, VIDEO.key) as work:
        assert work.folder.name == f"{VIDEO.key}-2" and work.load(VIDEO.delivery()) is not None


def test_many_at_once_each_give_a_whole_file(tmp_path: Path, whole: bytes) -> None:
    made: list[Path] = []
    threads = [threading.Thread(target=lambda: made.append(make(VIDEO, tmp_path))) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(path.name for path in made) == [f"talk_{number:05}_.mp4" for number in range(1, 5)]
    assert all(path.read_bytes() == whole for path in made)
    assert names(tmp_path) == ["video"]


def test_what_a_killed_process_left_half_written_is_removed(tmp_path: Path, whole: bytes) -> None:
    folder = stopped(VIDEO, tmp_path, 2)
    make_part(folder).write_bytes(b"half")
    with Unfinished.open(tmp_path / WORK_FOLDER, VIDEO.key):
        assert not list(folder.glob(".*"))
    assert make(VIDEO, tmp_path).read_bytes() == whole


def test_a_file_that_is_still_open_elsewhere_fails_no_finished_video(
    tmp_path: Path, whole: bytes, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """As Windows has it while a player shows the clips so far."""
    folder = stopped(VIDEO, tmp_path, 2)
    (folder / "so_far.mp4").write_bytes(b"shown by a player")
    real = Path.unlink

    def refuse(path: Path, *arguments: object, **options: object) -> None:
        if path.name == "so_far.mp4":
            raise PermissionError(13, "used by another process", str(path))
        real(path, *arguments, **options)

    monkeypatch.setattr(Path, "unlink", refuse)
    assert make(VIDEO, tmp_path).read_bytes() == whole
    assert names(folder) == ["so_far.mp4"]
    assert any("so_far.mp4 could not be removed" in message for message in caplog.messages)
    monkeypatch.setattr(Path, "unlink", real)
    assert make(VIDEO, tmp_path).read_bytes() == whole
    assert names(tmp_path) == ["video"]


@pytest.mark.skipif(not Path("/proc/self/maps").exists(), reason="what is open is read from /proc")
def test_windows_would_have_no_trouble_with_any_of_it(
    tmp_path: Path, whole: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(unfinished, "_OPEN_FILES_STAY", True)
    with windows_rules() as refused:
        stopped(VIDEO, tmp_path, 3)
        with Unfinished.open(tmp_path / WORK_FOLDER, VIDEO.key) as work:
            state = work.load(VIDEO.delivery())
            assert state is not None
            work.fill(VIDEO.clips(state), VIDEO.delivery())  # with the loaded state still there
        assert make(VIDEO, tmp_path).read_bytes() == whole
        assert make(VIDEO, tmp_path).read_bytes() == whole
    assert refused == []
    assert names(tmp_path) == ["video"]


def test_a_folder_that_cannot_be_made_is_told_in_one_line(tmp_path: Path) -> None:
    (tmp_path / WORK_FOLDER).write_text("a file")
    with pytest.raises(DiskError, match="expected a folder for the unfinished video but got") as caught:
        make(VIDEO, tmp_path)
    assert "\n" not in str(caught.value)


def test_clips_reach_the_disk_before_the_state_that_names_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After a power cut a name may stand for an empty file, if it was not."""
    synced: list[str] = []
    real = disk._to_disk
    monkeypatch.setattr(disk, "_to_disk", lambda part: (synced.append(part.suffix), real(part)))
    stopped(VIDEO, tmp_path, 2)
    assert len(synced) == 4, "each clip and each state"


# What was never queued again


def test_what_was_left_is_listed_with_its_age_and_removed_on_demand(tmp_path: Path) -> None:
    root = tmp_path / WORK_FOLDER
    assert left_in(root) == []
    old = stopped(VIDEO, tmp_path, 3)
    new = stopped(replace(VIDEO, fps=25), tmp_path, 1)
    (root / "my notes").mkdir()
    (root / "readme.txt").write_text("mine")
    for path in old.iterdir():
        os.utime(path, (0, 0))
    found = left_in(root)
    assert [(left.folder, left.clips) for left in found] == [(old, 3), (new, 1)]
    assert found[0].seconds > 1e9 > 60 > found[1].seconds
    assert found[0].nbytes > 10_000
    assert found[0].remove() and not old.exists()
    with Unfinished.open(root, replace(VIDEO, fps=25).key):
        assert not found[1].remove(), "somebody works at it"
    assert found[1].remove()
    assert names(root) == ["my notes", "readme.txt"], "what is not ours stays"
    shutil.rmtree(root)
    stopped(VIDEO, tmp_path, 1)
    assert left_in(root)[0].remove() and not root.exists()


def test_a_name_that_is_no_text_is_listed_as_far_as_it_is(tmp_path: Path) -> None:
    name = "a\udc80.mp4"  # Linux takes any bytes
    with Unfinished.open(root_beside(tmp_path / name), VIDEO.key, name) as work:
        work.fill(islice(VIDEO.clips(), 2), VIDEO.delivery(), dict)
    assert left_in(root_beside(tmp_path / name))[0].name == r"a\udc80.mp4"
