"""Load MEMO: a checkpoint becomes a MODEL, the nets around it, and a VAE."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from comfy_api.latest import io

from ..memo_avatar.checkpoint.companions import (
    VAE_FOLDER,
    WAV2VEC2_FOLDER,
    check_files,
    find_calibration,
    home,
    read_settings,
    read_wav2vec2,
)
from ..memo_avatar.checkpoint.load import Checkpoint, CheckpointError, open_checkpoint
from ..memo_avatar.clips.placement import MEMORY_PLACES
from ..memo_avatar.files.foreign import shown
from ..memo_avatar.files.published_models import REQUIRED, missing
from ..memo_avatar.model.config import MemoConfig
from ..memo_avatar.model.projections import AudioProjection, ImageProjection
from ..memo_avatar.model.reference_unet import ReferenceUNet
from ..memo_avatar.voice.wav2vec2 import Wav2Vec2
from .boundary.checks import FORMERLY, check_value, checked
from .boundary.words import nearest, page_text, without_folders
from .host.folders import (
    DEMO,
    FOLDER,
    OLD_DEMOS,
    checkpoint_path,
    find_begun,
    find_checkpoint,
    find_checkpoints,
    save_folder,
)
from .host.memory import DTYPES, auxiliary_patcher
from .host.model import load_model_patcher
from .host.schema import ADVANCED, schema
from .host.sockets import Memo, MemoNets
from .host.vae import check_vae, load_vae

NOTHING_FOUND = "put a MEMO checkpoint into models/memo"
PUBLISHED = "MEMO"  # the folder that `models download` makes
_NOT_CONNECTED = object()  # the host asks about a connected VAE with None


def load_model(path: str, dtype_name: str, *, disable_dynamic: bool = False) -> Any:
    """The MODEL of a checkpoint; the host calls this again where it needs a fresh copy."""
    patcher = load_model_patcher(open_checkpoint(path), dtype_name, disable_dynamic=disable_dynamic)
    patcher.cached_patcher_init = (load_model, (path, dtype_name))
    patcher.model.checkpoint_path = path
    calibration = find_calibration(Path(path))
    patcher.model.calibration_path = None if calibration is None else str(calibration)
    return patcher


def load_nets(checkpoint: Checkpoint, dtype: torch.dtype) -> MemoNets:
    """Everything but the diffusion net."""
    config, path = checkpoint.config, checkpoint.path
    return MemoNets(
        path=path,
        config=config,
        dtype=dtype,
        reference_net=_auxiliary(checkpoint, "reference_net", config, dtype),
        image_proj=_auxiliary(checkpoint, "image_proj", config, dtype),
        audio_proj=_auxiliary(checkpoint, "audio_proj", config, dtype),
        wav2vec2=_load_wav2vec2(home(path) / WAV2VEC2_FOLDER),
        **vars(read_settings(path)),
    )


def _auxiliary(checkpoint: Checkpoint, part: str, config: MemoConfig, dtype: torch.dtype) -> Any:
    from comfy.ldm.modules.attention import optimized_attention

    builders = {
        "reference_net": partial(ReferenceUNet, config.reference_net, attention=optimized_attention),
        "image_proj": partial(ImageProjection, config.image_proj),
        "audio_proj": partial(AudioProjection, config.audio_proj),
    }
    return auxiliary_patcher(builders[part], checkpoint.read(part, dtype), dtype)


def _load_wav2vec2(folder: Path) -> Any:
    """The checkpoint's own, in float32 as upstream computes it; the host's class has one size."""
    from comfy.ldm.modules.attention import optimized_attention

    if not folder.is_dir():
        return None
    found = read_wav2vec2(folder)
    build = partial(Wav2Vec2, found.config, attention=optimized_attention)
    return auxiliary_patcher(build, found.state, torch.float32)


class LoadMemo(io.ComfyNode):
    """checkpoint -> MODEL, MEMO, VAE."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return schema(
            "MEMO_Load",
            "Load MEMO",
            "Loads a MEMO talking-head checkpoint: what draws the frames as a MODEL, what else that needs, "
            "and its VAE.",
            inputs=[
                io.Combo.Input(
                    "checkpoint",
                    options=list(find_checkpoints()) or [NOTHING_FOUND],
                    extra_dict={FORMERLY: list(OLD_DEMOS)},
                    tooltip="A folder or single file in models/memo, or the small demo that comes with the "
                    "pack.",
                ),
                io.Combo.Input(
                    "weight_dtype",
                    options=["auto", *DTYPES],
                    default="auto",
                    tooltip="Number format of the weights. auto: what ComfyUI chooses for this device. "
                    "bf16 and fp16 take half the memory of fp32.",
                ),
                io.Vae.Input(
                    "vae",
                    optional=True,
                    tooltip="Replaces the checkpoint's own VAE. Needed where it has none: MEMO was trained "
                    "with sd-vae-ft-mse.",
                ),
                io.Combo.Input(
                    "memory",
                    options=list(MEMORY_PLACES),
                    default="auto",
                    optional=True,
                    tooltip="Where the memory of past frames lives (6.5 GiB at 512x512). auto: on the device "
                    "as far as it fits beside the model, the rest in RAM. The frames are the same.",
                    extra_dict=ADVANCED,
                ),
            ],
            outputs=[
                io.Model.Output(display_name="model"),
                Memo.Output(display_name="memo"),
                io.Vae.Output(display_name="vae"),
            ],
            search_aliases=["memo", "talking head", "avatar", "lip sync", "audio to video", "checkpoint"],
        )

    @classmethod
    def fingerprint_inputs(cls, checkpoint: str, **_inputs: Any) -> Any:
        path = find_checkpoint(checkpoint)
        if path is None:
            return checkpoint
        files = sorted(path.rglob("*.safetensors")) if path.is_dir() else [path]
        found = [(str(file), file.stat()) for file in files if file.is_file()]
        return [(name, about.st_mtime_ns, about.st_size) for name, about in found]

    @classmethod
    def validate_inputs(cls, checkpoint: Any = None, vae: Any = _NOT_CONNECTED) -> bool | str:
        """Before the run, by headers alone: which files are missing or damaged, or which name is meant. A
        linked name (None) is looked up when it comes.
        """
        if checkpoint is None:
            return True
        try:
            path = _listed_path(cls, checkpoint)
            _check_files(path, needs_vae=vae is _NOT_CONNECTED)
        except ValueError as error:
            return page_text(str(error))
        return True

    @classmethod
    @checked
    def execute(
        cls, checkpoint: str, weight_dtype: str, vae: Any = None, memory: str = "auto"
    ) -> io.NodeOutput:
        path = checkpoint_path(checkpoint)
        _check_files(path, needs_vae=vae is None)
        vae = load_vae(home(path) / VAE_FOLDER) if vae is None else vae
        check_vae(vae)
        model = load_model(str(path), weight_dtype)
        nets = load_nets(open_checkpoint(path), model.model.get_dtype_inference())
        return io.NodeOutput(model, replace(nets, memory=memory), vae)


