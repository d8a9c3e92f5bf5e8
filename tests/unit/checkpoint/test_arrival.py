"""What has not arrived whole is told by headers alone, before anything is loaded, and all of it at once."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from memo_avatar.checkpoint.companions import check_files
from memo_avatar.checkpoint.kinds import PARTS
from memo_avatar.checkpoint.load import open_checkpoint
from memo_avatar.files.foreign import CheckpointError

DEMO = Path(__file__).parents[3] / "demo" / "checkpoint"
BOTH = ("vae", "wav2vec2")
WEIGHTS = "diffusion_pytorch_model.safetensors"
POINTER = b"version https://git-lfs.github.com/spec/v1\noid sha256:aa\nsize 123\n"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A checkpoint with its VAE and wav2vec2, to damage."""
    return Path(shutil.copytree(DEMO, tmp_path / "memo", copy_function=shutil.copyfile))


def problem(path: Path, look: Callable[[Path], object] = lambda path: check_files(path, BOTH)) -> str:
    with pytest.raises(CheckpointError) as caught:
        look(path)
    return str(caught.value)


def test_a_whole_checkpoint_and_what_is_not_there_raise_nothing(folder: Path) -> None:
    check_files(folder, BOTH)
    shutil.rmtree(folder / "vae")
    check_files(folder, BOTH)


def test_no_weights_are_read(folder: Path) -> None:
    """Only headers: a file of gigabytes on a slow disk costs what a small one does."""
    for weights in folder.rglob("*.safetensors"):
        data = weights.read_bytes()
        header = data[: 8 + int.from_bytes(data[:8], "little")]
        weights.write_bytes(header + b"\xff" * (len(data) - len(header)))  # NaN, which reading refuses
    check_files(folder, BOTH)


@pytest.mark.parametrize(
    ("content", "expected"),
    [(b"", "an empty file"), (POINTER, "a Git LFS pointer"), (b"<html>no</html>" * 20, "a web page")],
    ids=["empty", "pointer", "page"],
)
@pytest.mark.parametrize("part", [*PARTS, *BOTH])
def test_each_file_is_looked_at(folder: Path, part: str, content: bytes, expected: str) -> None:
    (weights,) = (folder / part).glob("*.safetensors")
    weights.write_bytes(content)
    found = problem(folder)
    assert f"expected a safetensors file but got {expected}" in found and str(weights) in found


def test_a_folder_of_pointers_is_told_at_once(folder: Path) -> None:
    for part in PARTS:
        (folder / part / WEIGHTS).write_bytes(POINTER)
    for look in (open_checkpoint, check_files):
        found = problem(folder, lambda path, look=look: look(path))
        assert str(folder / "diffusion_net" / WEIGHTS) in found and "a Git LFS pointer" in found
        assert found.endswith("Also wrong: reference_net, image_proj, audio_proj.")


def test_another_net_in_a_parts_place_is_told_by_its_names(folder: Path) -> None:
    """The weights of the other two are exchanged: whole files, and not what they are called."""
    for given, wanted in [("image_proj", "audio_proj"), ("audio_proj", "image_proj")]:
        shutil.copyfile(DEMO / given / WEIGHTS, folder / wanted / WEIGHTS)
    found = problem(folder)
    assert "This looks like MEMO's audio_proj; put MEMO's image_proj in its place." in found
    assert found.endswith("Also wrong: audio_proj.")


@pytest.mark.parametrize(
    ("part", "entries"), [("vae", {"scaling_factor": 0.13}), ("wav2vec2", {"do_stable_layer_norm": True})]
)
def test_a_companion_of_another_kind_is_told_by_its_config(
    folder: Path, part: str, entries: dict[str, object]
) -> None:
    config = folder / part / "config.json"
    config.write_text(json.dumps(json.loads(config.read_text()) | entries))
    assert f"({config}). Use " in problem(folder)


@pytest.mark.parametrize("part", BOTH)
def test_what_will_not_be_needed_is_not_looked_at(folder: Path, part: str) -> None:
    (weights,) = (folder / part).glob("*.safetensors")
    weights.write_bytes(b"")
    check_files(folder, [other for other in BOTH if other != part])


def test_what_it_recommends_is_looked_at(folder: Path) -> None:
    (folder / "demo.json").write_text("{")
    assert problem(folder).endswith("Repair or delete the file.")


@pytest.mark.parametrize(
    "file", [f"image_proj/{WEIGHTS}", "image_proj/config.json", "wav2vec2/model.safetensors"]
)
def test_a_link_to_nothing_is_called_so(folder: Path, file: str) -> None:
    """As a pruned cache of Hugging Face leaves it."""
    (folder / file).unlink()
    (folder / file).symlink_to(folder / "blobs" / "gone")
    found = problem(folder)
    assert "got: a link to nothing" in found and str(folder / file) in found


def test_a_single_file_that_is_a_link_to_nothing_is_called_so(tmp_path: Path) -> None:
    (tmp_path / "memo.safetensors").symlink_to("/nowhere/memo.safetensors")
    assert "got: a link to nothing" in problem(tmp_path / "memo.safetensors")
