"""Installing the pack leaves a ComfyUI environment as it was."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import pytest

from tests.helpers.comfy_pack import ROOT
from tests.helpers.comfy_server import python_of

pytestmark = [pytest.mark.host, pytest.mark.timeout(600)]


def test_pip_would_add_the_pack_alone(comfyui: Path) -> None:
    """The manager installs requirements.txt, the registry what pyproject.toml asks for."""
    assert not (ROOT / "requirements.txt").exists()
    python = str(python_of(comfyui))
    if subprocess.run([python, "-c", "import setuptools, pip"], capture_output=True, check=False).returncode:
        pytest.skip("this ComfyUI's environment has no pip and setuptools")
    command = [python, "-m", "pip", "install", "--dry-run", "--no-build-isolation", "-qq", "--report", "-"]
    done = subprocess.run([*command, str(ROOT)], capture_output=True, text=True, timeout=500, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    installed = json.loads(done.stdout)["install"]
    assert [package["metadata"]["name"] for package in installed] == ["teacache-memo"]
