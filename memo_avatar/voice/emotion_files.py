"""The weights of emotion2vec and of MEMO's emotion classifier: files -> sizes -> checked nets.

emotion2vec_plus_large is published as `model.pt`, a pickle. It is read by :func:`convert_emotion2vec` only,
which a user has to ask for, with torch's restricted unpickler: tensors and plain containers, no code.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from ..files.config_json import WEIGHTS_NAME
from ..files.disk import open_regular, replacing, try_place
from ..files.foreign import CheckpointError, listed, shown
from ..files.header import read_header
from ..files.limits import MAX_LAYERS, MAX_UNKNOWN_BYTES, MAX_WIDTH
from ..files.published_models import CLASSIFIER, CONVERTED
from ..files.weights_file import check_state, promised_tensors, read_tensors
from .emotion2vec import STRIDES, Emotion2vec, Emotion2vecConfig, EmotionClassifier
from .emotions import EmotionError

T = TypeVar("T")
SAFE_TORCH = (2, 6)  # before, the restricted unpickler could be made to run code (CVE-2025-32434)
_PREFIX = re.compile(r"^(?:module\.|model\.|d2v_model\.)+")
_NEEDED = re.compile(r"^(?:modality_encoders\.AUDIO\.(?!decoder\.)|blocks\.)")
_ENCODER = "modality_encoders.AUDIO."
_HEAD_WIDTH = 64  # where the ALiBi scales are not learned per head, which would tell their number


@dataclass(frozen=True)
class EmotionWeights:
    """What `emotion2vec.EmotionNet` is made of."""

    config: Emotion2vecConfig
    sizes: tuple[int, ...]
    state: dict[str, Tensor]


def find_emotion_files(folder: Path) -> tuple[Path, Path]:
    """emotion2vec's file and the classifier's folder, of a checkpoint's folder; raises if one is missing."""
    weights, classifier = folder / CONVERTED, folder / CLASSIFIER
    if not weights.is_file():
        pickled = weights.with_suffix(".pt")
        advice = f"Run: python teacache_memo.py convert-emotion {pickled}"
        if not pickled.is_file():
            advice = "Run `python teacache_memo.py models download emotion`, or choose an emotion yourself."
        raise EmotionError(f"expected emotion2vec for emotion auto but got no {weights}. {advice}")
    if not (classifier / WEIGHTS_NAME).is_file():
        raise EmotionError(
            f"expected MEMO's emotion classifier for emotion auto but got no {classifier / WEIGHTS_NAME}. "
            "Run `python teacache_memo.py models download emotion`, or choose an emotion yourself."
        )
    return weights, classifier


def read_emotion_net(folder: Path) -> EmotionWeights:
    """Both nets of a checkpoint's folder, checked to fit each other."""
    path, classifier = find_emotion_files(folder)
    config, state = read_emotion2vec(path)
    sizes, head = read_classifier(classifier)
    if sizes[0] != config.width:
        raise CheckpointError(
            f"expected an emotion2vec of width {sizes[0]} but got {config.width} ({path}). MEMO's classifier "
            "was made for emotion2vec_plus_large."
        )
    whole = {f"emotion2vec.{key}": tensor for key, tensor in state.items()}
    return EmotionWeights(
        config, sizes, whole | {f"classifier.{key}": tensor for key, tensor in head.items()}
    )


def read_emotion2vec(path: Path) -> tuple[Emotion2vecConfig, dict[str, Tensor]]:
    """A .safetensors file with the published names -> sizes and float32 weights, checked."""
    file = read_header(path)
    promised = _needed({name: (name, tensor) for name, tensor in promised_tensors(file).items()})
    shapes = {plain: tensor for plain, (_, tensor) in promised.items()}
    config = infer_config(shapes, path)
    check_state(_build(config, path), shapes, path, "emotion2vec")
    names = {stored: plain for plain, (stored, _) in promised.items()}
    return config, read_tensors(file, names, torch.float32)


def _build(config: Emotion2vecConfig, where: object) -> Emotion2vec:
    """The net without weights; its layers know best which sizes do not go together."""
    try:
        return Emotion2vec(config, operations=nn, device="meta")
    except (ValueError, RuntimeError, ArithmeticError) as error:
        raise CheckpointError(
            f"expected the weights of emotion2vec but got sizes that fit no net: {shown(str(error))} "
            f"({where}). Use emotion2vec_plus_large, converted with `teacache_memo.py convert-emotion`."
        ) from error


def read_classifier(folder: Path) -> tuple[tuple[int, ...], dict[str, Tensor]]:
    """The checkpoint's `misc/audio_emotion_classifier` -> layer sizes and float32 weights, checked."""
    path = folder / WEIGHTS_NAME
    file = read_header(path)
    state = promised_tensors(file)
    order = re.compile(r"layers\.(?:fc(\d+)\.)?weight")
    weights = {int(match[1] or 1): key for key in state if (match := order.fullmatch(key))}
    shapes = [state[weights[index]].shape for index in sorted(weights)]
    fit = all(len(shape) == 2 and max(shape) <= MAX_WIDTH for shape in shapes)
    if not 1 <= len(shapes) <= MAX_LAYERS or not fit:
        raise CheckpointError(
            f"expected layers.fc1.weight and so on but got {listed(state, 5) or 'no tensor'} "
            f"({path}). Use MEMO's misc/audio_emotion_classifier."
        )
    sizes = (shapes[0][1], *(shape[0] for shape in shapes))
    check_state(EmotionClassifier(sizes, operations=nn, device="meta"), state, path, "emotion classifier")
    return sizes, read_tensors(file, {name: name for name in state}, torch.float32)


