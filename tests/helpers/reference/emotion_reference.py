"""Runs in a Python that has funasr: what the published code computes, stored for CI or for a live comparison.

    FUNASR_PYTHON emotion_reference.py OUT.safetensors KIND [MEMO_SOURCE]

KIND is a key of `CASES`. A random emotion2vec of small width is made by funasr's own class; with MEMO_SOURCE
(a checkout of memoavatar/memo, its requirements installed) upstream's function labels a recording with it.
"""

from __future__ import annotations

import importlib.util
import sys
import types
from collections import OrderedDict
from importlib.machinery import ModuleSpec
from pathlib import Path
from typing import Any

sys.path.append(str(Path(__file__).resolve().parents[3]))

import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from tests.helpers.reference.emotion_sound import LABEL_FRAMES, LABEL_SECONDS, changing_sound

CASES: dict[str, dict[str, Any]] = {
    # As the published large one, but narrow, and with a number of heads that is no power of two.
    "layer_norm": {"width": 24, "heads": 3, "extractor": "layer_norm", "per_head": True, "per_layer": False},
    "group_norm": {"width": 16, "heads": 2, "extractor": "default", "per_head": True, "per_layer": True},
}
SEGMENTS = (48_000, 32_000, 9_001)


def import_quickly(name: str) -> None:
    """Put a package in place without running its `__init__`, which imports all of it."""
    spec = importlib.util.find_spec(name)
    assert spec is not None and spec.submodule_search_locations is not None
    module = types.ModuleType(name)
    module.__path__ = list(spec.submodule_search_locations)
    sys.modules[name] = module


def model_conf(width: int, heads: int, extractor: str, *, per_head: bool, per_layer: bool) -> dict[str, Any]:
    """The published config's keys at small sizes; what acts in training only is off."""
    audio = {
        "type": "AUDIO", "prenet_depth": 2, "prenet_layerdrop": 0.0, "prenet_dropout": 0.0,
        "start_drop_path_rate": 0.0, "end_drop_path_rate": 0.0, "num_extra_tokens": 3,
        "init_extra_token_zero": False, "local_grad_mult": 1.0, "use_alibi_encoder": True,
        "alibi_scale": 1.0, "learned_alibi": False, "alibi_max_pos": None, "learned_alibi_scale": True,
        "learned_alibi_scale_per_head": per_head, "learned_alibi_scale_per_layer": per_layer,
        "num_alibi_heads": heads, "model_depth": 2, "decoder": None, "extractor_mode": extractor,
        "feature_encoder_spec": "[(12, 10, 5)] + [(12, 3, 2)] * 4 + [(12, 2, 2)] * 2",
        "conv_pos_width": 95, "conv_pos_groups": 4, "conv_pos_depth": 5, "conv_pos_pre_ln": False,
    }  # fmt: skip
    return {
        "depth": 2, "start_drop_path_rate": 0.0, "end_drop_path_rate": 0.0, "num_heads": heads,
        "norm_eps": 1e-5, "norm_affine": True, "encoder_dropout": 0.0, "post_mlp_drop": 0.0,
        "attention_dropout": 0.0, "activation_dropout": 0.0, "dropout_input": 0.0, "layerdrop": 0.0,
        "embed_dim": width, "mlp_ratio": 2.0, "layer_norm_first": False, "end_of_block_targets": False,
        "average_top_k_layers": 2, "loss_beta": 0.0, "loss_scale": None, "modalities": {"audio": audio},
    }  # fmt: skip


def make_model(conf: dict[str, Any]) -> Any:
    """funasr's net with weights that are float16 values, none of them zero."""
    from funasr.models.emotion2vec.model import Emotion2vec

    torch.manual_seed(0)
    model = Emotion2vec(model_conf=conf, vocab_size=-1).eval()
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            noise = torch.randn_like(parameter) * (0.3 if "alibi" in name or parameter.dim() < 2 else 0.05)
            start = 1.0 if "norm" in name and name.endswith("weight") else parameter
            parameter.copy_((start + noise).half())
    return model


