"""Reading a weights file that a test is about to write again."""

from pathlib import Path

from safetensors.torch import load_file
from torch import Tensor


def copied_weights(path: Path) -> dict[str, Tensor]:
    """The file's tensors in memory of their own.

    While a tensor maps the file, Windows refuses to replace it, and safetensors 0.4 writes over what is read.
    """
    return {name: tensor.clone() for name, tensor in load_file(path).items()}
