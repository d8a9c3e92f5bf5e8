"""The stand-in for Windows' file rules refuses what Windows refuses; our files are written whole in it."""

import os
import shutil
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory

import av
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

from memo_avatar.files.disk import DiskError, remove, replacing, write_new
from memo_avatar.files.names import alternatives, portable_name
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


BAD_NAMES = [
    "CON.mp4",
    "nul",
    "COM0",
    "com¹.mp4",
    "LPT9.txt",
    "aux .mp4",
    "conin$",
    "a.",
    "a ",
    "a:b",
    "a?",
    "t\ta",
    "w" * 256,
]


def ways_to_make(path: Path, source: Path) -> dict[str, Callable[[], object]]:
    """Everything that gives a file or a folder its name."""
    return {
        "replace": lambda: os.replace(source, path),
        "rename": lambda: os.rename(source, path),
        "open": lambda: path.open("w"),
        "os.open": lambda: os.open(path, os.O_CREAT | os.O_WRONLY),
        "touch": path.touch,
        "mkdir": path.mkdir,
        "makedirs": lambda: os.makedirs(path / "inner"),
        "link": lambda: os.link(source, path),
        "symlink": lambda: path.symlink_to(source),
        "copy": lambda: shutil.copyfile(source, path),
        "save": lambda: save_file({"x": torch.zeros(1)}, path),
        "av": lambda: av.open(str(path), "w", format="wav"),
        "read": path.read_bytes,
    }


@pytest.mark.parametrize("way", ways_to_make(Path(), Path()))
@pytest.mark.parametrize("name", BAD_NAMES, ids=ascii)
def test_no_way_makes_or_opens_a_name_that_windows_does_not_have(tmp_path: Path, name: str, way: str) -> None:
    source, path = tmp_path / "v", tmp_path / name
    source.write_text("")
    with windows_rules() as refused, pytest.raises((OSError, SafetensorError), match=r"denied|os error"):
        ways_to_make(path, source)[way]()
    assert len(refused) == 1 and [item.name for item in tmp_path.iterdir()] == ["v"]


@pytest.mark.parametrize(
    "name", ["v.mp4", "console.mp4", "com10", "说话.mp4", ".hidden", "a.b", "(1)", "w" * 255]
)
def test_other_names_are_made_in_every_way(tmp_path: Path, name: str) -> None:
    for way in ("open", "touch", "link", "save", "replace"):
        folder = tmp_path / way
        folder.mkdir()
        (folder / "source").write_text("")
        with windows_rules() as refused:
            ways_to_make(folder / name, folder / "source")[way]()
        assert refused == [] and (folder / name).exists()


def test_the_rules_end_with_their_block(tmp_path: Path) -> None:
    with windows_rules():
        pass
    (tmp_path / "a.").mkdir()
    (tmp_path / "CON").write_text("")


def test_tensors_are_saved_over_an_old_file_of_ours(tmp_path: Path) -> None:
    path = tmp_path / "state.safetensors"
    with windows_rules() as refused:
        for value in (1.0, 2.0):
            with replacing(path) as part:
                save_file({"x": torch.full((4,), value)}, part)
    assert refused == []
    assert [item.name for item in tmp_path.iterdir()] == ["state.safetensors"]


@given(st.text(max_size=300) | st.sampled_from([name.removesuffix(".mp4") for name in BAD_NAMES]))
@settings(max_examples=25, deadline=None)
def test_a_name_that_somebody_typed_can_be_made_three_times(text: str) -> None:
    """As MEMO Save and TeaCache Calibrate make them."""
    with TemporaryDirectory() as folder, windows_rules() as refused:
        wanted = Path(folder) / f"{portable_name(text, 'memo')}.safetensors"
        made = {write_new(alternatives(wanted), lambda part: part.write_text("new")) for _ in range(3)}
        assert refused == [] and made == {*Path(folder).iterdir()} and len(made) == 3


@pytest.mark.parametrize("name", ["v." + "e" * 253, "v" * 251 + ".mp4", "😀" * 60 + ".mp4", "a.b.c"])
def test_a_longest_name_that_is_taken_gets_another(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_text("old")
    with windows_rules() as refused:
        assert write_new(alternatives(tmp_path / name), lambda part: part.write_text("new")).name != name
    assert refused == [] and (tmp_path / name).read_text() == "old"


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
