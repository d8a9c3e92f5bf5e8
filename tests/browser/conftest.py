"""ComfyUI's real frontend, used by a headless browser: the host under test, and the oldest one we support.

`frontend.mjs` opens and runs the templates, `newcomer.mjs` does what somebody does in the first hour; each
reports what was there, and the tests judge the reports.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import wave
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from filelock import FileLock

from tests.helpers.comfy.pack import PACK_NAME, ROOT, make_user_folder
from tests.helpers.comfy.server import ComfyServer, python_of
from tests.helpers.comfy.workflows import APPS, BLUEPRINTS, FILES, OF_0_1, RUNNABLE, SHORT, read

HERE = Path(__file__).resolve().parent
TOOLS = ROOT / ".venv" / "browser"  # playwright-core (it brings no browser) and an old frontend, fetched once
SCREENSHOTS = ROOT / "out" / "screenshots"
CHROMIUM = ("chromium", "chromium-browser", "google-chrome", "chrome")
NODES_2 = "nodes 2.0"  # the frontend that draws nodes as web pages do
OLDEST = "0.8.0"
OLDEST_FOLDER = Path(os.environ.get("COMFYUI_PATH_OLD") or Path.home() / "comfy" / f"ComfyUI-{OLDEST}")
ACTION_MILLISECONDS = 180_000
SESSION_SECONDS = 1500


@dataclass(frozen=True)
class Browser:
    """What a headless session needs."""

    chromium: str
    modules: Path


@dataclass(frozen=True)
class Page:
    """A frontend of a running ComfyUI, with these of its settings; the server's files are under ``user``."""

    browser: Browser
    server: ComfyServer
    user: Path
    screenshots: Path
    settings: dict[str, bool]

    def use(self, script: str, **changes: Any) -> dict[str, Any]:
        """The report of a session; ``changes`` are of its job."""
        self.screenshots.mkdir(parents=True, exist_ok=True)
        report, task = (self.screenshots / f"{Path(script).stem} {name}.json" for name in ("report", "job"))
        job = {
            "url": self.server.url,
            "modules": str(self.browser.modules),
            "chromium": self.browser.chromium,
            "pack": PACK_NAME,
            "templates": [path.stem for path in FILES],
            "apps": [path.stem for path in APPS],
            "blueprint": BLUEPRINTS[0].stem,
            "stored": {path.stem: read(path) for path in OF_0_1},
            "screenshots": str(self.screenshots),
            "report": str(report),
            "timeout": ACTION_MILLISECONDS,
            "settings": self.settings,
            "run": {"templates": [path.stem for path in RUNNABLE], "changes": SHORT},
            **changes,
        }
        task.write_text(json.dumps(job), encoding="utf-8")
        command = ["node", str(HERE / script), str(task)]
        done = subprocess.run(command, capture_output=True, text=True, timeout=SESSION_SECONDS, check=False)
        assert done.returncode == 0, done.stderr[-3000:] + self.server.log_text()[-2000:]
        return json.loads(report.read_text(encoding="utf-8"))


@pytest.fixture(scope="session")
def browser() -> Browser:
    return find_browser()


def find_browser() -> Browser:
    """Chromium and playwright-core, or a skip that says what is missing."""
    chromium = next((path for name in CHROMIUM if (path := shutil.which(name))), None)
    missing = [name for name in ("node", "npm") if shutil.which(name) is None]
    missing += [] if chromium else ["chromium"]
    if missing or chromium is None:
        pytest.skip(f"the browser suite needs {' and '.join(missing)} on PATH")
    TOOLS.mkdir(parents=True, exist_ok=True)
    with FileLock(TOOLS / "lock"):  # each frontend has a process of its own
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
def page(
    request: pytest.FixtureRequest, comfyui: Path, browser: Browser, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Page]:
    """Each frontend in turn."""
    folder, python, arguments = comfyui, python_of(comfyui), []
    if request.param == OLDEST:
        folder = OLDEST_FOLDER
        if not (folder / "main.py").is_file():
            pytest.skip(f"no ComfyUI {OLDEST} found (set COMFYUI_PATH_OLD to a checkout)")
        arguments = ["--front-end-root", str(install_frontend(folder))]
    user = make_user_folder(tmp_path_factory.mktemp("browser"))
    shutil.copyfile(user / "input" / "portrait.png", user / "input" / "example.png")  # every ComfyUI has one
    write_silence(user / "input" / "silence.wav")
    (user / "models" / "memo" / "damaged.safetensors").write_bytes(b"")
    settings = {"Comfy.VueNodes.Enabled": request.param == NODES_2}
    with ComfyServer(folder, user, *arguments, python=python) as server:
        yield Page(browser, server, user, SCREENSHOTS / request.param, settings)


@pytest.fixture(scope="session")
def shown(page: Page) -> dict[str, Any]:
    """What the frontend showed of the templates; its files are under `user`."""
    return page.use("frontend.mjs") | {"user": page.user}


@pytest.fixture(scope="session")
def newcomer(page: Page) -> dict[str, Any]:
    """What happened to somebody new, by the names of the steps."""
    return page.use("newcomer.mjs")["newcomer"]


def write_silence(path: Path, seconds: int = 1, sample_rate: int = 16_000) -> None:
    """A sound in which nobody speaks."""
    with wave.open(str(path), "wb") as out:
        out.setnchannels(1)
        out.setsampwidth(2)
        out.setframerate(sample_rate)
        out.writeframes(bytes(2 * seconds * sample_rate))


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
