"""A picture becomes what the model sees."""

from __future__ import annotations

from typing import Any

import torch
from comfy_api.latest import io
from torch import Tensor

from ..memo_avatar.clip_loop import Portrait
from ..memo_avatar.images import check_size, crop_to_fill, letterbox, to_pixels
from .host_nodes import schema
from .sockets import EncodedPortrait, Memo, MemoNets, MemoPortrait


class PortraitNode(io.ComfyNode):
    """IMAGE -> MEMO_PORTRAIT and the picture as the model will see it."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        size = {"default": 0, "min": 0, "max": 4096, "step": 8}
        return schema(
            "MEMO_Portrait",
            "MEMO Portrait",
            "Fits a picture to the size of the video without ever squashing it. The face should fill about "
            "half of it.",
            inputs=[
                io.Image.Input(
                    "image", tooltip="The person, facing the camera. Of a batch, the first picture."
                ),
                Memo.Input("memo", tooltip="From Load MEMO."),
                io.Int.Input(
                    "width",
                    tooltip="Width of the video in pixels, a multiple of 8; 0: the checkpoint's own.",
                    **size,
                ),
                io.Int.Input(
                    "height",
                    tooltip="Height of the video in pixels, a multiple of 8; 0: the checkpoint's own.",
                    **size,
                ),
                io.Combo.Input(
                    "fit",
                    options=["crop", "letterbox"],
                    default="crop",
                    tooltip="How another aspect is fitted. crop: cut to the middle. letterbox: keep all, "
                    "grey borders.",
                ),
            ],
            outputs=[
                MemoPortrait.Output(display_name="portrait"),
                io.Image.Output(display_name="image", tooltip="What the model will see."),
            ],
            search_aliases=["memo", "face", "reference image", "avatar"],
        )

    @classmethod
    def execute(cls, image: Tensor, memo: MemoNets, width: int, height: int, fit: str) -> io.NodeOutput:
        width, height = width or memo.size, height or memo.size
        check_size(width, height)
        picture = _to_picture(image[0])
        fitted = crop_to_fill(picture, width, height) if fit == "crop" else letterbox(picture, width, height)
        pixels = to_pixels(fitted)
        # Upstream's own stand-in where no face was found: likeness then comes from the picture alone.
        face_embedding = torch.zeros(1, memo.config.image_proj.embedding_dim)
        portrait = EncodedPortrait(Portrait(pixels, face_embedding))
        return io.NodeOutput(portrait, (pixels / 2 + 0.5).movedim(1, -1))


def _to_picture(image: Tensor) -> Any:
    """(H, W, C) in 0..1 -> an 8-bit RGB picture; transparency is dropped."""
    from PIL import Image

    pixels = (image[..., :3].clamp(0, 1) * 255).round().to(torch.uint8).cpu()
    return Image.fromarray(pixels.expand(*pixels.shape[:2], 3).numpy())
