"""Who is in a picture: the largest face's box and ArcFace embedding, as upstream's preprocessing finds them.

insightface (the optional extra `face`) runs the two ONNX files that MEMO was trained with; both are looked
for in folders and never downloaded. Upstream runs detection at 640 pixels only; here smaller sizes are tried
where that finds nothing, because a face that fills the picture is missed at 640.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from ..files.foreign import counted, in_words, shown
from ..files.published_models import FACES
from .face_crop import FloatBox
from .images import ImageError

FaceMode = Literal["auto", "require", "none"]
FACE_MODES: tuple[FaceMode, ...] = get_args(FaceMode)

DETECTOR, RECOGNISER = "scrfd_10g_bnkps.onnx", "glintr100.onnx"
DETECTION_SIZES = (640, 320, 160)
THRESHOLD = 0.5
INSTALL = "python -m pip install 'insightface>=2.0'"
NO_FACE = "Use a face from the front for a closer likeness: none was found in the picture."
CLOSER = "For a closer likeness, {}."


class FaceError(ImageError):
    """No face, no such face, or nothing to find faces with. The text is the whole message."""


class FaceToolsError(FaceError):
    """The library or its files are missing or broken; ``remedy`` is what to do, as a clause."""

    def __init__(self, message: str, remedy: str) -> None:
        super().__init__(message)
        self.remedy = remedy


@dataclass(frozen=True)
class Identity:
    """Whose face: ``embedding`` (1, N), zeros for nobody's; where it is; and what the user should know."""

    embedding: Tensor
    box: FloatBox | None = None
    note: str = ""


def identify(
    image: Image.Image,
    folders: Iterable[Path],
    *,
    mode: FaceMode = "auto",
    index: int = 0,
    near: FloatBox | None = None,
    width: int = 512,
) -> Identity:
    """The identity of face number ``index`` (0: the largest) of an upright RGB picture, or of the one that
    lies most in the box ``near``: whoever else is larger does not count then.

    auto: what is missing is told in the note, and the zero embedding stands in. require: it is an error.
    """
    nobody = torch.zeros(1, width)
    if mode not in FACE_MODES:
        raise FaceError(f"expected one of {', '.join(FACE_MODES)} but got {shown(mode)} (face). Use auto.")
    if mode == "none":
        return Identity(nobody)
    try:
        found = FaceFinder(find_folder(folders)).find(image, index, near)
    except FaceToolsError as error:
        if mode == "require":
            raise
        return Identity(nobody, note=CLOSER.format(error.remedy))
    if found is None:
        if mode == "require":
            raise FaceError(
                f"expected a face but found none (picture of {image.width}x{image.height}). Use a picture of "
                "a face from the front, or choose face auto or none to go on without one."
            )
        return Identity(nobody, note=NO_FACE)
    return Identity(read_embedding(found[0], width), found[1])


def likeness_to(portrait: Tensor, folders: Iterable[Path]) -> Callable[[Tensor], float | None] | None:
    """What tells how alike the largest face of a frame (3, H, W) in 0..1 is to that of an embedding (1, N):
    the cosine, None without a face. None itself for nobody's embedding, or with nothing to find faces with.
    """
    if not portrait.any():
        return None
    try:
        finder = FaceFinder(find_folder(folders))
    except FaceToolsError:
        return None

    def likeness(frame: Tensor) -> float | None:
        pixels = (frame.movedim(0, -1) * 255).round().to(torch.uint8).numpy()
        found = finder.find(Image.fromarray(pixels))
        if found is None:
            return None
        embedding = read_embedding(found[0], portrait.shape[-1])
        return float(torch.cosine_similarity(embedding, portrait.float().cpu()))

    return likeness


def find_folder(folders: Iterable[Path]) -> Path:
    """The first folder, or its subfolder `models`, that holds both ONNX files."""
    looked = [place for folder in folders for place in (folder, folder / "models")]
    for place in looked:
        if (place / DETECTOR).is_file() and (place / RECOGNISER).is_file():
            return place
    where = Path(*looked[0].parts[-3:]) if looked else Path(FACES)
    remedy = f"put {DETECTOR} and {RECOGNISER} of insightface's antelopev2 into {where}"
    raise FaceToolsError(
        f"expected {DETECTOR} and {RECOGNISER} but found them nowhere (face models). Copy both from "
        f"misc/face_analysis/models of memoavatar/memo, or from insightface's antelopev2, to {where}.",
        remedy,
    )


