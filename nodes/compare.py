"""TeaCache Compare: what the cache saved and what it cost, in a sentence and in pictures."""

from __future__ import annotations

from typing import Any

from comfy_api.latest import io
from torch import Tensor

from ..memo_avatar.timing import FPS
from ..memo_avatar.video.difference import GAIN, measure, side_by_side
from .boundary.checks import checked
from .boundary.graph import inputs_behind, links_of, sampler_behind, typed
from .boundary.words import plain_errors
from .host.estimate import check_room
from .host.pictures import frames_of
from .host.schema import schema, show_text
from .host.sockets import MemoReport, VideoReport

_VIDEOS = ("full", "cached")
_REPORTS = ("full_report", "cached_report")


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
                io.Image.Input("full", lazy=True, tooltip="Frames of the MEMO Sampler without TeaCache."),
                io.Image.Input(
                    "cached",
                    lazy=True,
                    tooltip="Frames of the MEMO Sampler with TeaCache, of the same seed and steps.",
                ),
                MemoReport.Input(
                    "full_report", lazy=True, tooltip="Report of the MEMO Sampler without TeaCache."
                ),
                MemoReport.Input(
                    "cached_report", lazy=True, tooltip="Report of the MEMO Sampler with TeaCache."
                ),
            ],
            outputs=[
                io.Image.Output(
                    display_name="images",
                    tooltip=f"For Create Video: without, with, and {GAIN} times the difference.",
                ),
                io.Image.Output(display_name="worst", tooltip="The same of the frame that differs most."),
                io.String.Output(display_name="verdict"),
            ],
            hidden=[io.Hidden.unique_id, io.Hidden.dynprompt],
            is_output_node=True,  # so the host asks it first, before either sampler
            search_aliases=["teacache", "difference", "speed", "quality", "a/b test"],
        )

    @classmethod
    def check_lazy_status(cls, **given: Any) -> list[str]:
        """Before either run is made: what can't be compared is refused, and two seeds are told."""
        with plain_errors():
            _check_sizes(cls)
        if advice := _advice(cls):
            show_text(cls, advice)
        return [name for name in (*_VIDEOS, *_REPORTS) if given.get(name) is None]

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
        pictures = (
            f"The pictures differ by {found.mean:.1f} of 255 levels on average, at most by {found.most:.0f}; "
            f"most of all in frame {found.frame}."
        )
        text = " ".join(filter(None, (_advice(cls), _pace(full_report, cached_report), pictures)))
        show_text(cls, text)
        worst = panels[found.frame : found.frame + 1]
        return io.NodeOutput(panels, worst, text, ui={"text": (text,)})


def _check_sizes(node: type[io.ComfyNode]) -> None:
    """Raise where the graph itself tells that the two videos will not be of one size and rate."""
    links = links_of(node)
    one, other = (_size(links.get(name), node.hidden.dynprompt) for name in _VIDEOS)
    for name, value in one.items():
        if value and other[name] and value != other[name]:
            raise ValueError(
                f"expected two videos of one {name} but got {value} and {other[name]} ({name}). "
                f"Set {name} alike for both runs."
            )


def _size(link: Any, graph: Any) -> dict[str, Any]:
    """Rate and sides of the frames behind a link, as they were typed; None or 0 for what is not known."""
    sampler = sampler_behind(link, graph)
    straight = inputs_behind(link, graph, "MEMO_Sampler")
    portrait = inputs_behind(straight.get("portrait"), graph, "MEMO_Portrait")
    sides = {name: typed(portrait, name) for name in ("width", "height")}
    return {"fps": typed(sampler, "fps", str(FPS)) if sampler else None, **sides}


def _advice(node: type[io.ComfyNode]) -> str:
    """What to do about runs of two seeds, where the graph tells them; nothing for runs of one."""
    links = links_of(node)
    reports = [links[name] for name in _REPORTS if name in links]
    seeds = [typed(sampler_behind(link, node.hidden.dynprompt), "seed") for link in reports]
    if None in seeds or len(set(seeds)) < 2:
        return ""
    one, other = seeds
    return f"Give both samplers the same seed: {one} and {other} make two videos, and most differs by that."


def _pace(full: VideoReport, cached: VideoReport) -> str:
    ratio = full.seconds / max(cached.seconds, 1e-9)
    both = f"{cached.seconds:.1f} s instead of {full.seconds:.1f} s"
    return f"{ratio:.1f} times faster: {both}." if ratio > 1.05 else f"Not faster: {both}."
