"""User folders, servers and runs of the inside checks for all tests of the host suite, each made once."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from tests.helpers.comfy.pack import make_user_folder
from tests.helpers.comfy.server import ComfyServer, python_of

INSIDE = Path(__file__).resolve().parents[1] / "helpers" / "inside" / "world.py"
INSIDE_SECONDS = 1500
OLDEST = "0.8.0"


@pytest.fixture(scope="session")
def server(comfyui: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[ComfyServer]:
    """A running ComfyUI with the pack installed."""
    with ComfyServer(comfyui, make_user_folder(tmp_path_factory.mktemp("comfy"))) as running:
        yield running


@pytest.fixture(scope="session")
def old_comfyui() -> Path:
    """The oldest ComfyUI that the pack supports."""
    folder = Path(os.environ.get("COMFYUI_PATH_OLD") or Path.home() / "comfy" / f"ComfyUI-{OLDEST}")
    if not (folder / "main.py").is_file():
        pytest.skip(f"no ComfyUI {OLDEST} found (set COMFYUI_PATH_OLD to a checkout)")
    return folder


@pytest.fixture(scope="session")
def old_python(old_comfyui: Path, comfyui: Path) -> Path:
    """Its own Python, or the current ComfyUI's, which has all that it needs."""
    try:
        return python_of(old_comfyui)
    except FileNotFoundError:
        return python_of(comfyui)


@pytest.fixture(scope="session")
def old_server(
    old_comfyui: Path, old_python: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[ComfyServer]:
    """A running ComfyUI of the oldest supported version, with the pack installed."""
    user = make_user_folder(tmp_path_factory.mktemp("old"))
    with ComfyServer(old_comfyui, user, python=old_python) as running:
        yield running


@pytest.fixture(scope="module", params=["current", "oldest"])
def any_server(request: pytest.FixtureRequest) -> ComfyServer:
    """Each of the two servers in turn."""
    return request.getfixturevalue("server" if request.param == "current" else "old_server")


@pytest.fixture(scope="session")
def inside(comfyui: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """What `world.py` found, by the name of the check; two processes share the work."""
    groups = (
        ("cache", "parity", "samplers", "models"),
        ("video", "keys", "voices", "faces", "sockets", "graph"),
    )
    users = [make_user_folder(tmp_path_factory.mktemp(names[0])) for names in groups]
    python = python_of(comfyui)
    with ThreadPoolExecutor() as pool:
        runs = [pool.submit(run_inside, comfyui, python, *run) for run in zip(users, groups, strict=True)]
    return {name: found for run in runs for name, found in run.result().items()}


@pytest.fixture(scope="session")
def old_inside(
    old_comfyui: Path, old_python: Path, tmp_path_factory: pytest.TempPathFactory
) -> dict[str, Any]:
    """The checks of the cache and of samplers in the oldest supported ComfyUI."""
    user = make_user_folder(tmp_path_factory.mktemp("old_inside"))
    return run_inside(old_comfyui, old_python, user, ("cache", "parity", "samplers"))


def run_inside(comfyui: Path, python: Path, user: Path, groups: Sequence[str]) -> dict[str, Any]:
    """All checks of these groups, in a process of their own."""
    results = user / "results.json"
    command = [str(python), str(INSIDE), str(comfyui), str(user), str(results), *groups]
    environment = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}
    done = subprocess.run(
        command, capture_output=True, text=True, timeout=INSIDE_SECONDS, env=environment, check=False
    )
    assert done.returncode == 0, done.stderr[-4000:]
    return json.loads(results.read_text(encoding="utf-8"))