class FaceFinder:
    """Both networks, on the CPU: one picture takes less than loading them onto a GPU."""

    def __init__(self, folder: Path) -> None:
        try:
            from insightface.app.common import Face
            from insightface.model_zoo import get_model
        except ImportError as error:
            raise FaceToolsError(
                f"expected the package insightface but it can't be imported: {_line(error)} (face). "
                f"Run: {INSTALL}",
                f"run {INSTALL}",
            ) from error
        self._new_face = Face
        self._detector = _open(get_model, folder / DETECTOR, "detect")
        self._recogniser = _open(get_model, folder / RECOGNISER, "get_feat")

    def find(
        self, image: Image.Image, index: int = 0, near: FloatBox | None = None
    ) -> tuple[NDArray[Any], FloatBox] | None:
        """(embedding, box) of one face, counted from the largest, or ``near``; None where there is none."""
        pixels = np.ascontiguousarray(np.asarray(image)[:, :, ::-1])  # blue first, as insightface expects
        boxes, points = self._detect(pixels)
        if not len(boxes):
            return None
        areas = _inside(boxes, near or (-np.inf, -np.inf, np.inf, np.inf))
        order = np.argsort(-areas, kind="stable")
        if near is None:
            check_index(index, len(order))
        elif not areas.max():
            return None
        chosen = order[index if near is None else 0]
        left, top, right, bottom = (float(value) for value in boxes[chosen, :4])
        embedding = self._recogniser.get(pixels, self._new_face(kps=points[chosen]))
        return embedding, (left, top, right, bottom)

    def _detect(self, pixels: NDArray[Any]) -> tuple[NDArray[Any], NDArray[Any]]:
        for size in DETECTION_SIZES:
            self._detector.prepare(-1, input_size=(size, size), det_thresh=THRESHOLD)
            boxes, points = self._detector.detect(pixels, max_num=0, metric="default")
            if len(boxes):
                break
        return boxes, points


def check_index(index: int, count: int) -> None:
    """A face that is there."""
    if not 0 <= index < count:
        there = f"{counted(count, 'face')} {'was' if count == 1 else 'were'} found"
        raise FaceError(
            f"expected a face number from 0 to {count - 1} but got {index} (face index): {there}. "
            "0 is the largest."
        )


def read_embedding(value: Any, width: int = 512) -> Tensor:
    """(1, width) from what other packs pass: numbers, an insightface face, or a list of them (the first).

    Faces are insightface's own objects, or a mapping with `embedding`. It has to be glintr100's (antelopev2):
    other recognisers' embeddings have the same length and mean nothing to MEMO.
    """
    given = value
    if isinstance(value, Mapping) or hasattr(value, "embedding"):
        value = value.get("embedding") if isinstance(value, Mapping) else value.embedding
    elif isinstance(value, (list, tuple)) and len(value) and not isinstance(value[0], (int, float)):
        return read_embedding(value[0], width)
    try:
        embedding = torch.as_tensor(value, dtype=torch.float32)
    except (TypeError, ValueError, RuntimeError) as error:
        raise FaceError(
            f"expected {width} numbers but got {in_words(given)} (face embedding). Connect the "
            "embedding of insightface's glintr100."
        ) from error
    if embedding.numel() != width or not torch.isfinite(embedding).all():
        raise FaceError(
            f"expected {width} finite numbers but got {in_words(embedding)} (face embedding). "
            "Use the embedding of insightface's glintr100."
        )
    return embedding.detach().cpu().reshape(1, width)


def read_faces(analysis: Any, image: Image.Image, index: int = 0, width: int = 512) -> Identity | None:
    """The identity that another pack's insightface FaceAnalysis object finds; None where it finds no face."""
    faces = analysis.get(np.ascontiguousarray(np.asarray(image)[:, :, ::-1]))
    if not faces:
        return None
    faces = sorted(faces, key=lambda face: -_area(face["bbox"]))
    check_index(index, len(faces))
    left, top, right, bottom = (float(value) for value in faces[index]["bbox"])
    return Identity(read_embedding(faces[index], width), (left, top, right, bottom))


def _inside(boxes: NDArray[Any], box: FloatBox) -> NDArray[Any]:
    """How much of each of the (N, 4) boxes lies in one, in pixels."""
    low, high = np.maximum(boxes[:, :2], box[:2]), np.minimum(boxes[:, 2:4], box[2:])
    return np.prod(np.maximum(high - low, 0), axis=1)


def _area(box: Any) -> float:
    area = float((box[2] - box[0]) * (box[3] - box[1]))
    return area if math.isfinite(area) else 0.0


def _open(get_model: Any, path: Path, ability: str) -> Any:
    """One network; whatever onnxruntime says of a broken file becomes one line."""
    try:
        model = get_model(str(path), providers=["CPUExecutionProvider"])
    except Exception as error:  # onnxruntime's and protobuf's errors share no class of their own
        raise FaceToolsError(
            f"expected a whole ONNX file but got {_line(error)} ({path}). Download it again.",
            f"download {path.name} again: it is damaged",
        ) from error
    if not hasattr(model, ability):
        raise FaceToolsError(
            f"expected {path.name} but got another network under its name ({path}). Download it again.",
            f"download {path.name} again: it is another network",
        )
    return model


def _line(error: BaseException) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0].rstrip(".")
