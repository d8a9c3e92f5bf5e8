"""The nodes: the only code that knows ComfyUI. Version 3 of its node API."""

from __future__ import annotations

from comfy_api.latest import ComfyExtension, io

from .compare import CompareNode
from .demo_inputs import DemoNode
from .host.folders import register_folder
from .load import LoadMemo
from .paste_back import PasteBackNode
from .portrait import PortraitNode
from .sampler import SamplerNode
from .sampler_to_file import SamplerToFileNode
from .save import SaveNode
from .teacache import CalibrateNode, ReportNode, TeaCacheNode
from .voice import VoiceNode

NODES: list[type[io.ComfyNode]] = [
    LoadMemo,
    DemoNode,
    PortraitNode,
    VoiceNode,
    SamplerNode,
    SamplerToFileNode,
    PasteBackNode,
    TeaCacheNode,
    ReportNode,
    CompareNode,
    CalibrateNode,
    SaveNode,
]


class MemoExtension(ComfyExtension):
    """What the host asks this pack for."""

    async def get_node_list(self) -> list[type[io.ComfyNode]]:
        return NODES


def comfy_entrypoint() -> MemoExtension:
    """Called by the host once, after import; its `on_load` hook is younger than the oldest host."""
    register_folder()
    return MemoExtension()
