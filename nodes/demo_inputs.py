"""MEMO Demo Inputs: the pack's own portrait and voice, so that a first video needs no file of the user's."""

from __future__ import annotations

from pathlib import Path

import torch
from comfy_api.latest import io

from ..memo_avatar.portrait.images import open_image, to_pixels
from ..memo_avatar.voice.sound_files import decode_audio
from .boundary.checks import checked
from .host.schema import schema

FOLDER = Path(__file__).resolve().parent.parent / "demo"
_SAMPLE_RATE = 16_000


def _files(ending: str) -> list[str]:
    return sorted(path.name for path in FOLDER.glob(f"*{ending}"))


class DemoNode(io.ComfyNode):
    """-> IMAGE, AUDIO."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return schema(
            "MEMO_DemoInputs",
            "MEMO Demo Inputs",
            "A portrait and a voice that come with the pack, for the demo model. Use Load Image and Load "
            "Audio for your own.",
            inputs=[
                io.Combo.Input(
                    "portrait", options=_files(".png"), tooltip="A picture of the pack's demo folder."
                ),
                io.Combo.Input(
                    "voice",
                    options=_files(".wav"),
                    default="speech.wav",
                    tooltip="A recording of the pack's demo folder.",
                ),
            ],
            outputs=[io.Image.Output(display_name="image"), io.Audio.Output(display_name="audio")],
            search_aliases=["memo", "demo", "example", "sample"],
        )

    @classmethod
    @checked
    def execute(cls, portrait: str, voice: str) -> io.NodeOutput:
        pixels = to_pixels(open_image(FOLDER / portrait))
        chunks = [torch.from_numpy(chunk) for chunk in decode_audio(FOLDER / voice, _SAMPLE_RATE)]
        audio = {"waveform": torch.cat(chunks, dim=1)[None], "sample_rate": _SAMPLE_RATE}
        return io.NodeOutput((pixels / 2 + 0.5).movedim(1, -1), audio)
