"""The command's face and delivery options as values: the portrait, and what becomes of the frames."""

from __future__ import annotations

import math
from pathlib import Path

import torch
from torch import Tensor

from memo_avatar.checkpoint.companions import Settings, face_folders, home
from memo_avatar.files.header import DTYPES, read_header
from memo_avatar.files.weights_file import read_tensors
from memo_avatar.inputs import Portrait
from memo_avatar.portrait.face_crop import DEFAULT_MARGIN
from memo_avatar.portrait.images import open_image, to_pixels
from memo_avatar.portrait.prepare import FaceOptions, advise, prepare_portrait
from memo_avatar.video.delivery import MAX_H264_PIXELS, Delivery
from memo_avatar.video.paste import Paster, picture_tensor

from .arguments import CommandError, VideoOptions
from .progress import note

MAX_PASTED_PIXELS = 139_264 * 256  # macroblocks of H.264's highest level


def read_portrait(
    options: VideoOptions, settings: Settings, size: tuple[int, int], width: int
) -> tuple[Portrait, Paster | None]:
    """What the model sees at (width, height), and what pastes it back; ``width`` is the embedding's.

    What the user should know about it is told at once.
    """
    image = open_image(options.image)
    margin = options.face_crop
    if margin is None and options.paste_back:
        margin = DEFAULT_MARGIN
    face = FaceOptions(
        mode=options.face or "auto",
        index=options.face_index,
        folders=model_places(options),
        box=options.face_box,
        embedding=load_face_embedding(options.face_embedding, width),
        margin=DEFAULT_MARGIN if margin is None else margin,
        learned=settings.face_embeddings,
    )
    fit = options.fit if margin is None else "face"
    portrait, notes = prepare_portrait(image, size, fit, face, width, str(options.image))
    for text in [*advise(image, size, settings.size, settings.photographs), *notes]:
        note(f"Warning: {text}")
    if not options.paste_back or portrait.crop is None:
        return portrait, None
    if image.width * image.height > MAX_PASTED_PIXELS:
        raise CommandError(
            f"expected at most {MAX_PASTED_PIXELS // 1_000_000} million pixels to paste into but got "
            f"{image.width}x{image.height} ({options.image}). Scale it down: H.264 has no larger frames."
        )
    return portrait, Paster(picture_tensor(to_pixels(image)), portrait.crop)


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
