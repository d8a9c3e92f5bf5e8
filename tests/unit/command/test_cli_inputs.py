"""Every file a user can get wrong gives one clear line and exit status 2, before any model is run."""

import os
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file

from standalone.command import main
from tests.helpers.media import tone, write_sound, write_tiny_wav2vec2
from tests.helpers.weights import copied_weights

MICRO = Path(__file__).resolve().parents[2] / "goldens" / "micro" / "checkpoint"


class Command:
    """The command on the micro checkpoint with good inputs, any of which a test may replace."""

    def __init__(self, folder: Path, checkpoint: Path, wav2vec2: Path) -> None:
        self.folder = folder
        Image.new("RGB", (64, 64), (200, 150, 120)).save(folder / "p.png")
        self.options = {
            "image": folder / "p.png",
            "audio": write_sound(folder / "a.wav", tone(0.4)),
            "output": folder / "v.mp4",
            "checkpoint": checkpoint,
            "wav2vec2": wav2vec2,
            "size": 64,
            "steps": 1,
            "device": "cpu",
        }

    def run(self, **changes: object) -> int:
        options = self.options | {name.replace("_", "-"): value for name, value in changes.items()}
        return main([part for name, value in options.items() for part in (f"--{name}", str(value))])


@pytest.fixture
def command(tmp_path: Path, goldens: Path, wav2vec2: Path) -> Command:
    return Command(tmp_path, goldens / "micro" / "checkpoint", wav2vec2)


def error_line(capsys: pytest.CaptureFixture[str]) -> str:
    """The one line that the user sees."""
    out, err = capsys.readouterr()
    assert out == ""
    assert "Traceback" not in err
    errors = [line for line in err.splitlines() if line.startswith("Error: ")]
    assert len(errors) == 1, err
    return errors[0]


def without_vae(folder: Path) -> Path:
    micro = Path(__file__).resolve().parents[2] / "goldens" / "micro" / "checkpoint"
    return Path(shutil.copytree(micro, folder / "memo", ignore=shutil.ignore_patterns("vae")))


def text_file(folder: Path) -> Path:
    path = folder / "notes.txt"
    path.write_text("This is text.\n" * 100)
    return path


def empty_file(folder: Path) -> Path:
    path = folder / "empty"
    path.touch()
    return path


def picture(folder: Path, width: int, height: int, mode: str = "RGB") -> Path:
    path = folder / "other.png"
    Image.new(mode, (width, height)).save(path)
    return path


BAD_FILES = {
    "image missing": ("image", lambda f: f / "none.png", "expected a picture file but got no such file"),
    "image is text": ("image", text_file, "expected a picture but got a file of another kind"),
    "image is empty": ("image", empty_file, "expected a picture but got a file of another kind"),
    "image is a folder": ("image", lambda f: f, "expected a picture file but got a folder"),
    "image 1x1": ("image", lambda f: picture(f, 1, 1), "at least 32x32 pixels but got 1x1"),
    "image 10000x1": ("image", lambda f: picture(f, 10_000, 1), "at least 32x32 pixels but got 10000x1"),
    "audio missing": ("audio", lambda f: f / "none.wav", "expected a sound file but got no such file"),
    "audio is text": ("audio", text_file, "expected a file with sound but got one without an audio stream"),
    "audio is empty": ("audio", empty_file, "expected a sound file but got an empty file of 0 bytes"),
    "audio is a picture": ("audio", lambda f: f / "p.png", "expected a file with sound but got one without"),
    "audio too short": (
        "audio",
        lambda f: write_sound(f / "s.wav", tone(0.01)),
        "at least 0.1 s of sound but got 0.01 s",
    ),
    "no output folder": (
        "output",
        lambda f: f / "no" / "v.mp4",
        "expected an existing folder but got none",
    ),
    "output is a folder": ("output", lambda f: f, "expected an output ending in .mp4, .mov, .mkv, .gif"),
    "output not writable": (
        "output",
        lambda f: Path("/proc/v.mp4"),
        "expected a file that can be written but got",
    ),
    "output of another kind": (
        "output",
        lambda f: f / "v.txt",
        "frames/%05d.png, but got v.txt",
    ),
    "checkpoint missing": (
        "checkpoint",
        lambda f: f / "none",
        "expected a MEMO checkpoint but got nothing there",
    ),
    "no checkpoint": ("checkpoint", lambda f: f, "expected the folders diffusion_net, reference_net"),
    "checkpoint without vae": ("checkpoint", without_vae, "expected a vae folder but got nothing there"),
    "vae missing": ("vae", lambda f: f / "none", "expected a vae folder but got nothing there"),
    "wav2vec2 is a file": ("wav2vec2", lambda f: f / "p.png", "expected a wav2vec2 folder but got a file"),
    "wav2vec2 without config": (
        "wav2vec2",
        lambda f: f,
        "expected config.json of the wav2vec2 model but got a.wav, p.png",
    ),
    "face embedding is text": (
        "face-embedding",
        text_file,
        "expected a safetensors file but got",
    ),
    "calibration missing": (
        "calibration",
        lambda f: f / "none.json",
        "expected a readable none.json but got",
    ),
    "calibration is text": ("calibration", text_file, "expected a JSON object but got"),
    "report not writable": (
        "cache-report",
        lambda f: f / "no" / "r.json",
        "expected an existing folder but got none",
    ),
    "report is the portrait": (
        "cache-report",
        lambda f: f / "p.png",
        "expected a file apart from the inputs",
    ),
    "report is the recording": (
        "cache-report",
        lambda f: f / "a.wav",
        "expected a file apart from the inputs",
    ),
    "report is a model file": (
        "cache-report",
        lambda f: MICRO / "vae" / "config.json",
        "expected a file apart from the inputs",
    ),
    "calibrating over the recording": (
        "calibrate",
        lambda f: f / "a.wav",
        "expected a file apart from the inputs",
    ),
    "unknown device": ("device", lambda f: "tpu9", "expected a device of this machine but got tpu9"),
}


