"""MEMO Paste Back: the moving face in the whole, untouched picture."""

from __future__ import annotations

from typing import Any

import torch
from comfy_api.latest import io
from torch import Tensor

from ..memo_avatar.inputs import Portrait
from ..memo_avatar.portrait.images import ImageError
from ..memo_avatar.video.paste import DEFAULT_FEATHER
from .boundary.checks import check_value, checked
from .boundary.words import plain_errors
from .host.estimate import check_room
from .host.pictures import frames_of, opaque
from .host.schema import schema
from .host.sockets import MemoPortrait
from .host.video_inputs import cut_out, make_paster, paste_inputs

_SMALLER = "Use paste_back of MEMO Sampler to File, which keeps no frames, or a smaller picture."


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
                io.Image.Input("images", lazy=True, tooltip="From MEMO Sampler; upscaled ones are fine."),
                MemoPortrait.Input("portrait", tooltip="From MEMO Portrait with fit face."),
                *paste_inputs(),
                io.Image.Input(
                    "original",
                    optional=True,
                    lazy=True,
                    tooltip="Another version of the picture, of the same size; or one for each image, such "
                    "as the video of another speaker in the same picture. Without it, the portrait's.",
                ),
            ],
            outputs=[io.Image.Output(display_name="images")],
            search_aliases=["memo", "composite", "stitch", "uncrop", "blend face"],
        )

    @classmethod
    def check_lazy_status(cls, portrait: Any = None, **others: Any) -> list[str]:
        """Frames are asked for, and so made, only when it is known that they can be pasted."""
        with plain_errors():
            cut_out(check_value(MemoPortrait.Input("portrait"), portrait))
        return [name for name in ("images", "original") if others.get(name, "") is None]

    @classmethod
    @checked
    def execute(
        cls,
        images: Tensor,
        portrait: Portrait,
        feather: float = DEFAULT_FEATHER,
        match_colour: bool = True,
        original: Tensor | None = None,
    ) -> io.NodeOutput:
        images = frames_of(images, "images")
        paster = make_paster(portrait, feather, match_colour, original)
        width, height = paster.size
        check_room(len(images), width, height, "MEMO Paste Back", _SMALLER)
        moving = _one_each(original, len(images))
        whole = torch.empty(len(images), height, width, 3)
        for index, frame in enumerate(images):
            onto = None if moving is None else opaque(moving[index : index + 1]).movedim(-1, 0)
            whole[index] = paster.paste(frame.movedim(-1, 0), onto).movedim(0, -1)
        return io.NodeOutput(whole)


def _one_each(original: Tensor | None, count: int) -> Tensor | None:
    """The originals where there is one for each image, None where one serves all."""
    if original is None or original.ndim != 4 or len(original) == 1:
        return None
    if len(original) != count:
        raise ImageError(
            f"expected one original, or one for each of {count} images, but got {len(original)} (original). "
            "Give both speakers sounds of the same length, silent where the other one speaks."
        )
    return original
