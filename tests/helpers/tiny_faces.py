"""Small ONNX files with the inputs and outputs of SCRFD and ArcFace, and pictures that they see faces in.

The detector sees a face wherever a cell of its grid is full of a marker colour: a small one (stride 8) for
red, a middle one (16) for green, a large one (32) for blue. The recogniser is a random projection of the
aligned face.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageDraw

from memo_avatar.portrait.faces import DETECTOR, RECOGNISER

MARKERS = {8: (255, 0, 0), 16: (0, 255, 0), 32: (0, 0, 255)}
REACH = (
    3.0  # strides from the cell's corner to each side of the box: neighbours overlap enough to be one face
)


def write_face_models(folder: Path) -> Path:
    """Both files, under upstream's names."""
    import onnx

    folder.mkdir(parents=True, exist_ok=True)
    onnx.save(_detector(), folder / DETECTOR)
    onnx.save(_recogniser(), folder / RECOGNISER)
    return folder


def face_picture(width: int, height: int, markers: dict[int, tuple[int, int]]) -> Image.Image:
    """A grey picture with squares of 2 cells in the markers' colours, {stride: (x, y) of the middle}."""
    image = Image.fromarray(
        np.random.default_rng(0).integers(90, 130, (height, width, 3), dtype=np.uint8), "RGB"
    )
    draw = ImageDraw.Draw(image)
    for stride, (x, y) in markers.items():
        draw.rectangle((x - stride, y - stride, x + stride - 1, y + stride - 1), fill=MARKERS[stride])
    return image


def _model(nodes: list[Any], inputs: list[Any], outputs: list[Any], weights: dict[str, Any]) -> Any:
    from onnx import helper, numpy_helper

    tensors = [numpy_helper.from_array(value, name) for name, value in weights.items()]
    graph = helper.make_graph(nodes, "tiny", inputs, outputs, tensors)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8)


def _detector() -> Any:
    """(1, 3, H, W) -> 9 outputs: scores, boxes and points of strides 8, 16, 32, two anchors per cell."""
    from onnx import TensorProto, helper

    nodes: list[Any] = []
    weights: dict[str, Any] = {}
    widths = {"score": 1, "bbox": 4, "kps": 10}
    for channel, stride in enumerate(MARKERS):
        pool = [stride, stride]
        nodes.append(
            helper.make_node("AveragePool", ["input.1"], [f"cells{stride}"], kernel_shape=pool, strides=pool)
        )
        for name, width in widths.items():
            key = f"{name}_{stride}"
            weights[f"w_{key}"], weights[f"b_{key}"] = _head(name, channel)
            weights[f"shape_{width}"] = np.array([-1, width], np.int64)
            nodes += [
                helper.make_node("Conv", [f"cells{stride}", f"w_{key}", f"b_{key}"], [f"conv_{key}"]),
                helper.make_node("Transpose", [f"conv_{key}"], [f"rows_{key}"], perm=[2, 3, 0, 1]),
            ]
            flat = f"flat_{key}" if name == "score" else key
            nodes.append(helper.make_node("Reshape", [f"rows_{key}", f"shape_{width}"], [flat]))
            if name == "score":
                nodes.append(helper.make_node("Sigmoid", [flat], [key]))
    picture = helper.make_tensor_value_info("input.1", TensorProto.FLOAT, [1, 3, "height", "width"])
    outputs = [
        helper.make_tensor_value_info(f"{name}_{stride}", TensorProto.FLOAT, [f"n_{name}_{stride}", width])
        for name, width in widths.items()
        for stride in MARKERS
    ]
    return _model(nodes, [picture], outputs, weights)


def _head(name: str, channel: int) -> tuple[Any, Any]:
    """1x1 convolution over a cell's mean colour, -1..1 per channel; two anchors, the second sees nothing."""
    if name == "score":
        weight = np.full((2, 3), -4.0, np.float32)
        weight[:, channel] = 4.0
        return weight[:, :, None, None], np.array([-8.0, -30.0], np.float32)
    if name == "bbox":
        return np.zeros((8, 3, 1, 1), np.float32), np.full(8, REACH, np.float32)
    points = np.array([[-0.6, -0.5], [0.6, -0.5], [0.0, 0.1], [-0.5, 0.7], [0.5, 0.7]], np.float32)
    return np.zeros((20, 3, 1, 1), np.float32), np.tile((points * 2).ravel(), 2)


def _recogniser() -> Any:
    """(N, 3, 112, 112) -> (N, 512)."""
    from onnx import TensorProto, helper

    random = np.random.default_rng(1)
    weights = {
        "w": random.standard_normal((48, 512), np.float32),
        "b": random.standard_normal(512).astype(np.float32),
    }
    nodes = [
        helper.make_node("AveragePool", ["input.1"], ["cells"], kernel_shape=[28, 28], strides=[28, 28]),
        helper.make_node("Flatten", ["cells"], ["flat"], axis=1),
        helper.make_node("Gemm", ["flat", "w", "b"], ["embedding"]),
    ]
    picture = helper.make_tensor_value_info("input.1", TensorProto.FLOAT, ["N", 3, 112, 112])
    embedding = helper.make_tensor_value_info("embedding", TensorProto.FLOAT, ["N", 512])
    return _model(nodes, [picture], [embedding], weights)
