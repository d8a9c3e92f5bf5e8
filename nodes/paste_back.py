"""MEMO Paste Back: the moving face in the whole, untouched picture."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import torch
from comfy_api.latest import io
from torch import Tensor

from ..memo_avatar.files.foreign import counted
from ..memo_avatar.inputs import Portrait
from ..memo_avatar.portrait.images import ImageError
from ..memo_avatar.timing import FPS
from ..memo_avatar.video.paste import DEFAULT_FEATHER
from .boundary.checks import check_values, checked
from .boundary.graph import links_of, sampler_behind, typed
from .boundary.words import plain_errors
from .host.estimate import check_room
from .host.pictures import frames_of, opaque
from .host.schema import schema
from .host.sockets import MemoPortrait
from .host.video_inputs import make_paster, paste_inputs

_EQUAL = (
    "Give both samplers the same fps and both speakers sounds of the same length, silent where the other one "
    "speaks"
)
_CUT = 0.05  # of the shape, which a node between may have cut off
_STEP = 64  # the most that an upscaler makes sides multiples of
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
            hidden=[io.Hidden.unique_id, io.Hidden.dynprompt],
            search_aliases=["memo", "composite", "stitch", "uncrop", "blend face"],
        )

    @classmethod
    def check_lazy_status(cls, **given: Any) -> list[str]:
        """What no sampler makes is asked for and checked first, so that no frame is made in vain."""
        with plain_errors():
            values = check_values(cls.define_schema().inputs, given)
            images, original = values.pop("images", None), values.get("original")
            make_paster(**values)
            links = links_of(cls)
            _check_rates(links, cls.hidden.dynprompt)
        if original is None and "original" in links:
            return ["original"]
        return ["images"] if images is None else []

    @classmethod
    @checked
    def execute(
        cls,
        images: Tensor | None,
        portrait: Portrait,
        feather: float = DEFAULT_FEATHER,
        match_colour: bool = True,
        original: Tensor | None = None,
    ) -> io.NodeOutput:
        if images is None and original is None and "original" in links_of(cls):
            raise ImageError(
                "expected a picture but got nothing (original). Connect a picture to original, or "
                "disconnect it."
            )
        images = frames_of(images, "images")
        _check_shape(images, portrait)
        paster = make_paster(portrait, feather, match_colour, original)
        width, height = paster.size
        check_room(len(images), width, height, "MEMO Paste Back", _SMALLER)
        moving = _one_each(original, len(images))
        whole = torch.empty(len(images), height, width, 3)
        for index, frame in enumerate(images):
            onto = None if moving is None else opaque(moving[index : index + 1]).movedim(-1, 0)
            whole[index] = paster.paste(frame.movedim(-1, 0), onto).movedim(0, -1)
        return io.NodeOutput(whole)


def _check_rates(links: Mapping[str, Any], graph: Any) -> None:
    """Two speakers' samplers, where the graph itself tells their rates: before either has made a frame."""
    samplers = (sampler_behind(links.get(name), graph) for name in ("images", "original"))
    rates = {rate for inputs in samplers if inputs and (rate := typed(inputs, "fps", str(FPS))) is not None}
    if len(rates) > 1:
        raise ImageError(f"expected one rate but got {' and '.join(sorted(rates))} (fps). {_EQUAL}.")


def _check_shape(images: Tensor, portrait: Portrait) -> None:
    """Frames may have been upscaled, but not be another video's."""
    (height, width), (rows, columns) = images.shape[1:3], portrait.pixel_values.shape[-2:]
    is_near = abs(width * rows / (height * columns) - 1) <= _CUT
    if not is_near and not _is_rounded((width, height), (columns, rows)):
        raise ImageError(
            f"expected frames of the portrait's shape, {columns}x{rows}, but got {width}x{height} (images). "
            "Connect the images of the MEMO Sampler that has this portrait, as they are or upscaled."
        )


def _is_rounded(sides: tuple[int, int], original: tuple[int, int]) -> bool:
    """Whether sides are the original's times one factor, each then rounded up, down or to the nearest
    multiple of the largest power of two that both have.
    """
    common = math.gcd(*sides)
    step = min(_STEP, common & -common)
    for below in (0, step / 2, step):  # by how much the exact side may lie below the rounded one
        lows = [(side - below) / whole for side, whole in zip(sides, original, strict=True)]
        highs = [(side - below + step) / whole for side, whole in zip(sides, original, strict=True)]
        if max(lows) < min(highs):
            return True
    return False


def _one_each(original: Tensor | None, count: int) -> Tensor | None:
    """The originals where there is one for each image, None where one serves all."""
    if original is None or original.ndim != 4 or len(original) == 1:
        return None
    if len(original) != count:
        raise ImageError(
            f"expected one original, or one for each of {counted(count, 'image')}, but got {len(original)} "
            f"(original). {_EQUAL}; of a video of your own, as many frames as MEMO Voice says."
        )
    return original
