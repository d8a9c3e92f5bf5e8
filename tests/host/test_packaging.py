"""Installing the pack leaves a ComfyUI environment as it was."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import venv
from pathlib import Path

import pytest

from tests.helpers.checkout import ROOT, copy_tracked
from tests.helpers.comfy.server import python_of

pytestmark = [pytest.mark.host, pytest.mark.timeout(600)]

COMFY_CLI = "comfy-cli==1.23.0"


def test_pip_would_add_the_pack_alone(comfyui: Path, tmp_path: Path) -> None:
    """The manager installs requirements.txt, the registry what pyproject.toml asks for."""
    assert not (ROOT / "requirements.txt").exists()
    python = str(python_of(comfyui))
    if subprocess.run([python, "-m", "pip", "--version"], capture_output=True, check=False).returncode:
        pytest.skip("this ComfyUI's environment has no pip")
    command = [
        python,
        "-m",
        "pip",
        "install",
        "--dry-run",
        "-qq",
        "--report",
        "-",
        str(copy_tracked(tmp_path)),
    ]
    done = subprocess.run(command, capture_output=True, text=True, timeout=500, check=False)
    if "setuptools" in done.stderr and "No matching distribution" in done.stderr:
        pytest.skip("pip finds no setuptools to build the pack with, here")
    assert done.returncode == 0, done.stderr[-3000:]
    installed = json.loads(done.stdout)["install"]
    assert [package["metadata"]["name"] for package in installed] == ["teacache-memo"]


def comfy_cli() -> Path:
    """ComfyUI's own tool in an environment of its own, fetched once, or a skip that says why not."""
    folder = ROOT / ".venv" / "comfy-cli"
    scripts = folder / ("Scripts" if os.name == "nt" else "bin")
    stamp = folder / COMFY_CLI
    if not stamp.exists():
        venv.create(folder, with_pip=True, clear=True)
        python = scripts / Path(sys.executable).name
        command = [str(python), "-m", "pip", "install", "-qq", "--disable-pip-version-check", COMFY_CLI]
        done = subprocess.run(command, capture_output=True, text=True, timeout=500, check=False)
        if done.returncode:
            pytest.skip(f"no {COMFY_CLI}, and pip failed: {done.stderr.strip()[-300:]}")
        stamp.touch()
    return scripts


def test_the_registry_would_take_it(tmp_path: Path) -> None:
    """`comfy node validate`, on what a clone has: metadata, and the registry's security rules."""
    scripts = comfy_cli()
    copy_tracked(tmp_path)
    environment = os.environ | {"PATH": f"{scripts}{os.pathsep}{os.environ['PATH']}", "HOME": str(tmp_path)}
    command = [str(scripts / "comfy"), "--skip-prompt", "--no-enable-telemetry", "node", "validate"]
    done = subprocess.run(
        command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "All validation checks passed successfully" in done.stdout + done.stderr
