"""One user folder, one server and one run of the inside checks for all tests of the host suite."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.helpers.comfy_pack import make_user_folder
from tests.helpers.comfy_server import ComfyServer, python_of

INSIDE = Path(__file__).resolve().parents[1] / "helpers" / "comfy_inside.py"
INSIDE_SECONDS = 1500


@pytest.fixture(scope="session")
def server(comfyui: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[ComfyServer]:
    """A running ComfyUI with the pack installed."""
    with ComfyServer(comfyui, make_user_folder(tmp_path_factory.mktemp("comfy"))) as running:
        yield running


@pytest.fixture(scope="session")
def inside(comfyui: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """What `comfy_inside.py` found, by the name of the check."""
    user = make_user_folder(tmp_path_factory.mktemp("inside"))
    results = user / "results.json"
    command = [str(python_of(comfyui)), str(INSIDE), str(comfyui), str(user), str(results)]
    environment = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}
    done = subprocess.run(
        command, capture_output=True, text=True, timeout=INSIDE_SECONDS, env=environment, check=False
    )
    assert done.returncode == 0, done.stderr[-4000:]
    return json.loads(results.read_text(encoding="utf-8"))
