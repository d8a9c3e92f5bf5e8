"""The command under Windows' file rules: a video, a calibration and a report, made and made again."""

from pathlib import Path

import pytest
from PIL import Image

from memo_avatar.video import unfinished
from standalone.command import main
from tests.helpers.media import tone, write_sound, write_tiny_wav2vec2
from tests.helpers.windows_rules import windows_rules


def test_video_calibration_and_report_are_written_and_replaced(
    tmp_path: Path, goldens: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(unfinished, "_OPEN_FILES_STAY", True)  # as on Windows
    Image.new("RGB", (64, 64), (200, 150, 120)).save(tmp_path / "p.png")
    options = {
        "image": tmp_path / "p.png",
        "audio": write_sound(tmp_path / "a.wav", tone(0.4)),
        "output": tmp_path / "out" / "v.mp4",
        "checkpoint": goldens / "micro" / "checkpoint",
        "wav2vec2": write_tiny_wav2vec2(tmp_path / "wav2vec2"),
        "size": 64,
        "steps": 3,
        "device": "cpu",
        "calibrate": tmp_path / "out" / "c.json",
        "cache-report": tmp_path / "out" / "r.txt",
    }
    (tmp_path / "out").mkdir()
    command = [part for name, value in options.items() for part in (f"--{name}", str(value))]
    with windows_rules() as refused:
        for _ in range(2):
            assert main(command) == 0
    assert refused == []
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["c.json", "r.txt", "v.mp4"]
