"""`teacache_memo.py setup` starts with nothing installed, asks pip for what is needed, says what failed."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from standalone import setup_command

ROOT = Path(__file__).resolve().parents[3]


def bare_python(*arguments: str) -> subprocess.CompletedProcess[str]:
    """The command in a Python that finds the standard library and nothing else."""
    command = [sys.executable, "-S", "-s", str(ROOT / "teacache_memo.py"), *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=False)


class Pip:
    """In the place of `subprocess.run`: answers as pip would, installs nothing."""

    def __init__(self, status: int = 0) -> None:
        self.status, self.commands = status, []

    def __call__(self, command: list[Any], **_options: Any) -> subprocess.CompletedProcess[str]:
        self.commands.append([str(part) for part in command])
        return subprocess.CompletedProcess(command, 0 if "--version" in command else self.status)


@pytest.fixture
def pip(monkeypatch: pytest.MonkeyPatch) -> Pip:
    pip = Pip()
    monkeypatch.setattr(setup_command.subprocess, "run", pip)
    return pip


def test_it_starts_where_nothing_is_installed() -> None:
    done = bare_python("setup", "--help")
    assert done.returncode == 0, done.stderr
    assert "--torch REQUIREMENT" in done.stdout


def test_without_it_the_command_says_to_run_it() -> None:
    done = bare_python("--image", "portrait.png")
    assert done.returncode == 2
    (line,) = done.stderr.splitlines()
    assert line.startswith("Error: expected the package torch") and line.endswith("teacache_memo.py setup")


def test_a_new_environment_is_made_and_filled(
    pip: Pip, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    made = []
    monkeypatch.setattr(setup_command, "has_pip", lambda python: False)
    monkeypatch.setattr(
        setup_command.venv, "create", lambda folder, **options: made.append((folder, options))
    )
    assert setup_command.main(["--folder", str(tmp_path / "new")]) == 0
    ((folder, options),) = made
    assert folder == tmp_path / "new" and options["with_pip"]
    (command,) = pip.commands
    assert Path(command[0]).is_relative_to(folder)
    assert command[-3:] == [setup_command.TORCH, "-e", ".[standalone]"]
    assert "Next:" in capsys.readouterr().out


def test_an_environment_that_is_there_is_updated(pip: Pip, tmp_path: Path) -> None:
    options = ["--torch", "torch==2.8.0", "--index", "https://example.org/cu", "--constraints", "old.txt"]
    assert setup_command.main(["--folder", str(tmp_path), "--tests", *options]) == 0
    _, command = pip.commands
    assert command[-3:] == ["torch==2.8.0", "-e", ".[standalone,dev]"]
    assert command[command.index("--extra-index-url") + 1] == "https://example.org/cu"
    assert command[command.index("--constraint") + 1] == "old.txt"
    assert not list(tmp_path.iterdir()), "nothing is cleared"


def test_the_next_command_is_one_that_works(pip: Pip, capsys: pytest.CaptureFixture[str]) -> None:
    assert setup_command.main(["--tests"]) == 0
    python = setup_command.python_in(Path(".venv"))
    assert f"Next: {python} -m pytest" in capsys.readouterr().out


def test_pips_failure_is_ours(pip: Pip, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pip.status = 1
    assert setup_command.main(["--folder", str(tmp_path)]) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("Error: pip could not install torch") and "docs/platforms.md" in line


def test_a_python_that_is_too_old_is_refused(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(setup_command.sys, "version_info", (3, 9, 18))
    assert setup_command.main(["--folder", str(tmp_path / "new")]) == 1
    assert "expected Python 3.10 or newer but got" in capsys.readouterr().err
    assert not (tmp_path / "new").exists()


def test_a_folder_that_cannot_be_made_is_said(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    done = bare_python("setup", "--folder", str(tmp_path / "file"))
    assert done.returncode == 1
    (line,) = done.stderr.splitlines()
    assert line.startswith("Error: expected an environment in") and "could not be made" in line


WITHOUT_PIP = """
import subprocess, sys
from standalone import setup_command
setup_command.subprocess.run = lambda *command, **options: subprocess.CompletedProcess(command, 0)
sys.exit(setup_command.main(["--folder", "说话"]))
"""


def test_a_folder_that_the_console_cannot_show_ends_nothing() -> None:
    environment = os.environ | {"PYTHONIOENCODING": "cp1252"}
    command = [sys.executable, "-c", WITHOUT_PIP]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, env=environment, check=False)
    assert done.returncode == 0, done.stderr
    assert r"Setting up \u8bf4\u8bdd" in done.stdout