def _listed_path(node: type[LoadMemo], name: Any) -> Path:
    """Where a checkpoint is of whose four parts no file is missing, or an error that says what to do."""
    path = (find_checkpoint(name) or find_begun(name)) if isinstance(name, str) else None
    if path is not None and path.is_dir() and missing(path, ["memo"]):
        raise _to_download(name, path, "is not complete")
    if path is not None:
        return path
    if isinstance(name, str) and _means_published(name, list(find_checkpoints())):
        wanted = PUBLISHED if name == NOTHING_FOUND else name
        raise _to_download(wanted, save_folder() / PUBLISHED, f"is not in models/{FOLDER}")
    return checkpoint_path(check_value(node.define_schema().inputs[0], name))


def _means_published(name: str, listed: list[str]) -> bool:
    """Whether MEMO's own weights are meant, rather than one that is listed."""
    if PUBLISHED in listed:
        return False
    near, plain = nearest(name, listed), name.strip().casefold()
    if plain.startswith(PUBLISHED.casefold()):
        return near is None or PUBLISHED.casefold() not in near.casefold()
    return name == NOTHING_FOUND or bool(plain and near is None and set(listed) <= {DEMO})


def _to_download(name: str, folder: Path, state: str) -> CheckpointError:
    files = ", ".join(file.path for file in missing(folder, REQUIRED))
    return CheckpointError(
        f"{shown(name)} {state}. In the pack's folder, with ComfyUI's own Python, run: python "
        "teacache_memo.py models download (about 11 GB). Or put these into "
        f"{without_folders(str(folder))} yourself and press R: {files}."
    )


def _check_files(path: Path, *, needs_vae: bool) -> None:
    """What can be known of a checkpoint before it is loaded: damage first, then the VAE that it may lack."""
    check_files(path, [WAV2VEC2_FOLDER, VAE_FOLDER] if needs_vae else [WAV2VEC2_FOLDER])
    folder = home(path) / VAE_FOLDER
    if needs_vae and not folder.is_dir():
        raise CheckpointError(
            f"expected a VAE but got neither a connected one nor a vae folder ({folder}). "
            "Connect Load VAE with sd-vae-ft-mse to the vae input."
        )
