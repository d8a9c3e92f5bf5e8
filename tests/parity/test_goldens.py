"""Our numbers against the stored ones, by the command that a person runs."""

import subprocess
import sys
from pathlib import Path

import pytest
from safetensors.torch import load_file, save_file

from tests.parity.check import main

ROOT = Path(__file__).resolve().parents[2]
CASES = sorted((ROOT / "tests" / "goldens").glob("*/run.json"))


@pytest.mark.parametrize("case", [path.parent for path in CASES], ids=lambda case: case.name)
def test_case_is_within_tolerance(case: Path, capsys: pytest.CaptureFixture[str]) -> None:
    failed = main([str(case)])
    table = capsys.readouterr().out
    assert not failed, table
    assert "tolerance" in table, "the check must print each tensor's error"


def test_a_golden_that_differs_fails(tmp_path: Path) -> None:
    """The check can fail: it says so when a stored tensor is not what we compute."""
    case = tmp_path / "audio"
    case.mkdir()
    for item in (ROOT / "tests" / "goldens" / "audio").iterdir():
        (case / item.name).symlink_to(item)
    golden = load_file(case / "golden.safetensors")
    (case / "golden.safetensors").unlink()
    save_file(golden | {"audio_emb": golden["audio_emb"] * 1.01}, case / "golden.safetensors")
    command = [sys.executable, "tests/parity/check.py", str(case)]
    run = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert run.returncode == 1, run.stdout + run.stderr
    assert "audio_emb" in run.stdout
