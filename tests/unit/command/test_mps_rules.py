"""What an Apple GPU can't do is asked of none: the command runs whole under its rules."""

from __future__ import annotations

from pathlib import Path

import av
import numpy as np
import pytest
import torch
from PIL import Image

from standalone.command import main
from tests.helpers.media import tone, write_sound, write_tiny_wav2vec2
from tests.helpers.mps_rules import MPS, mps_rules


def test_the_stand_in_computes_and_keeps_the_rules() -> None:
    with torch.inference_mode(), mps_rules():
        made = torch.arange(6.0, device=MPS).view(2, 3)
        assert made.device.type == "mps" and made.sum().item() == 15
        net = torch.nn.Linear(3, 2).to(MPS)
        assert net(made).device == made.device
        assert (made.cpu().double() == torch.arange(6).view(2, 3)).all()
        assert made.to("cpu", torch.float64).abs().sum() == 0, "as torch 2.14 does"
        for wrong in (made.double, lambda: torch.zeros(1, dtype=torch.float64, device=MPS)):
            with pytest.raises(TypeError, match="float64"):
                wrong()
        with pytest.raises(TypeError, match="numpy"):
            made.numpy()
        with pytest.raises(RuntimeError, match="same device"):
            made + torch.ones(2, 3)


@pytest.mark.parametrize("extra", [(), ("--rel-l1-thresh", "0.2", "--emotion", "0 happy, 0.2 sad")])
def test_a_video_under_the_rules_is_that_of_the_cpu(
    tmp_path: Path, goldens: Path, extra: tuple[str, ...]
) -> None:
    """A float64 asked of the GPU raises; statistics that it zeroed would show in the frames."""
    checkpoint = goldens / "micro" / "checkpoint"
    sound = write_sound(tmp_path / "a.wav", tone(0.7, 44_100), 44_100)
    Image.new("RGB", (64, 64), (200, 150, 120)).save(tmp_path / "p.png")
    options = ["--image", str(tmp_path / "p.png"), "--audio", str(sound), "--checkpoint", str(checkpoint)]
    options += ["--wav2vec2", str(write_tiny_wav2vec2(tmp_path / "wav2vec2")), "--dtype", "float32"]
    options += ["--size", "64", "--steps", "2", *extra]
    assert main([*options, "--output", str(tmp_path / "cpu.mp4"), "--device", "cpu"]) == 0
    with mps_rules():
        assert main([*options, "--output", str(tmp_path / "mps.mp4"), "--device", "mps"]) == 0
    cpu, mps = (pictures(tmp_path / name) for name in ("cpu.mp4", "mps.mp4"))
    assert cpu.shape == mps.shape == (21, 64, 64, 3)
    assert np.abs(cpu - mps).max() <= 2


def pictures(path: Path) -> np.ndarray:
    with av.open(str(path)) as container:
        return np.stack([frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]).astype(int)