def infer_config(state: Mapping[str, Tensor], where: object) -> Emotion2vecConfig:
    """Sizes from the shapes of the weights."""
    try:
        return _infer(state)
    except (KeyError, ValueError, IndexError, ArithmeticError) as error:
        raise CheckpointError(
            f"expected the weights of emotion2vec but got none of {error} ({where}). "
            "Use emotion2vec_plus_large, converted with `teacache_memo.py convert-emotion`."
        ) from error


def _infer(state: Mapping[str, Tensor]) -> Emotion2vecConfig:
    if 4 * sum(tensor.numel() for tensor in state.values()) > MAX_UNKNOWN_BYTES:
        raise ValueError(f"at most {MAX_UNKNOWN_BYTES} bytes")
    conv, position = f"{_ENCODER}local_encoder.conv_layers.", f"{_ENCODER}relative_positional_encoder."
    first_conv = state[f"{conv}0.0.weight"]
    position_weight = state[f"{position}1.0.weight"]
    hidden, width = state["blocks.0.mlp.fc1.weight"].shape
    alibi_scale = state[f"{_ENCODER}alibi_scale"]
    heads = alibi_scale.shape[2]
    return Emotion2vecConfig(
        kernels=tuple(state[f"{conv}{index}.0.weight"].shape[2] for index in range(len(STRIDES))),
        conv_width=first_conv.shape[0],
        conv_layer_norm=f"{conv}0.2.1.weight" in state,
        width=width,
        hidden=hidden,
        heads=heads if heads > 1 else width // _HEAD_WIDTH,
        alibi_scale=tuple(alibi_scale.shape),
        extra_tokens=state[f"{_ENCODER}extra_tokens"].shape[1],
        pos_depth=_count(state, position),
        pos_kernel=position_weight.shape[2],
        pos_groups=width // position_weight.shape[1],
        prenet_depth=_count(state, f"{_ENCODER}context_encoder.blocks."),
        depth=_count(state, "blocks."),
    )


def _count(state: Mapping[str, Tensor], prefix: str) -> int:
    found = len({key[len(prefix) :].split(".")[0] for key in state if key.startswith(prefix)})
    if found > MAX_LAYERS:
        raise ValueError(f"at most {MAX_LAYERS} layers of {prefix}")
    return found


def _needed(state: Mapping[str, T]) -> dict[str, T]:
    """Without wrappers' prefixes, the decoder of the pretraining and the published nine-class head."""
    plain = {_PREFIX.sub("", key): tensor for key, tensor in state.items()}
    return {key: tensor for key, tensor in plain.items() if _NEEDED.match(key)}


def convert_emotion2vec(source: Path, target: Path) -> int:
    """`model.pt` -> a .safetensors file with the weights that inference needs; the number of tensors.

    Raises:
        CheckpointError: torch is too old to do this safely, or the file holds more than tensors.
    """
    try_place(target, apart_from=[source])
    state = _needed(_unpickle(source))
    infer_config(state, source)
    whole = {key: tensor.detach().float().contiguous().clone() for key, tensor in state.items()}
    with replacing(target) as part:
        save_file(whole, part, metadata={"format": "pt", "source": source.name})
    return len(whole)


def _unpickle(path: Path) -> dict[str, Tensor]:
    version = tuple(int(part) for part in re.findall(r"\d+", torch.__version__)[:2])
    if version < SAFE_TORCH:
        raise CheckpointError(
            f"expected torch 2.6 or newer but got {torch.__version__} (convert-emotion). Older ones cannot "
            "open a .pt file without trusting it; convert on another machine, or update torch."
        )
    try:
        with open_regular(path) as stream:
            size = os.fstat(stream.fileno()).st_size
            loaded: Any = torch.load(stream, map_location="cpu", weights_only=True)
    except OSError as error:
        raise CheckpointError(
            f"expected a file but got: {error.strerror} ({path}). Check the path."
        ) from error
    except Exception as error:  # torch raises pickle's, zipfile's and its own
        reason = str(error).splitlines()[0][:200] if str(error) else type(error).__name__
        raise CheckpointError(
            f"expected a .pt file with tensors alone but got: {reason} ({path}). Download it again from "
            "emotion2vec_plus_large; a file that asks to run code is not opened."
        ) from error
    for name in ("state_dict", "model_state_dict", "model"):
        if isinstance(loaded, dict) and isinstance(loaded.get(name), dict):
            loaded = loaded[name]
    found = loaded if isinstance(loaded, dict) else {}
    tensors = {key: value for key, value in found.items() if isinstance(value, Tensor)}
    if (
        sum(tensor.nbytes for tensor in tensors.values()) > 2 * size
    ):  # one number can be spread over any shape
        raise CheckpointError(
            f"expected tensors of at most twice the file's {size} bytes but got more ({path}). Download it "
            "again from emotion2vec_plus_large."
        )
    return tensors
