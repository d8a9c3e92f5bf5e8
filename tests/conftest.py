"""What every test shares: the import path, and which suites can run on this machine."""

from __future__ import annotations  # pytest 8.0 does not name all of its types

import os
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parent.parent
HOST_SUITES = (ROOT / "tests" / "host", ROOT / "tests" / "browser")


def append_root_to_path() -> None:
    """Put the repository last on sys.path, wherever the launcher put it.

    Ahead of ComfyUI our `nodes/` would shadow its `nodes.py`.
    """
    kept = [entry for entry in sys.path if Path(entry or os.curdir).resolve() != ROOT]
    sys.path[:] = [*kept, str(ROOT)]


def find_comfyui() -> Path | None:
    """The ComfyUI to test in: COMFYUI_PATH, ~/comfy/ComfyUI, or the one this pack is installed in."""
    named = os.environ.get("COMFYUI_PATH")
    folders = [Path(named)] if named else [Path.home() / "comfy" / "ComfyUI", ROOT.parent.parent]
    return next(
        (path for path in folders if (path / "main.py").is_file() and (path / "comfy").is_dir()), None
    )


append_root_to_path()
# Read when torch is loaded, here and in the processes that tests start. The nets are tiny: on a busy machine
# two threads wait for each other longer than they compute, up to thirty times.
os.environ.setdefault("OMP_NUM_THREADS", "1")
COMFYUI = find_comfyui()
NO_COMFYUI = "no ComfyUI found (set COMFYUI_PATH to a checkout)"


def pytest_ignore_collect(collection_path: Path) -> bool | None:
    """Leave the host and browser suites out where there is no ComfyUI to run them in."""
    return True if COMFYUI is None and collection_path in HOST_SUITES else None


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    """Of several processes (pytest-xdist) one runs what shares fixtures: a suite in ComfyUI, or a file."""
    from xdist.scheduler import LoadScopeScheduling

    class OneProcessPerSuite(LoadScopeScheduling):
        def _split_scope(self, nodeid: str) -> str:
            file = nodeid.split("::")[0]
            suites = [suite.name for suite in HOST_SUITES]
            return next((name for name in suites if file.startswith(f"tests/{name}/")), file)

    return OneProcessPerSuite(config, log)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Say which suites ran and which were left out, so that green is not mistaken for everything."""
    reports = [*terminalreporter.getreports("passed"), *terminalreporter.getreports("failed")]
    ran = Counter(report.nodeid.split("/")[1] for report in reports if report.when == "call")
    terminalreporter.write_line(
        "ran: " + (", ".join(f"{count} {suite}" for suite, count in ran.items()) or "nothing")
    )
    if COMFYUI is None:
        terminalreporter.write_line(f"SKIPPED host and browser suites: {NO_COMFYUI}")


@pytest.fixture(scope="session")
def comfyui() -> Path:
    """The ComfyUI checkout under test."""
    if COMFYUI is None:
        pytest.skip(NO_COMFYUI)
    return COMFYUI


@pytest.fixture(scope="session")
def goldens() -> Path:
    """The folder of stored reference results."""
    return ROOT / "tests" / "goldens"
