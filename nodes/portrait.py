"""A picture becomes what the model sees."""

from __future__ import annotations

import logging
from dataclasses import replace
from typing import Any

import torch
from comfy_api.latest import io
from torch import Tensor

from ..memo_avatar.inputs import Crop
from ..memo_avatar.portrait.face_crop import DEFAULT_MARGIN, MAX_MARGIN, FloatBox, parse_box
from ..memo_avatar.portrait.face_places import listed_box, mask_box
from ..memo_avatar.portrait.faces import (
    FACE_MODES,
    NO_FACE,
    FaceError,
    FaceMode,
    Identity,
    read_embedding,
    read_faces,
)
from ..memo_avatar.portrait.images import check_size
from ..memo_avatar.portrait.prepare import FRAMINGS, FaceOptions, Framing, advise, prepare_portrait
from .boundary.checks import checked, refusal_of
from .host.folders import face_places
from .host.pictures import opaque, to_picture
from .host.schema import ADVANCED, schema, show_text
from .host.sockets import Memo, MemoNets, MemoPortrait

logger = logging.getLogger(__name__)

FACE_SOURCES = ("MEMO_FACE", "FACEANALYSIS", "INSIGHTFACE", "FACE_MODEL")
"""Sockets of other packs that carry a face: an insightface FaceAnalysis (InstantID, PuLID; IPAdapter) or an
insightface face (ReActor)."""


