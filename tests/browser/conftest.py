"""ComfyUI's real frontend, used by a headless browser: the host under test, and the oldest one we support.

`frontend.mjs` does what a person does in one session and reports what was there; the tests judge the report.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.helpers.comfy.pack import PACK_NAME, ROOT, make_user_folder
from tests.helpers.comfy.server import ComfyServer, python_of
from tests.helpers.comfy.workflows import FILES, RUNNABLE, SHORT

HERE = Path(__file__).resolve().parent
TOOLS = ROOT / ".venv" / "browser"  # playwright-core (it brings no browser) and an old frontend, fetched once
SCREENSHOTS = ROOT / "out" / "screenshots"
CHROMIUM = ("chromium", "chromium-browser", "google-chrome", "chrome")
NODES_2 = "nodes 2.0"  # the frontend that draws nodes as web pages do
OLDEST = "0.8.0"
OLDEST_FOLDER = Path(os.environ.get("COMFYUI_PATH_OLD") or Path.home() / "comfy" / f"ComfyUI-{OLDEST}")
ACTION_MILLISECONDS = 180_000
SESSION_SECONDS = 900


@dataclass(frozen=True)
class Browser:
    """What a headless session needs."""

    chromium: str
    modules: Path

    def use(self, server: ComfyServer, screenshots: Path, settings: dict[str, bool]) -> dict[str, Any]:
        """The report of a session on this server, with these of the frontend's settings."""
        screenshots.mkdir(parents=True, exist_ok=True)
        report = screenshots / "report.json"
        job = {
            "url": server.url,
            "modules": str(self.modules),
            "chromium": self.chromium,
            "pack": PACK_NAME,
            "templates": [path.stem for path in FILES],
            "screenshots": str(screenshots),
            "report": str(report),
            "timeout": ACTION_MILLISECONDS,
            "settings": settings,
            "run": {"templates": [path.stem for path in RUNNABLE], "changes": SHORT},
        }
        (screenshots / "job.json").write_text(json.dumps(job), encoding="utf-8")
        command = ["node", str(HERE / "frontend.mjs"), str(screenshots / "job.json")]
        done = subprocess.run(command, capture_output=True, text=True, timeout=SESSION_SECONDS, check=False)
        assert done.returncode == 0, done.stderr[-3000:] + server.log_text()[-2000:]
        return json.loads(report.read_text(encoding="utf-8"))


@pytest.fixture(scope="session")
def browser() -> Browser:
    """Chromium and playwright-core, or a skip that says what is missing."""
    chromium = next((path for name in CHROMIUM if (path := shutil.which(name))), None)
    missing = [name for name in ("node", "npm") if shutil.which(name) is None]
    missing += [] if chromium else ["chromium"]
    if missing or chromium is None:
        pytest.skip(f"the browser suite needs {' and '.join(missing)} on PATH")
    return Browser(chromium, install_playwright())


def install_playwright() -> Path:
    """The folder whose node_modules has playwright-core, as `package-lock.json` pins it."""
    folder = TOOLS / "playwright"
    for name in ("package.json", "package-lock.json"):
        folder.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(HERE / name, folder / name)
    version = json.loads((HERE / "package.json").read_text(encoding="utf-8"))["dependencies"][
        "playwright-core"
    ]
    installed = folder / "node_modules" / "playwright-core" / "package.json"
    if installed.is_file() and json.loads(installed.read_text(encoding="utf-8"))["version"] == version:
        return folder
    command = ["npm", "ci", "--ignore-scripts", "--no-audit", "--no-fund"]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=300, check=False)
    if done.returncode:
        pytest.skip(f"the browser suite needs playwright-core, and npm failed: {done.stderr.strip()[-300:]}")
    return folder


@pytest.fixture(scope="session", params=["current", NODES_2, OLDEST])
def shown(
    request: pytest.FixtureRequest, comfyui: Path, browser: Browser, tmp_path_factory: pytest.TempPathFactory
) -> dict[str, Any]:
    """What the frontend of a ComfyUI showed; its files are under `user`."""
    folder, python, arguments = comfyui, python_of(comfyui), []
    settings = {"Comfy.VueNodes.Enabled": request.param == NODES_2}
    if request.param == OLDEST:
        folder = OLDEST_FOLDER
        if not (folder / "main.py").is_file():
            pytest.skip(f"no ComfyUI {OLDEST} found (set COMFYUI_PATH_OLD to a checkout)")
        arguments = ["--front-end-root", str(install_frontend(folder))]
    user = make_user_folder(tmp_path_factory.mktemp("browser"))
    shutil.copyfile(user / "input" / "portrait.png", user / "input" / "example.png")  # every ComfyUI has one
    with ComfyServer(folder, user, *arguments, python=python) as server:
        return browser.use(server, SCREENSHOTS / request.param, settings) | {"user": user}


def install_frontend(comfyui: Path) -> Path:
    """The web files of the frontend that an old ComfyUI asks for, which its newer Python does not have."""
    requirements = (comfyui / "requirements.txt").read_text(encoding="utf-8")
    match = re.search(r"^comfyui-frontend-package==(\S+)$", requirements, re.MULTILINE)
    assert match is not None, requirements
    folder = TOOLS / f"frontend-{match[1]}"
    static = folder / "comfyui_frontend_package" / "static"
    if not (static / "index.html").is_file():
        command = [
            sys.executable,
            "-m",
            "pip",
            "install",
            "-qq",
            "--no-deps",
            "--target",
            str(folder),
            match[0],
        ]
        done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
        if done.returncode:
            pytest.skip(f"no {match[0]}, and pip failed: {done.stderr.strip()[-300:]}")
    return static
