"""What every test shares: the import path, and which suites can run on this machine."""

from __future__ import annotations  # pytest 8.0 does not name all of its types

import os
import sys
from collections import Counter, defaultdict
from itertools import chain
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
def pytest_xdist_auto_num_workers() -> int:
    """One process more than there are cores: a suite in ComfyUI waits for pages half of its time."""
    return (os.cpu_count() or 1) + 1


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Of several processes each begins with what takes long: none is at it when the others are done."""
    if hasattr(config, "workerinput"):
        slow = {item.path for item in items if item.get_closest_marker("slow")}
        items.sort(key=lambda item: (_suite(item.nodeid) is None, item.path not in slow))


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    """Of several processes (pytest-xdist) one runs what shares fixtures: a suite in ComfyUI, or a file."""
    from xdist.scheduler import LoadScopeScheduling

    class OneProcessPerSuite(LoadScopeScheduling):
        def _split_scope(self, nodeid: str) -> str:
            return _suite(nodeid) or nodeid.split("::")[0]

    config.option.loadscopereorder = False
    return OneProcessPerSuite(config, log)


def _suite(nodeid: str) -> str | None:
    """The suite in ComfyUI that a test belongs to; the browser's has a session for each frontend."""
    file, _, case = nodeid.partition("::")
    if file.startswith("tests/browser/"):
        return f"browser, {case.partition('[')[2].rstrip(']').partition('-')[0]}"
    return "host" if file.startswith("tests/host/") else None


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Say which suites ran, for how long, and which did not: green is not mistaken for everything."""
    ran: Counter[str] = Counter()
    seconds: defaultdict[str, float] = defaultdict(float)
    for report in chain.from_iterable(terminalreporter.stats.values()):
        if isinstance(report, pytest.TestReport):
            suite = report.nodeid.split("/")[1]
            ran[suite] += report.when == "call" and not report.skipped
            seconds[suite] += report.duration
    told = [f"{count} {suite} ({seconds[suite]:.0f} s)" for suite, count in ran.items() if count]
    terminalreporter.write_line("ran: " + (", ".join(told) or "nothing"))
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
