"""All that may arrive on a socket for sound: what can be meant is taken, the rest is told in one line."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from memo_avatar.voice.sound import MediaError, read_audio
from tests.helpers.media import tone

MONO = torch.from_numpy(tone(0.5))
STEREO = torch.from_numpy(tone(0.5, channels=2))


class Lazy(Mapping[str, Any]):
    """Sound that another pack decodes when it is asked for."""

    def __init__(self, waveform: Any) -> None:
        self.waveform = waveform

    def __getitem__(self, key: str) -> Any:
        return {"waveform": self.waveform, "sample_rate": 16_000}[key]

    def __iter__(self) -> Iterator[str]:
        return iter(("waveform", "sample_rate"))

    def __len__(self) -> int:
        return 2


def audio(waveform: Any, sample_rate: Any = 16_000) -> dict[str, Any]:
    return {"waveform": waveform, "sample_rate": sample_rate}


TAKEN: dict[str, tuple[Any, Tensor]] = {
    "as the host gives it": (audio(STEREO[None]), STEREO),
    "a batch": (audio(torch.stack([STEREO, STEREO * 0])), STEREO),
    "no batch": (audio(STEREO), STEREO),
    "samples alone": (audio(MONO[0]), MONO),
    "double": (audio(STEREO[None].double()), STEREO),
    "half": (audio(STEREO[None].half()), STEREO.half().float()),
    "bfloat16": (audio(STEREO[None].bfloat16()), STEREO.bfloat16().float()),
    "a gradient": (audio(STEREO[None].clone().requires_grad_()), STEREO),
    "not contiguous": (audio(STEREO.T.contiguous().T[None]), STEREO),
    "an array": (audio(STEREO[None].numpy()), STEREO),
    "a list": (audio([0.0, 0.5, -0.5]), torch.tensor([[0.0, 0.5, -0.5]])),
    "16 bit": (
        audio(torch.tensor([[-(2**15), 0, 2**14]], dtype=torch.int16)),
        torch.tensor([[-1.0, 0.0, 0.5]]),
    ),
    "32 bit": (audio(torch.tensor([[-(2**31), 0]], dtype=torch.int32)), torch.tensor([[-1.0, 0.0]])),
    "8 bit": (audio(torch.tensor([[0, 128, 192]], dtype=torch.uint8)), torch.tensor([[-1.0, 0.0, 0.5]])),
    "decoded when asked for": (Lazy(STEREO[None]), STEREO),
    "a rate of numpy": (audio(STEREO, np.int64(16_000)), STEREO),
    "a rate as a tensor": (audio(STEREO, torch.tensor(16_000)), STEREO),
    "a rate as a float": (audio(STEREO, 16_000.0), STEREO),
    "16 channels": (audio(torch.zeros(1, 16, 100)), torch.zeros(16, 100)),
    "nothing to hear": (audio(torch.zeros(1, 1, 0)), torch.zeros(1, 0)),
}

NO_SOUND = "expected sound, a waveform and its sample rate, but got "
NO_WAVEFORM = r"expected a waveform of shape \(1, channels, samples\) but got "

REFUSED: dict[str, tuple[Any, str]] = {
    "nothing": (None, f"{NO_SOUND}nothing "),
    "a tensor": (STEREO, rf"{NO_SOUND}numbers of shape \(2, 8000\) "),
    "a list of sounds": ([audio(STEREO)], f"{NO_SOUND}a list of 1 "),
    "a text": ("a.wav", f"{NO_SOUND}a text "),
    "no rate": ({"waveform": STEREO}, f"{NO_SOUND}one that can't be read "),
    "no waveform": ({"sample_rate": 16_000}, f"{NO_SOUND}a set of values "),
    "None inside": (audio(None), f"{NO_SOUND}one that can't be read "),
    "a path inside": (audio("a.wav"), f"{NO_SOUND}one that can't be read "),
    "no number for a rate": (audio(STEREO, "fast"), f"{NO_SOUND}one that can't be read "),
    "ragged": (audio([[0.0], [0.0, 1.0]]), f"{NO_SOUND}one that can't be read "),
    "objects": (audio(np.array([object()])), f"{NO_SOUND}one that can't be read "),
    "an empty batch": (audio(torch.zeros(0, 2, 100)), rf"{NO_WAVEFORM}\(0, 2, 100\) of float32"),
    "four dimensions": (audio(torch.zeros(1, 1, 1, 100)), rf"{NO_WAVEFORM}\(1, 1, 1, 100\)"),
    "one number": (audio(torch.tensor(0.5)), rf"{NO_WAVEFORM}\(\) of float32"),
    "complex": (audio(STEREO + 0j), rf"{NO_WAVEFORM}\(2, 8000\) of complex64"),
    "a mask": (audio(STEREO > 0), rf"{NO_WAVEFORM}\(2, 8000\) of bool"),
    "channels last": (audio(STEREO.T), "expected 1 to 16 channels of sound but got 8000"),
    "no channel": (audio(torch.zeros(1, 0, 100)), "expected 1 to 16 channels of sound but got 0"),
    "1 Hz": (audio(STEREO, 1), "expected 1000 to 768000 samples a second but got 1 "),
    "no rate at all": (audio(STEREO, 0), "samples a second but got 0 "),
    "a rate below 0": (audio(STEREO, -16_000), "samples a second but got -16000 "),
    "NaN for a rate": (audio(STEREO, float("nan")), "samples a second but got nan "),
    "a rate without end": (audio(STEREO, float("inf")), "samples a second but got inf "),
}


@pytest.mark.parametrize("name", TAKEN)
def test_what_can_be_meant_is_taken(name: str) -> None:
    value, expected = TAKEN[name]
    samples, sample_rate = read_audio(value, "audio")
    assert sample_rate == 16_000
    assert samples.dtype == torch.float32 and not samples.requires_grad
    assert torch.equal(samples, expected)


@pytest.mark.parametrize("name", REFUSED)
def test_everything_else_is_told_in_one_line(name: str) -> None:
    value, message = REFUSED[name]
    with pytest.raises(MediaError, match=message) as caught:
        read_audio(value, "vocals")
    assert (
        "(vocals)" in str(caught.value) and "\n" not in str(caught.value) and str(caught.value).endswith(".")
    )
