"""MEMO Paste Back: the moving face in the whole, untouched picture."""

from __future__ import annotations

from typing import Any

import comfy.model_management as management
import torch
from comfy_api.latest import io
from torch import Tensor

from ..memo_avatar.images import ImageError
from ..memo_avatar.paste import DEFAULT_FEATHER, MAX_FEATHER, Paster
from .host_estimate import GIB
from .host_nodes import schema
from .memo_portrait import opaque
from .sockets import EncodedPortrait, MemoPortrait

_BYTES_PER_PIXEL = 3 * 4  # float32 RGB


class PasteBackNode(io.ComfyNode):
    """IMAGE, MEMO_PORTRAIT -> IMAGE of the whole picture's size."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return schema(
            "MEMO_PasteBack",
            "MEMO Paste Back",
            "Blends the frames of a portrait made with fit face into the picture it was cut from. Everything "
            "outside the face's square stays as it is.",
            inputs=[
                io.Image.Input("images", tooltip="From MEMO Sampler; upscaled ones are fine."),
                MemoPortrait.Input("portrait", tooltip="From MEMO Portrait with fit face."),
                *paste_inputs(),
                io.Image.Input(
                    "original",
                    optional=True,
                    tooltip="Another version of the picture, of the same size. Without it, the portrait's.",
                ),
            ],
            outputs=[io.Image.Output(display_name="images")],
            search_aliases=["memo", "composite", "stitch", "uncrop", "blend face"],
        )

    @classmethod
    def execute(
        cls,
        images: Tensor,
        portrait: EncodedPortrait,
        feather: float = DEFAULT_FEATHER,
        match_colour: bool = True,
        original: Tensor | None = None,
    ) -> io.NodeOutput:
        paster = make_paster(portrait, feather, match_colour, original)
        width, height = paster.size
        _check_room(len(images), width, height)
        whole = torch.empty(len(images), height, width, 3)
        for index, frame in enumerate(images):
            whole[index] = paster.paste(frame[..., :3].movedim(-1, 0)).movedim(0, -1)
        return io.NodeOutput(whole)


def _check_room(frames: int, width: int, height: int) -> None:
    needed = frames * height * width * _BYTES_PER_PIXEL
    free = management.get_free_memory(torch.device("cpu"))
    if needed > free:
        raise MemoryError(
            f"expected {needed / GIB:.1f} GiB of free RAM for {frames} frames of {width}x{height} but got "
            f"{free / GIB:.1f} GiB (MEMO Paste Back). Use paste_back of MEMO Sampler to File, which keeps no "
            "frames, or a smaller picture."
        )


def paste_inputs() -> list[Any]:
    """How the face is blended in."""
    return [
        io.Float.Input(
            "feather",
            default=DEFAULT_FEATHER,
            min=0.0,
            max=MAX_FEATHER,
            step=0.01,
            optional=True,
            tooltip="Width of the soft border, as a share of the face's square.",
        ),
        io.Boolean.Input(
            "match_colour",
            default=True,
            optional=True,
            tooltip="Bring the first frame's colours to the picture's, and all others by the same amount.",
        ),
    ]


def make_paster(
    portrait: EncodedPortrait, feather: float, match_colour: bool, original: Tensor | None = None
) -> Paster:
    """What puts frames back into the portrait's picture, or into another version of it."""
    if portrait.crop is None or portrait.picture is None:
        raise ImageError(
            "expected a portrait cut out around the face but got a whole picture (portrait). "
            "Choose fit face in MEMO Portrait."
        )
    picture = portrait.picture if original is None else opaque(original)
    return Paster(picture.movedim(-1, 0), portrait.crop, feather=feather, match_colour=match_colour)
