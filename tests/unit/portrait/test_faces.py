"""Faces: upstream's own call on the same files gives the same numbers; everything missing is said."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image

from memo_avatar.portrait import faces
from memo_avatar.portrait.faces import (
    DETECTOR,
    NO_FACE,
    FaceError,
    FaceToolsError,
    identify,
    likeness_to,
    read_embedding,
)
from memo_avatar.portrait.prepare import FaceOptions, prepare_portrait
from tests.helpers.tiny_faces import face_picture, write_face_models

TWO = {16: (500, 200), 8: (120, 130), 32: (256, 352)}


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    pytest.importorskip("insightface", reason="insightface, the reference for faces, is not installed")
    return write_face_models(tmp_path_factory.mktemp("face_analysis") / "models").parent


def upstreams_faces(folder: Path, image: Image.Image) -> list[object]:
    """insightface's own analysis, called and sorted as upstream's preprocessing does."""
    from insightface.app import FaceAnalysis

    analysis = FaceAnalysis(name=str(folder / "models"), providers=["CPUExecutionProvider"])
    analysis.prepare(ctx_id=0, det_size=(640, 640))
    found = analysis.get(np.asarray(image)[:, :, ::-1].copy())
    return sorted(
        found,
        key=lambda x: (x["bbox"][2] - x["bbox"][0]) * (x["bbox"][3] - x["bbox"][1]),
        reverse=True,
    )


@pytest.mark.parametrize("index", [0, 1, 2])
def test_box_and_embedding_are_insightfaces_own(models: Path, index: int) -> None:
    image = face_picture(640, 480, TWO)
    expected = upstreams_faces(models, image)
    assert len(expected) == 3
    found = identify(image, [models], mode="require", index=index)
    assert found.note == ""
    assert found.box == tuple(map(float, expected[index]["bbox"]))
    assert torch.equal(found.embedding[0], torch.from_numpy(expected[index]["embedding"]))
    assert found.embedding.abs().sum() > 0


def test_a_face_is_most_like_itself_and_a_frame_without_one_is_like_nobody(models: Path) -> None:
    image = face_picture(640, 480, TWO)
    likeness = likeness_to(identify(image, [models]).embedding, [models])
    assert likeness is not None
    frame = torch.from_numpy(np.array(image)).movedim(-1, 0) / 255
    assert likeness(frame) == pytest.approx(1.0, abs=1e-5)
    other = likeness(1 - frame.roll((40, 20), dims=(1, 2)))
    assert other is None or other < 0.99
    assert likeness(torch.full((3, 480, 640), 0.5)) is None


def test_the_largest_face_is_where_it_was_painted(models: Path) -> None:
    image = face_picture(640, 480, {32: (320, 256), 8: (100, 100)}).resize(
        (1280, 960), Image.Resampling.NEAREST
    )
    box = identify(image, [models]).box
    assert box is not None
    assert (box[0] + box[2]) / 2 == pytest.approx(640, abs=70)
    assert (box[1] + box[3]) / 2 == pytest.approx(512, abs=70)


def test_a_face_number_that_is_not_there(models: Path) -> None:
    with pytest.raises(FaceError, match=r"from 0 to 2 but got 3 \(face index\): 3 faces were found"):
        identify(face_picture(640, 480, TWO), [models], index=3)


class ThreeFaces(faces.FaceFinder):
    """Finds three faces, each of whose embeddings says where its left side is."""

    def __init__(self, _folder: Path) -> None:
        self._new_face = SimpleNamespace
        self._recogniser = SimpleNamespace(get=lambda _pixels, face: np.full(512, face.kps[0, 0], np.float32))

    def _detect(self, _pixels: object) -> tuple[np.ndarray, np.ndarray]:
        boxes = np.array(
            [[10, 10, 210, 210, 1], [300, 100, 400, 200, 1], [420, 120, 470, 170, 1]], np.float32
        )
        return boxes, np.repeat(boxes[:, None, :2], 5, axis=1)


@pytest.fixture
def three_faces(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(faces, "FaceFinder", ThreeFaces)
    monkeypatch.setattr(faces, "find_folder", lambda folders: Path())


@pytest.mark.usefixtures("three_faces")
def test_a_box_says_whose_face_it_is_whoever_else_is_larger() -> None:
    image = Image.new("RGB", (640, 480))
    assert identify(image, []).embedding[0, 0] == 10
    found = identify(image, [], near=(410, 100, 480, 190))
    assert found.box == (420, 120, 470, 170) and found.embedding[0, 0] == 420
    portrait, _ = prepare_portrait(image, (64, 64), "face", FaceOptions(box=(290, 90, 410, 210)))
    assert portrait.face_embedding[0, 0] == 300


@pytest.mark.usefixtures("three_faces")
def test_a_box_with_nobody_in_it_is_told_or_refused() -> None:
    image, nowhere = Image.new("RGB", (640, 480)), (500, 300, 600, 400)
    assert identify(image, [], near=nowhere).note == NO_FACE
    with pytest.raises(FaceError, match="expected a face but found none"):
        identify(image, [], near=nowhere, mode="require")


def test_no_face_is_told_or_refused(models: Path) -> None:
    image = face_picture(640, 480, {})
    found = identify(image, [models])
    assert (found.note, found.box) == (NO_FACE, None)
    assert torch.equal(found.embedding, torch.zeros(1, 512))
    with pytest.raises(FaceError, match="expected a face but found none"):
        identify(image, [models], mode="require")


class ShortSighted:
    """A detector that sees faces in small pictures only."""

    def __init__(self) -> None:
        self.sizes: list[int] = []

    def prepare(self, _device: int, input_size: tuple[int, int], det_thresh: float) -> None:
        self.sizes.append(input_size[0])

    def detect(self, _pixels: object, max_num: int, metric: str) -> tuple[object, object]:
        count = int(self.sizes[-1] == 160)
        return np.zeros((count, 5), np.float32), np.zeros((count, 5, 2), np.float32)


def test_smaller_detection_sizes_are_tried_where_640_finds_nothing() -> None:
    finder = object.__new__(faces.FaceFinder)
    finder._detector = ShortSighted()
    boxes, _points = finder._detect(np.zeros((8, 8, 3), np.uint8))
    assert len(boxes) == 1
    assert finder._detector.sizes == [640, 320, 160]


def test_a_broken_file_is_told_in_one_line(models: Path, tmp_path: Path) -> None:
    folder = write_face_models(tmp_path)
    data = (folder / DETECTOR).read_bytes()
    (folder / DETECTOR).write_bytes(data[: len(data) // 2])
    with pytest.raises(FaceToolsError, match="expected a whole ONNX file but got") as caught:
        identify(face_picture(640, 480, TWO), [folder], mode="require")
    assert "\n" not in str(caught.value) and "Download it again" in str(caught.value)
    note = identify(face_picture(640, 480, TWO), [folder]).note
    assert note == f"For a closer likeness, download {DETECTOR} again: it is damaged."


def test_files_under_each_others_names(models: Path, tmp_path: Path) -> None:
    folder = write_face_models(tmp_path)
    swapped = (folder / faces.RECOGNISER).read_bytes()
    (folder / DETECTOR).write_bytes(swapped)
    with pytest.raises(FaceToolsError, match="another network under its name"):
        identify(face_picture(640, 480, TWO), [folder], mode="require")


def test_another_packs_analysis_object(models: Path) -> None:
    from insightface.app import FaceAnalysis

    image = face_picture(640, 480, TWO)
    analysis = FaceAnalysis(name=str(models / "models"), providers=["CPUExecutionProvider"])
    analysis.prepare(ctx_id=0, det_size=(640, 640))
    theirs, ours = faces.read_faces(analysis, image, 1), identify(image, [models], index=1)
    assert theirs is not None
    assert torch.equal(theirs.embedding, ours.embedding) and theirs.box == ours.box
    assert faces.read_faces(analysis, face_picture(640, 480, {})) is None


# Without the library


def test_none_looks_at_nothing(tmp_path: Path) -> None:
    found = identify(Image.new("RGB", (64, 64)), [tmp_path], mode="none", width=8)
    assert (found.embedding.tolist(), found.box, found.note) == ([[0.0] * 8], None, "")


def test_missing_files_are_told_with_their_place(tmp_path: Path) -> None:
    found = identify(Image.new("RGB", (64, 64)), [tmp_path / "face_analysis"])
    assert found.embedding.abs().sum() == 0
    assert "scrfd_10g_bnkps.onnx and glintr100.onnx" in found.note
    assert str(Path(*tmp_path.parts[-2:], "face_analysis")) in found.note, "whole paths are not for everyone"
    with pytest.raises(FaceToolsError, match="found them nowhere"):
        identify(Image.new("RGB", (64, 64)), [tmp_path], mode="require")


def test_a_missing_library_is_told_with_the_command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in (faces.DETECTOR, faces.RECOGNISER):
        (tmp_path / name).write_bytes(b"")
    for name in ("insightface", "insightface.app", "insightface.app.common", "insightface.model_zoo"):
        monkeypatch.setitem(__import__("sys").modules, name, None)
    assert "pip install 'insightface>=2.0'" in identify(Image.new("RGB", (64, 64)), [tmp_path]).note
    with pytest.raises(FaceToolsError, match="insightface but it can't be imported"):
        identify(Image.new("RGB", (64, 64)), [tmp_path], mode="require")


NUMBERS = np.arange(512, dtype=np.float32)


@pytest.mark.parametrize(
    "value",
    [
        torch.arange(512),
        torch.arange(512.0).reshape(1, 1, 512),
        NUMBERS,
        NUMBERS.tolist(),
        {"embedding": NUMBERS, "bbox": [0, 0, 1, 1]},
        SimpleNamespace(embedding=NUMBERS),
        [SimpleNamespace(embedding=NUMBERS)],
    ],
    ids=["tensor", "batched tensor", "array", "numbers", "mapping", "face", "list of faces"],
)
def test_what_other_packs_pass(value: object) -> None:
    assert torch.equal(read_embedding(value), torch.arange(512.0)[None])


@pytest.mark.parametrize(
    "value", [torch.zeros(256), torch.full((512,), torch.nan), "face", None, {"embedding": "x"}, [], object()]
)
def test_what_is_no_embedding(value: object) -> None:
    with pytest.raises(FaceError, match="expected 512"):
        read_embedding(value)
