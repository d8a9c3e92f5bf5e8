"""The command's face and delivery options as values: who speaks, and what becomes of the frames."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import product
from pathlib import Path

import torch
from PIL import Image
from torch import Tensor

from memo_avatar.checkpoint.companions import Settings, face_folders, home
from memo_avatar.files.header import DTYPES, read_header
from memo_avatar.files.weights_file import read_tensors
from memo_avatar.inputs import Crop, Portrait
from memo_avatar.portrait.face_crop import DEFAULT_MARGIN, FloatBox
from memo_avatar.portrait.faces import FaceToolsError, identify
from memo_avatar.portrait.images import open_image, to_pixels
from memo_avatar.portrait.prepare import FaceOptions, advise, prepare_portrait
from memo_avatar.video.delivery import MAX_H264_PIXELS, Delivery
from memo_avatar.video.paste import Paster, Pasters, picture_tensor

from .arguments import CommandError, Speaker, VideoOptions
from .progress import note

MAX_PASTED_PIXELS = 139_264 * 256  # macroblocks of H.264's highest level


def read_portraits(
    options: VideoOptions, settings: Settings, size: tuple[int, int], width: int
) -> tuple[list[Portrait], Paster | Pasters | None]:
    """What the model sees of each who speaks, at (width, height), and what pastes it back.

    ``width`` is the embedding's. What the user should know is told at once.
    """
    image = open_image(options.image)
    whole = bool(options.speakers) or options.paste_back
    fit = "face" if whole or options.face_crop is not None else options.fit
    if options.speakers:
        faces = [_face_of(speaker, image, options, settings, width) for speaker in options.speakers]
    else:
        embedding = load_face_embedding(options.face_embedding, width)
        faces = [_face(options, settings, options.face_box, embedding)]
    portraits, notes = list[Portrait](), advise(image, size, settings.size, settings.photographs)
    for face in faces:
        portrait, found = prepare_portrait(image, size, fit, face, width, str(options.image))
        portraits.append(portrait)
        notes += found
    for text in dict.fromkeys(notes):
        note(f"Warning: {text}")
    crops = [portrait.crop for portrait in portraits if portrait.crop is not None]
    if options.speakers:
        _check_apart([face.box for face in faces if face.box is not None], crops)
    return portraits, _paster(image, crops, options) if whole else None


def _face(
    options: VideoOptions, settings: Settings, box: FloatBox | None, embedding: Tensor | None
) -> FaceOptions:
    return FaceOptions(
        mode=options.face or "auto",
        index=options.face_index,
        folders=model_places(options),
        box=box,
        embedding=embedding,
        margin=DEFAULT_MARGIN if options.face_crop is None else options.face_crop,
        learned=settings.face_embeddings,
    )


def _face_of(
    speaker: Speaker, image: Image.Image, options: VideoOptions, settings: Settings, width: int
) -> FaceOptions:
    """One of several: a number is of a face that has to be found, a box says itself where one is."""
    if not isinstance(speaker.face, int):
        return _face(options, settings, speaker.face, None)
    try:
        found = identify(image, model_places(options), mode="require", index=speaker.face, width=width)
    except FaceToolsError as error:
        raise CommandError(
            f"expected boxes of the faces but got number {speaker.face} (--speaker) and nothing to find "
            f"faces with. Write left,top,right,bottom in pixels, or {error.remedy}."
        ) from error
    return _face(options, settings, found.box, found.embedding)


def _check_apart(faces: Sequence[FloatBox], crops: Sequence[Crop]) -> None:
    """What is pasted for one may cover the surroundings of another's face, but nothing of the face."""
    for (one, face), (other, crop) in product(enumerate(faces), enumerate(crops)):
        if one != other and _meet(face, crop.inside):
            advice = "Use a smaller --face-crop, such as 0.2"
            if _meet(face, faces[other]):
                advice = "Give each a face of its own"
            raise CommandError(
                f"expected faces apart but got number {one + 1} inside what is cut out around number "
                f"{other + 1} (--speaker). {advice}."
            )


def _meet(one: FloatBox, other: FloatBox) -> bool:
    """Whether two boxes have anything in common."""
    across = min(one[2], other[2]) > max(one[0], other[0])
    return across and min(one[3], other[3]) > max(one[1], other[1])


def _paster(image: Image.Image, crops: Sequence[Crop], options: VideoOptions) -> Paster | Pasters:
    if image.width * image.height > MAX_PASTED_PIXELS:
        raise CommandError(
            f"expected at most {MAX_PASTED_PIXELS // 1_000_000} million pixels to paste into but got "
            f"{image.width}x{image.height} ({options.image}). Scale it down: H.264 has no larger frames."
        )
    picture = picture_tensor(to_pixels(image))
    pasters = [Paster(picture, crop) for crop in crops]
    return Pasters(pasters) if options.speakers else pasters[0]


def model_places(options: VideoOptions) -> list[Path]:
    """Where the ONNX files may lie: given, with the checkpoint, or beside it."""
    if options.face_models is not None:
        return [options.face_models]
    folder = home(options.checkpoint)
    return face_folders([folder, folder.parent])


def warn_of_size(delivery: Delivery) -> None:
    """Told before a long run: a whole picture may be larger than players take."""
    if delivery.paster is None:
        return
    width, height = delivery.paster.size
    if width * height > MAX_H264_PIXELS:
        note(
            f"Warning: many players show no H.264 video larger than 4096x2304, and this one is "
            f"{width}x{height}. Scale the picture down if yours is one of them."
        )


def load_face_embedding(path: Path | None, width: int) -> Tensor | None:
    """(1, width): the one tensor of a .safetensors file, or its `embedding`, as face-swap packs save it."""
    if path is None:
        return None
    file = read_header(path)
    names = ["embedding"] if "embedding" in file.tensors else list(file.tensors)
    if len(names) != 1:
        raise CommandError(
            f"expected one tensor but got {len(names)} ({path}). Save the face embedding alone."
        )
    (name,) = names
    stored = file.tensors[name]
    if stored.dtype not in DTYPES or math.prod(stored.shape) != width:
        raise CommandError(
            f"expected {width} numbers but got {stored.dtype} of shape {stored.shape} ({path}, {name}). "
            "Use the embedding of ArcFace's glintr100."
        )
    return read_tensors(file, {name: name}, torch.float32)[name].reshape(1, width)