class PortraitNode(io.ComfyNode):
    """IMAGE -> MEMO_PORTRAIT, the picture as the model will see it, and where it was taken from."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return schema(
            "MEMO_Portrait",
            "MEMO Portrait",
            "Fits a picture to the size of the video without ever squashing it. The face should fill about "
            "half of it: fit face cuts it out, and MEMO Paste Back puts the moving face back.",
            inputs=[*_picture_inputs(), *_face_inputs()],
            outputs=[
                MemoPortrait.Output(display_name="portrait"),
                io.Image.Output(display_name="image", tooltip="What the model will see."),
                io.Mask.Output(display_name="crop", tooltip="Where in the picture that was taken from."),
            ],
            hidden=[io.Hidden.unique_id],
            essentials_category="Video Generation",
            search_aliases=["memo", "lip sync", "face", "reference image", "avatar", "crop", "insightface"],
        )

    @classmethod
    def validate_inputs(
        cls, face_box: str | None = None, width: int | None = None, height: int | None = None
    ) -> bool | str:
        """The written box and the size, before the run."""
        return refusal_of(cls, _check_typed, face_box=face_box, width=width, height=height)

    @classmethod
    @checked
    def execute(
        cls,
        image: Tensor,
        memo: MemoNets,
        width: int,
        height: int,
        fit: Framing,
        face: FaceMode = "auto",
        face_index: int = 0,
        margin: float = DEFAULT_MARGIN,
        face_box: str = "",
        face_mask: Tensor | None = None,
        face_embedding: Any = None,
        face_boxes: Any = None,
    ) -> io.NodeOutput:
        picture = opaque(image)
        shown = to_picture(picture)
        dim = memo.config.image_proj.embedding_dim
        box = _box(face_box, face_mask, face_boxes, face_index, shown.size)
        known = _known(face_embedding, shown, face, face_index, dim)
        if known is not None:
            box = box or known.box
        options = FaceOptions(
            mode=face,
            index=face_index,
            folders=face_places(memo.path),
            box=box,
            embedding=None if known is None else known.embedding,
            margin=margin,
            learned=memo.face_embeddings,
        )
        size = width or memo.size, height or memo.size
        portrait, notes = prepare_portrait(shown, size, fit, options, dim)
        if known is not None and known.note:
            notes.insert(0, known.note)
        notes = [*advise(shown, size, memo.size, memo.photographs), *notes]
        for note in notes:
            logger.warning(note)
        if notes:
            show_text(cls, "\n".join(notes))
        if portrait.crop is not None:
            portrait = replace(portrait, picture=picture.movedim(-1, 0))
        seen = (portrait.pixel_values / 2 + 0.5).movedim(1, -1)
        return io.NodeOutput(portrait, seen, _crop_mask(picture, portrait.crop))


def _picture_inputs() -> list[Any]:
    size = {"default": 0, "min": 0, "max": 4096, "step": 8}
    return [
        io.Image.Input(
            "image",
            tooltip="The person, facing the camera. Of a batch, the first picture. A cut-out: through Join "
            "Image with Alpha first.",
        ),
        Memo.Input("memo", tooltip="From Load MEMO."),
        io.Int.Input(
            "width", tooltip="Width of the video in pixels, a multiple of 8; 0: the checkpoint's own.", **size
        ),
        io.Int.Input(
            "height",
            tooltip="Height of the video in pixels, a multiple of 8; 0: the checkpoint's own.",
            **size,
        ),
        io.Combo.Input(
            "fit",
            options=list(FRAMINGS),
            default="crop",
            tooltip="How another aspect is fitted. crop: cut to the middle. letterbox: keep all, grey "
            "borders. face: a square around the face, for MEMO Paste Back.",
        ),
    ]


def _face_inputs() -> list[Any]:
    """Newer than the inputs above, so at the end: stored workflows keep their values by position."""
    return [
        io.Combo.Input(
            "face",
            options=list(FACE_MODES),
            default="auto",
            optional=True,
            tooltip="Whether insightface looks for the face and tells the model who it is. auto: where it "
            "can, else with a warning. require: an error where it can't. none: not at all.",
        ),
        io.Int.Input(
            "face_index",
            default=0,
            min=0,
            max=99,
            optional=True,
            extra_dict=ADVANCED,
            tooltip="Which face, counted from the largest.",
        ),
        io.Float.Input(
            "margin",
            default=DEFAULT_MARGIN,
            min=0.0,
            max=MAX_MARGIN,
            step=0.05,
            optional=True,
            tooltip="With fit face: room on each side of the face, in faces. 0.5: the face fills half.",
        ),
        io.String.Input(
            "face_box",
            default="",
            optional=True,
            extra_dict=ADVANCED,
            tooltip="Where the face is: left,top,right,bottom in pixels of the picture. Empty: face_mask, "
            "else detected, else the middle.",
        ),
        io.Mask.Input(
            "face_mask", optional=True, tooltip="Or paint over the face in the mask editor of Load Image."
        ),
        io.Custom(",".join(FACE_SOURCES)).Input(
            "face_embedding",
            optional=True,
            tooltip="A face of another pack: InstantID's or PuLID's face analysis, or ReActor's face model.",
        ),
        io.Custom("BOUNDING_BOX").Input(
            "face_boxes",
            optional=True,
            extra_dict={"forceInput": True},
            tooltip="Or the boxes of a face detector, such as ComfyUI's MediaPipe Face Landmarker.",
        ),
    ]


def _check_typed(face_box: str = "", width: int = 0, height: int = 0) -> None:
    """A side that is not known yet, the checkpoint's own or a linked one, is taken to be like the other."""
    if face_box.strip():
        parse_box(face_box)
    if width or height:
        check_size(width or height, height or width)


def _box(text: str, mask: Tensor | None, boxes: Any, index: int, picture: tuple[int, int]) -> FloatBox | None:
    """Where the face is, by the first that says it: written, painted, detected by another node."""
    if text.strip():
        return parse_box(text)
    painted = None if mask is None else mask_box(mask, picture)
    return painted or (None if boxes is None else listed_box(boxes, index))


def _known(value: Any, picture: Any, mode: FaceMode, index: int, dim: int) -> Identity | None:
    """What another pack says about the face; its analysis may find none."""
    if value is None:
        return None
    if not (hasattr(value, "get") and hasattr(value, "prepare")):
        return Identity(read_embedding(value, dim))
    found = read_faces(value, picture, index, dim)
    if found is None and mode == "require":
        raise FaceError("expected a face but found none (image). Use a picture of a face from the front.")
    return found or Identity(torch.zeros(1, dim), note=NO_FACE)


def _crop_mask(picture: Tensor, crop: Crop | None) -> Tensor:
    """(1, H, W): 1 where the model sees the picture."""
    mask = torch.ones(1, *picture.shape[:2])
    if crop is not None:
        left, top, right, bottom = crop.inside
        mask.zero_()[:, top:bottom, left:right] = 1
    return mask
