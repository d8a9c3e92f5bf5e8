"""What a bug report needs, and nothing of the person who writes it."""

from pathlib import Path

import pytest

from memo_avatar.files.published_models import FILES
from standalone.command import main


def test_the_report_names_versions_device_and_files(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    damaged = tmp_path / "diffusion_net" / "diffusion_pytorch_model.safetensors"
    damaged.parent.mkdir()
    damaged.write_bytes(b"<html>log in</html>")
    assert main(["doctor", "--folder", str(tmp_path)]) == 0
    out = capsys.readouterr().out
    for text in (
        "System: ",
        "Python 3.",
        "Device: ",
        "Packages: torch ",
        "Bundled model: whole",
        "at least ",
    ):
        assert text in out
    assert all(file.path in out for file in FILES)
    assert "DAMAGED: expected a safetensors file but got a web page" in out
    assert out.count("missing  ") == len(FILES) - 1


def test_no_personal_path_but_the_models_folder(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["doctor", "--folder", str(tmp_path)]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line for line in lines if str(Path.home()) in line or "/root" in line] == []
    assert [line for line in lines if str(tmp_path) in line] == [f"Weights in {tmp_path}:"]
