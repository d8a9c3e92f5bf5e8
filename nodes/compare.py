"""TeaCache Compare: what the cache saved and what it cost, in a sentence and in pictures."""

from __future__ import annotations

from comfy_api.latest import io
from torch import Tensor

from ..memo_avatar.video.difference import GAIN, measure, side_by_side
from .boundary.checks import checked
from .host.estimate import check_room
from .host.pictures import frames_of
from .host.schema import schema, show_text
from .host.sockets import MemoReport, VideoReport


class CompareNode(io.ComfyNode):
    """Two runs of one seed -> their frames side by side, the worst of them, a verdict."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return schema(
            "MEMO_TeaCacheCompare",
            "TeaCache Compare",
            "Compares a run with TeaCache with the same run without it: how much faster, and how much the "
            "pictures differ.",
            inputs=[
                io.Image.Input("full", tooltip="Frames of the MEMO Sampler without TeaCache."),
                io.Image.Input(
                    "cached", tooltip="Frames of the MEMO Sampler with TeaCache, of the same seed and steps."
                ),
                MemoReport.Input("full_report", tooltip="Report of the MEMO Sampler without TeaCache."),
                MemoReport.Input("cached_report", tooltip="Report of the MEMO Sampler with TeaCache."),
            ],
            outputs=[
                io.Image.Output(
                    display_name="images",
                    tooltip=f"For Create Video: without, with, and {GAIN} times the difference.",
                ),
                io.Image.Output(display_name="worst", tooltip="The same of the frame that differs most."),
                io.String.Output(display_name="verdict"),
            ],
            hidden=[io.Hidden.unique_id],
            has_intermediate_output=True,
            search_aliases=["teacache", "difference", "speed", "quality", "a/b test"],
        )

    @classmethod
    @checked
    def execute(
        cls, full: Tensor, cached: Tensor, full_report: VideoReport, cached_report: VideoReport
    ) -> io.NodeOutput:
        full, cached = frames_of(full, "full"), frames_of(cached, "cached")
        found = measure(full, cached)
        height, width = full.shape[1:3]
        check_room(len(full), 3 * width, height, "TeaCache Compare", "Compare a shorter part of the voice.")
        panels = side_by_side(full, cached)
        text = (
            f"{_pace(full_report, cached_report)} The pictures differ by {found.mean:.1f} of 255 levels on "
            f"average, at most by {found.most:.0f}; most of all in frame {found.frame}."
        )
        show_text(cls, text)
        worst = panels[found.frame : found.frame + 1]
        return io.NodeOutput(panels, worst, text, ui={"text": (text,)})


def _pace(full: VideoReport, cached: VideoReport) -> str:
    ratio = full.seconds / max(cached.seconds, 1e-9)
    both = f"{cached.seconds:.1f} s instead of {full.seconds:.1f} s"
    return f"{ratio:.1f} times faster: {both}." if ratio > 1.05 else f"Not faster: {both}."
