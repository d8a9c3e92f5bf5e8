"""Vocal separation against audio-separator's numbers; live too, where AUDIO_SEPARATOR_PYTHON is given."""

import os
import re
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from safetensors.torch import load_file

from memo_avatar.voice.sound import MediaError, fit_length
from memo_avatar.voice.vocals import VocalNet, open_net, separate
from tests.helpers.reference.vocal_reference import BINS, FRAMES, N_FFT, STRIDE, mix, net

ROOT = Path(__file__).resolve().parents[3]


@torch.inference_mode()
def test_equals_audio_separator(goldens: Path) -> None:
    expected = load_file(goldens / "vocals" / "golden.safetensors")["vocals"]
    found = separate(mix(), VocalNet(net, FRAMES, BINS, N_FFT))
    assert found.shape == mix().shape
    assert (found[:, ::STRIDE] - expected).abs().max() < 1e-5 * expected.abs().max()


@pytest.mark.slow
@pytest.mark.skipif(
    "AUDIO_SEPARATOR_PYTHON" not in os.environ,
    reason="AUDIO_SEPARATOR_PYTHON names no Python with audio-separator",
)
def test_equals_the_installed_audio_separator_through_onnxruntime(tmp_path: Path) -> None:
    script = ROOT / "tests" / "helpers" / "reference" / "vocal_reference.py"
    command = [os.environ["AUDIO_SEPARATOR_PYTHON"], str(script), str(tmp_path / "out.safetensors")]
    done = subprocess.run(command, check=True, capture_output=True, text=True, timeout=300)
    match = re.search(r"largest difference (\S+) of (\S+)", done.stdout)
    assert match is not None
    assert float(match[1]) < 1e-5 * float(match[2])


@torch.inference_mode()
def test_a_net_that_changes_nothing_gives_the_mix_back() -> None:
    sound = mix(0.7) * 0.5  # below the peak that is scaled
    found = separate(sound, VocalNet(lambda x: x, FRAMES, N_FFT // 2 + 1, N_FFT))
    peak = sound.abs().max()  # upstream's library multiplies by it, also where nothing was scaled
    relative = (found / peak - sound).norm() / sound.norm()
    assert relative < 0.01  # what the three lowest bins held


def test_progress_rises_to_the_end() -> None:
    seen: list[float] = []
    separate(mix(0.7), VocalNet(net, FRAMES, BINS, N_FFT), on_done=seen.append)
    assert seen == sorted(seen) and seen[-1] == 1


def test_without_the_file(tmp_path: Path) -> None:
    with pytest.raises(
        MediaError, match=r"expected the vocal separator but got no such file .*models download"
    ):
        open_net(tmp_path / "Kim_Vocal_2.onnx")


def test_without_onnxruntime(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "Kim_Vocal_2.onnx").touch()
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(MediaError, match=r"expected the package onnxruntime but it is not installed"):
        open_net(tmp_path / "Kim_Vocal_2.onnx")


@pytest.mark.parametrize(
    ("shape", "text"),
    [
        (None, "expected an MDX-Net but got: Protobuf parsing failed"),
        ([1, 3, 300, 16], "expected a net for 4 channels of fixed size but got"),
        (["b", 4, "bins", 16], "expected a net for 4 channels of fixed size but got"),
        ([1, 16], "expected an MDX-Net but got: not enough values"),
    ],
)
def test_files_that_are_no_such_net(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, shape: list[object] | None, text: str
) -> None:
    (tmp_path / "x.onnx").touch()

    class Session:
        def __init__(self, *_args: object, **_kwargs: object) -> None:
            if shape is None:
                raise RuntimeError("Protobuf parsing failed")

        def get_inputs(self) -> list[SimpleNamespace]:
            return [SimpleNamespace(name="input", shape=shape)]

    library = SimpleNamespace(
        InferenceSession=Session, SessionOptions=SimpleNamespace, get_available_providers=list
    )
    monkeypatch.setitem(sys.modules, "onnxruntime", library)
    with pytest.raises(MediaError, match=text):
        open_net(tmp_path / "x.onnx")


def test_vocals_of_another_recording() -> None:
    assert fit_length(torch.ones(16_000), 17_000, "vocals").shape == (17_000,)
    assert fit_length(torch.ones(17_000), 16_000, "vocals").shape == (16_000,)
    with pytest.raises(
        MediaError, match=r"expected vocals of 3\.00 s, as long as the voice, but got 1\.00 s"
    ):
        fit_length(torch.ones(16_000), 48_000, "vocals")
