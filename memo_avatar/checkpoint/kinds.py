"""What a wrong file or folder most likely is: the mix-ups that people report, told from keys and names."""

from __future__ import annotations

from collections.abc import Callable, Collection
from pathlib import Path

from ..files.config_json import CONFIG_NAME
from ..files.foreign import shown

PARTS = ("diffusion_net", "reference_net", "image_proj", "audio_proj")
"""MEMO's nets, in the order in which they are read."""


SINGLE_FILE = "a single-file MEMO checkpoint"

Keys = Collection[str]


def _any(*fragments: str) -> Callable[[Keys], bool]:
    """Some key contains every fragment."""
    return lambda keys: any(all(fragment in key for fragment in fragments) for key in keys)


def _starts(*prefixes: str) -> Callable[[Keys], bool]:
    return lambda keys: any(key.startswith(prefixes) for key in keys)


def _has(*names: str) -> Callable[[Keys], bool]:
    return lambda keys: all(name in keys for name in names)


# The first that fits is the answer, so special cases stand before the general ones.
_KINDS: tuple[tuple[str, Callable[[Keys], bool]], ...] = (
    (SINGLE_FILE, _starts(*(f"{part}." for part in PARTS))),
    ("a LoRA", _any("lora_")),
    ("MEMO's diffusion_net", _any(".audio_modules.")),
    ("a whole Stable Diffusion checkpoint", _starts("model.diffusion_model.")),
    ("an AnimateDiff motion module", _any("motion_modules.")),
    ("a VAE", _starts("decoder.conv_in.", "decoder.mid", "first_stage_model.")),
    ("a CLIP text encoder", _any("text_model.encoder.")),
    ("a wav2vec2 audio encoder", _any("feature_extractor.conv_layers.")),
    (
        "a Stable Diffusion UNet",
        _has("conv_in.weight", "conv_out.weight", "mid_block.resnets.0.conv1.weight"),
    ),
    ("MEMO's reference_net", _has("conv_in.weight", "mid_block.attentions.0.norm.weight")),
    ("MEMO's audio_proj", _has("proj1.weight", "proj2.weight", "proj3.weight")),
    ("MEMO's image_proj", _has("proj.weight", "norm.weight")),
)


def identify(keys: Keys) -> str | None:
    """What kind of model has these keys, or None for one that we do not know."""
    return next((kind for kind, fits in _KINDS if fits(keys)), None)


def common_prefix(keys: Keys) -> str:
    """The first component that every key shares, such as ``module.``, or nothing."""
    first = {key.split(".")[0] for key in keys}
    return f"{first.pop()}." if len(first) == 1 and len(keys) > 1 else ""


def explain_part(name: str, keys: Keys) -> str:
    """What is given in place of the net ``name``, and what to do."""
    kind, prefix = identify(keys), common_prefix(keys)
    if kind == f"MEMO's {name}":
        return f"It is a {name}, but an incomplete or changed one; take all parts from one MEMO checkpoint."
    if kind:
        return f"This looks like {kind}; put MEMO's {name} in its place."
    if prefix and identify([key[len(prefix) :] for key in keys]) == f"MEMO's {name}":
        return f"Every key begins with '{shown(prefix)}', as some training scripts leave it; save it without."
    return f"This is no net of MEMO; put MEMO's {name} in its place."


def explain_file(keys: Keys) -> str:
    """What is given in place of a single-file checkpoint, and what to do."""
    kind = identify(keys)
    if kind == SINGLE_FILE:
        return "It is a MEMO checkpoint, but an incomplete or changed one; convert MEMO's folder again."
    if kind and kind.startswith("MEMO's"):
        folders = ", ".join(f"{part}/" for part in PARTS)
        return f"This is {kind} alone; give the folder that holds {folders}."
    return f"This looks like {kind or 'some other model'}; give MEMO's folder, or a file made by `convert`."


def explain_folder(path: Path) -> str:
    """What is given in place of a folder with MEMO's four parts, and what to do."""
    found = {item.name for item in path.iterdir()}
    missing = [part for part in PARTS if part not in found]
    if "model_index.json" in found:
        return "This looks like a diffusers pipeline folder (Stable Diffusion); give MEMO's own folder."
    if missing == list(PARTS):
        return _explain_unrelated_folder(path, found)
    return f"Download {' and '.join(missing)} of the same checkpoint into it."


def _explain_unrelated_folder(path: Path, found: set[str]) -> str:
    if CONFIG_NAME in found and path.name in PARTS:
        return f"This is the {path.name} alone; give the folder above it."
    singles = sorted(name for name in found if name.endswith(".safetensors"))
    if singles:
        return f"To load the single file {shown(singles[0])}, give its own path."
    nested = sorted(name for name in found if (path / name / PARTS[0]).is_dir())
    if nested:
        return f"The parts are in {shown(nested[0])}/; give that folder."
    return "Give the folder of a MEMO checkpoint."


def explain_missing_weights(folder: Path) -> str:
    """Why a part's folder has no weights file, as far as its other files tell."""
    found = sorted(item.name for item in folder.iterdir())
    if any(name.endswith((".bin", ".pth", ".ckpt", ".pt")) for name in found):
        return "Pickled weights can run code when opened and are refused; download the .safetensors file."
    if any(name.endswith((".incomplete", ".part", ".crdownload", ".tmp")) for name in found):
        return "The download has not finished; let it, or start it again."
    other = [name for name in found if name.endswith(".safetensors")]
    if other:
        return f"There is {shown(other[0])} instead; if it is the right file, give it the expected name."
    return "Download it again."
