"""The nodes: the only code that knows ComfyUI. Version 3 of its node API."""

from __future__ import annotations

from comfy_api.latest import ComfyExtension, io

from .memo_demo import DemoNode
from .memo_load import LoadMemo, register_folder
from .memo_paste import PasteBackNode
from .memo_portrait import PortraitNode
from .memo_sample import SamplerNode
from .memo_save import SaveNode
from .memo_stream import SamplerToFileNode
from .memo_voice import VoiceNode
from .step_cache import CalibrateNode, ReportNode, TeaCacheNode

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
    CalibrateNode,
    SaveNode,
]


class MemoExtension(ComfyExtension):
    """What the host asks this pack for."""

    async def get_node_list(self) -> list[type[io.ComfyNode]]:
        return NODES


def comfy_entrypoint() -> MemoExtension:
    """Called by the host once, after import. (Its `on_load` hook is younger than the oldest host we
    support.)"""
    register_folder()
    return MemoExtension()
