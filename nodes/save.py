"""MEMO Save Checkpoint: one safetensors file, with the patches that are on the MODEL."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import folder_paths
import torch
from comfy_api.latest import io
from safetensors.torch import save_file
from torch import Tensor

from ..memo_avatar.checkpoint.convert import convert
from ..memo_avatar.checkpoint.load import PARTS, open_checkpoint
from ..memo_avatar.checkpoint.parts import metadata_of
from ..memo_avatar.files.weights_file import replacing
from .host.folders import FOLDER, safe_name
from .host.memory import DTYPES, load
from .host.schema import schema, show_text
from .host.sockets import Memo, MemoNets

_PREFIX = "model.diffusion_model."


class SaveNode(io.ComfyNode):
    """MODEL, MEMO -> a file in models/memo."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return schema(
            "MEMO_Save",
            "MEMO Save Checkpoint",
            "Writes MEMO as a single file that Load MEMO lists: half the size in bf16 or fp16. LoRA on the "
            "model is "
            "merged in.",
            inputs=[
                io.Model.Input("model", tooltip="From Load MEMO, with or without LoRA."),
                Memo.Input("memo", tooltip="From Load MEMO: the checkpoint that the other nets come from."),
                io.String.Input(
                    "name",
                    default="memo_bf16",
                    tooltip=f"File name without ending; it is written to models/{FOLDER}.",
                ),
                io.Combo.Input(
                    "dtype", options=list(DTYPES), default="bf16", tooltip="Number format of the weights."
                ),
            ],
            outputs=[io.String.Output(display_name="path")],
            hidden=[io.Hidden.unique_id],
            is_output_node=True,
            search_aliases=["memo", "convert", "merge lora", "save model"],
        )

    @classmethod
    def execute(cls, model: Any, memo: MemoNets, name: str, dtype: str) -> io.NodeOutput:
        folder = Path(folder_paths.get_folder_paths(FOLDER)[0])
        folder.mkdir(parents=True, exist_ok=True)
        path = folder / f"{safe_name(name)}.safetensors"
        if model.patches:
            _save_patched(model, memo, path, DTYPES[dtype])
        else:
            convert(memo.path, path, DTYPES[dtype])
        show_text(cls, f"Saved {path}. Press R to refresh Load MEMO's list.")
        return io.NodeOutput(str(path), ui={"text": (str(path),)})


def _save_patched(model: Any, memo: MemoNets, path: Path, dtype: torch.dtype) -> None:
    checkpoint = open_checkpoint(memo.path)
    load([model])
    export = getattr(model, "state_dict_for_saving", None) or model.model.state_dict_for_saving
    tensors: dict[str, Tensor] = {
        f"diffusion_net.{key.removeprefix(_PREFIX)}": tensor for key, tensor in export().items()
    }
    for part in PARTS[1:]:
        tensors |= {f"{part}.{key}": tensor for key, tensor in checkpoint.read(part, dtype).items()}
    saved = {key: tensor.to("cpu", dtype).contiguous() for key, tensor in tensors.items()}
    metadata = metadata_of({name: part.config for name, part in checkpoint.parts.items()})
    with replacing(path) as (_stream, partial):
        save_file(saved, partial, metadata=metadata)