@pytest.mark.parametrize("name", BAD_FILES)
def test_bad_files(name: str, command: Command, capsys: pytest.CaptureFixture[str]) -> None:
    option, make, message = BAD_FILES[name]
    extra = {"rel_l1_thresh": 0.1} if option == "calibration" else {}
    assert command.run(**{option: make(command.folder)}, **extra) == 2
    assert message in error_line(capsys)
    assert not (command.folder / "v.mp4").exists()


def test_output_equals_input(command: Command, capsys: pytest.CaptureFixture[str]) -> None:
    sound = write_sound(command.folder / "v.mp4", tone(0.4), 48_000, "aac")
    before = sound.read_bytes()
    assert command.run(audio=sound) == 2
    assert "expected a file apart from the inputs and the other outputs but got one of them" in error_line(
        capsys
    )
    assert sound.read_bytes() == before


def test_no_disk_space(
    command: Command, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    usage = shutil.disk_usage(command.folder)._replace(free=1_000)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage)
    assert command.run() == 2
    assert "MB of free space but got 0 MB" in error_line(capsys)


def test_two_cache_rules(command: Command, capsys: pytest.CaptureFixture[str]) -> None:
    assert command.run(rel_l1_thresh=0.1, target_speedup=2) == 2
    assert "rel_l1_thresh and target_speedup" in error_line(capsys)


def test_wav2vec2_of_another_size(command: Command, capsys: pytest.CaptureFixture[str]) -> None:
    other = write_tiny_wav2vec2(command.folder / "other", hidden_size=32)
    assert command.run(wav2vec2=other) == 2
    assert "x 5 is 160 but got 2 x 32 x 5" in error_line(capsys)


def test_face_embedding_of_another_size(command: Command, capsys: pytest.CaptureFixture[str]) -> None:
    path = command.folder / "face.safetensors"
    save_file({"face": torch.ones(256)}, path)
    assert command.run(face_embedding=path) == 2
    assert "expected 512 numbers but got F32 of shape (256,)" in error_line(capsys)


@pytest.mark.parametrize("part", ["vae", "audio_proj", "wav2vec2"])
def test_nan_weights(part: str, command: Command, capsys: pytest.CaptureFixture[str]) -> None:
    folder = command.folder / "checkpoint"
    shutil.copytree(command.options["checkpoint"], folder)
    shutil.copytree(command.options["wav2vec2"], folder / "wav2vec2")
    (weights,) = (folder / part).glob("*.safetensors")
    os.chmod(weights, 0o644)
    tensors = copied_weights(weights)
    key = sorted(tensors)[0]
    tensors[key].view(-1)[0] = np.nan
    save_file(tensors, weights)
    assert command.run(checkpoint=folder, wav2vec2=folder / "wav2vec2") == 2
    line = error_line(capsys)
    assert "expected finite weights but got NaN or infinity" in line
    assert str(folder) in line


def test_truncated_vae(command: Command, capsys: pytest.CaptureFixture[str]) -> None:
    vae = command.folder / "vae"
    shutil.copytree(command.options["checkpoint"] / "vae", vae, copy_function=shutil.copyfile)
    weights = vae / "diffusion_pytorch_model.safetensors"
    weights.write_bytes(weights.read_bytes()[:5_000])
    assert command.run(vae=vae) == 2
    line = error_line(capsys)
    assert (
        "expected a header of " in line
        and "bytes but got 4992" in line
        and "The download was cut off" in line
    )


def test_a_damaged_single_file_is_told_before_the_vae_that_it_would_need(
    command: Command, capsys: pytest.CaptureFixture[str]
) -> None:
    """Else one fetches a VAE only to learn that the file is broken."""
    (command.folder / "memo.safetensors").write_bytes(b"")
    assert command.run(checkpoint=command.folder / "memo.safetensors") == 2
    assert "expected a safetensors file but got an empty file" in error_line(capsys)


def test_convert_errors(command: Command, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["convert", str(command.folder), str(command.folder / "m.safetensors")]) == 2
    assert "expected the folders diffusion_net, reference_net, image_proj, audio_proj but got" in error_line(
        capsys
    )
    assert (
        main(["convert", str(command.options["checkpoint"]), str(command.folder / "none" / "m.safetensors")])
        == 2
    )
    assert "expected an existing folder but got none" in error_line(capsys)
    assert main(["convert", "onlysource"]) == 2
    assert "the following arguments are required: DST" in error_line(capsys)