class SmallClassifier(nn.Module):
    """Upstream's classifier at a small width, balanced so that different sounds win different classes."""

    num_emotion_classes = 9

    def __init__(self, means: Tensor) -> None:
        super().__init__()
        torch.manual_seed(1)
        width = means.shape[1]
        self.layers = nn.Sequential(
            OrderedDict(fc1=nn.Linear(width, 32), relu1=nn.ReLU(), fc2=nn.Linear(32, 9))
        )
        with torch.no_grad():
            self.layers.fc1.weight.normal_().copy_(self.layers.fc1.weight.half())
            self.layers.fc1.bias.copy_(-(means @ self.layers.fc1.weight.T).mean(dim=0).half())
            self.layers.fc2.weight.normal_().copy_(self.layers.fc2.weight.half())
            self.layers.fc2.bias.zero_()
            self.layers.fc2.bias.copy_(-self.layers(means).mean(dim=0).half())

    def forward(self, x: Tensor) -> Tensor:
        return torch.softmax(self.layers(x), dim=-1)


def upstream_labels(source: Path, model: Any, conf: dict[str, Any], work: Path) -> tuple[Tensor, Any]:
    """`extract_audio_emotion_labels` itself, on our recording, net and classifier."""
    sys.path.insert(0, str(source))
    for name in ("torchaudio", "funasr.download.download_from_hub"):  # neither acts here
        sys.modules[name] = importlib.util.module_from_spec(ModuleSpec(name, None))
    sys.modules["funasr.download.download_from_hub"].download_model = None  # pyright: ignore
    from memo.utils import audio_utils

    waveform = changing_sound(LABEL_SECONDS)
    sys.modules["torchaudio"].load = lambda _path: (waveform[None], 16_000)  # pyright: ignore
    means = torch.stack([features_of(model, part).mean(dim=1)[0] for part in waveform.split(32_000)[:-1]])
    classifier = SmallClassifier(means)
    torch.save(model.state_dict(), work)
    audio_utils.download_model = lambda **_: {"model_conf": conf, "init_param": str(work)}
    audio_utils.AudioEmotionClassifierModel = types.SimpleNamespace(
        from_pretrained=lambda *_, **__: classifier
    )
    labels, _ = audio_utils.extract_audio_emotion_labels("", "", "", LABEL_FRAMES, device="cpu")
    return labels, classifier


@torch.no_grad()
def features_of(model: Any, samples: Tensor) -> Tensor:
    """(1, T, D) as upstream asks for them."""
    normalised = nn.functional.layer_norm(samples, samples.shape).view(1, -1)
    return model.extract_features(normalised)["x"]


def main(out: Path, kind: str, source: Path | None) -> None:
    import_quickly("funasr")
    case = CASES[kind]
    conf = model_conf(
        case["width"],
        case["heads"],
        case["extractor"],
        per_head=case["per_head"],
        per_layer=case["per_layer"],
    )
    model = make_model(conf)
    tensors = {f"model.{name}": tensor.half() for name, tensor in model.state_dict().items()}
    sound = changing_sound(LABEL_SECONDS)
    for length in SEGMENTS:
        tensors[f"features.{length}"] = features_of(model, sound[:length])
    if source is not None:
        labels, classifier = upstream_labels(source, model, conf, out.with_suffix(".pt"))
        out.with_suffix(".pt").unlink()
        tensors["labels"] = labels.to(torch.uint8)
        tensors |= {f"classifier.{name}": tensor.half() for name, tensor in classifier.state_dict().items()}
        print("labels", sorted(set(labels.tolist())), "changes", int((labels.diff() != 0).sum()))
    save_file({name: tensor.contiguous() for name, tensor in tensors.items()}, out)
    print(out, out.stat().st_size, "bytes")


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2], Path(sys.argv[3]) if len(sys.argv) > 3 else None)
