"""MEMO Save Checkpoint: one safetensors file, with the patches that are on the MODEL."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

import torch
from comfy_api.latest import io
from torch import Tensor

from ..memo_avatar.checkpoint.convert import write_checkpoint
from ..memo_avatar.checkpoint.load import PARTS, Checkpoint, open_checkpoint
from ..memo_avatar.checkpoint.parts import metadata_of
from ..memo_avatar.files.disk import try_place, write_new
from ..memo_avatar.files.names import alternatives, portable_name
from ..memo_avatar.files.weights_file import write_tensors
from .boundary.checks import checked
from .boundary.words import without_folders
from .host.folders import FOLDER, save_folder
from .host.job import check_model
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
            "model is merged in.",
            inputs=[
                io.Model.Input("model", tooltip="From Load MEMO, with or without LoRA."),
                Memo.Input("memo", tooltip="From Load MEMO: the checkpoint that everything else comes from."),
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
            is_experimental=True,
            search_aliases=["memo", "convert", "merge lora", "save model"],
        )

    @classmethod
    @checked
    def execute(cls, model: Any, memo: MemoNets, name: str, dtype: str) -> io.NodeOutput:
        check_model(model, memo)
        checkpoint, number_format = open_checkpoint(memo.path), DTYPES[dtype]
        wanted = save_folder() / f"{portable_name(name, 'memo')}.safetensors"
        try_place(wanted, nbytes=checkpoint.nbytes(number_format), replace=False)
        as_stored = not model.patches and model.model.checkpoint_path == str(memo.path)
        write = write_checkpoint if as_stored else partial(_write_model, model)
        path = write_new(alternatives(wanted), lambda part: write(checkpoint, part, number_format))
        taken = f"{wanted.name} was there already. " if path != wanted else ""
        show_text(cls, f"{taken}Saved {without_folders(str(path))}. Press R to refresh Load MEMO's list.")
        return io.NodeOutput(str(path), ui={"text": (str(path),)})


def _write_model(model: Any, checkpoint: Checkpoint, part: Path, dtype: torch.dtype) -> None:
    load([model])
    export = getattr(model, "state_dict_for_saving", None) or model.model.state_dict_for_saving
    tensors: dict[str, Tensor] = {
        f"diffusion_net.{key.removeprefix(_PREFIX)}": tensor for key, tensor in export().items()
    }
    for net in PARTS[1:]:
        tensors |= {f"{net}.{key}": tensor for key, tensor in checkpoint.read(net, dtype).items()}
    metadata = metadata_of({net: found.config for net, found in checkpoint.parts.items()})
    write_tensors(part, tensors, dtype, metadata)
