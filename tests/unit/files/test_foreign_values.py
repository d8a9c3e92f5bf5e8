"""What another pack's node brings to a socket is called as its user calls it, never by a class of Python."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from memo_avatar.files.foreign import in_words

CALLED: dict[str, tuple[Any, str]] = {
    "None": (None, "nothing"),
    "str": ("photo.png", "a text"),
    "bool": (True, "a yes or no"),
    "int": (3, "a number"),
    "float": (0.5, "a number"),
    "list": ([1, 2], "a list of 2"),
    "tuple": ((), "a list of 0"),
    "IMAGE": (torch.zeros(1, 8, 8, 3), "a picture"),
    "IMAGE with alpha": (torch.zeros(1, 8, 8, 4), "a picture"),
    "IMAGE without a batch": (torch.zeros(8, 8, 3), "a picture"),
    "IMAGE of a video": (torch.zeros(25, 8, 8, 3), "25 pictures"),
    "IMAGE as an array": (np.zeros((1, 8, 8, 3)), "a picture"),
    "MASK": (torch.zeros(1, 8, 8), "a mask"),
    "AUDIO": ({"waveform": torch.zeros(1, 1, 9), "sample_rate": 9}, "a sound"),
    "LATENT": ({"samples": torch.zeros(1, 4, 8, 8)}, "a latent"),
    "BOUNDING_BOX": ({"x": 1, "y": 1, "width": 2, "height": 2}, "a box"),
    "dict": ({"a": 1}, "a set of values"),
    "VIDEO": (SimpleNamespace(get_components=1), "a video"),
    "CLIP_VISION": (SimpleNamespace(encode_image=1), "a vision model"),
    "AUDIO_ENCODER": (SimpleNamespace(encode_audio=1), "an audio encoder"),
    "CLIP": (SimpleNamespace(cond_stage_model=1), "a text encoder"),
    "VAE": (SimpleNamespace(first_stage_model=1), "a VAE"),
    "MODEL": (SimpleNamespace(model_options=1), "a model"),
    "no pixels": (torch.zeros(1, 0, 8, 3), "numbers of shape (1, 0, 8, 3)"),
    "two channels": (torch.zeros(1, 8, 8, 2), "numbers of shape (1, 8, 8, 2)"),
    "samples alone": (torch.zeros(1, 2, 16_000), "numbers of shape (1, 2, 16000)"),
    "one number": (torch.tensor(1.0), "numbers of shape ()"),
    "sparse": (torch.zeros(1, 8, 8, 3).to_sparse(), "sparse numbers of shape (1, 8, 8, 3)"),
    "complex": (torch.zeros(1, 8, 8) + 0j, "complex numbers of shape (1, 8, 8)"),
    "whole": (torch.zeros(1, 8, 8, 3).int(), "whole numbers of shape (1, 8, 8, 3)"),
    "any object": (object(), "another kind of value"),
}


@pytest.mark.parametrize("kind", CALLED)
def test_a_value_is_called_as_its_user_calls_it(kind: str) -> None:
    value, words = CALLED[kind]
    assert in_words(value) == words
