"""Runs in a Python that has audio-separator: its MDX architecture on a small ONNX file, and ours beside it.

    AUDIO_SEPARATOR_PYTHON vocal_reference.py OUT.safetensors

Stores every 16th sample of the vocals that audio-separator finds in `mix()`, for CI, and prints the largest
difference to what `memo_avatar.voice.vocals` computes through onnxruntime on the same file.
"""

from __future__ import annotations

import sys
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any

sys.path.append(str(Path(__file__).resolve().parents[3]))

import torch
import torch.nn.functional as F
from torch import Tensor

BINS, FRAMES, N_FFT = 300, 16, 2_048
STRIDE = 16


def mix(seconds: float = 1.3) -> Tensor:
    """(2, S) at 44.1 kHz, louder than full scale in places."""
    time = torch.arange(round(seconds * 44_100), dtype=torch.float64) / 44_100
    left = torch.sin(2 * torch.pi * 220 * time) * (0.6 + 0.5 * torch.sin(7 * time))
    right = torch.sin(2 * torch.pi * (500 + 900 * time) * time) * 0.5
    return torch.stack([left, 0.3 * left + right]).float()


def weights() -> tuple[Tensor, Tensor]:
    """(4, 4, 3, 3) and (4,) of the one convolution that stands in for the net."""
    numbers = torch.cos(torch.arange(4 * 4 * 9, dtype=torch.float64) * 1.7)
    return (numbers.view(4, 4, 3, 3) / 6).float(), torch.tensor([0.1, -0.2, 0.3, 0.05])


def net(spectrogram: Tensor) -> Tensor:
    """The ONNX file's net in torch."""
    return torch.tanh(F.conv2d(spectrogram, *weights(), padding=1))


def write_onnx(path: Path) -> Path:
    """The same net as a file of the published one's form."""
    import onnx
    from onnx import TensorProto, helper, numpy_helper

    shape = ["batch", 4, BINS, FRAMES]
    weight, bias = (numpy_helper.from_array(t.numpy(), n) for t, n in zip(weights(), "wb", strict=True))
    nodes = [
        helper.make_node("Conv", ["input", "w", "b"], ["hidden"], kernel_shape=[3, 3], pads=[1, 1, 1, 1]),
        helper.make_node("Tanh", ["hidden"], ["output"]),
    ]
    value = helper.make_tensor_value_info
    graph = helper.make_graph(
        nodes,
        "mdx",
        [value("input", TensorProto.FLOAT, shape)],
        [value("output", TensorProto.FLOAT, shape)],
        [weight, bias],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8)
    onnx.save(model, str(path))
    return path


def by_audio_separator(model: Path, sound: Tensor) -> Tensor:
    """Its own demixing, with its defaults, without its file handling."""
    import logging
    import types

    sys.modules["onnx2torch"] = types.ModuleType("onnx2torch")  # acts at other segment sizes only
    from audio_separator.separator.architectures.mdx_separator import MDXSeparator
    from audio_separator.separator.uvr_lib_v5 import spec_utils

    logger = logging.getLogger("separator")
    common: dict[str, Any] = dict.fromkeys(
        ("torch_device_cpu", "torch_device_mps", "output_bitrate", "invert_using_spec", "use_soundfile")
    )
    data = {"compensate": 1.0, "mdx_dim_f_set": BINS, "mdx_dim_t_set": 4, "mdx_n_fft_scale_set": N_FFT}
    common |= {
        "logger": logger, "log_level": logging.WARNING, "torch_device": torch.device("cpu"),
        "onnx_execution_provider": ["CPUExecutionProvider"], "model_name": "mdx", "model_path": str(model),
        "model_data": data | {"primary_stem": "Vocals"}, "output_dir": None, "output_format": "WAV",
        "normalization_threshold": 0.9, "amplification_threshold": 0.0, "output_single_stem": "vocals",
        "sample_rate": 44_100, "enable_denoise": False,
    }  # fmt: skip
    arch = {"segment_size": FRAMES, "overlap": 0.25, "batch_size": 1, "hop_length": 1_024}
    separator = MDXSeparator(common, arch | {"enable_denoise": False})
    peak = float(sound.abs().max())
    scaled = spec_utils.normalize(wave=sound.numpy().copy(), max_peak=0.9, min_peak=0.0)
    return torch.from_numpy(separator.demix(scaled) * peak).float()


def main(out: Path) -> None:
    from safetensors.torch import save_file

    from memo_avatar.voice.vocals import open_net, separate

    with tempfile.TemporaryDirectory() as folder:
        model = write_onnx(Path(folder) / "small.onnx")
        theirs = by_audio_separator(model, mix())
        ours = separate(mix(), replace(open_net(model), n_fft=N_FFT))
    save_file({"vocals": theirs[:, ::STRIDE].contiguous()}, out)
    print(f"largest difference {float((ours - theirs).abs().max()):.3g} of {float(theirs.abs().max()):.3g}")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
