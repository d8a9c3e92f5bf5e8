"""A real ComfyUI server for the tests: boot it on the CPU, queue prompts, read what came of them."""

from __future__ import annotations

import json
import socket
import subprocess
import time
import urllib.error
import urllib.parse
import urllib.request
from pathlib import Path
from typing import Any

BOOT_SECONDS = 240.0
PROMPT_SECONDS = 240.0

Prompt = dict[str, dict[str, Any]]
"""Node id -> {"class_type": ..., "inputs": {name: value or [node id, output index]}}."""


class PromptRefusedError(Exception):
    """The server did not take a prompt; the text is its answer."""


class PromptFailedError(Exception):
    """A prompt ended in an error or an interrupt; `status` is the last message's name."""

    def __init__(self, status: str, details: dict[str, Any]) -> None:
        super().__init__(f"{status}: {details.get('exception_message', details)}")
        self.status, self.details = status, details


def python_of(comfyui: Path) -> Path:
    """The Python that this ComfyUI is run with."""
    for name in (".venv", "venv"):
        for relative in ("bin/python", "Scripts/python.exe"):
            if (comfyui / name / relative).exists():
                return comfyui / name / relative
    raise FileNotFoundError(
        f"expected a .venv or venv in ComfyUI but got none ({comfyui}). Install ComfyUI into one."
    )


def free_port() -> int:
    """A port that nobody listens on just now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


class ComfyServer:
    """`with ComfyServer(comfyui, user_folder, "--an-argument", python=...) as server`."""

    def __init__(self, comfyui: Path, user: Path, *arguments: str, python: Path | None = None) -> None:
        self.comfyui, self.user, self.port = comfyui, user, free_port()
        self.arguments, self.python = arguments, python or python_of(comfyui)
        self.log = user / "server.log"
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> ComfyServer:
        command = [str(self.python), "main.py", "--cpu", "--listen", "127.0.0.1", *self.arguments]
        command += ["--port", str(self.port), "--disable-auto-launch", "--disable-api-nodes"]
        command += ["--database-url", "sqlite:///:memory:", "--base-directory", str(self.user)]
        with self.log.open("wb") as log:
            self._process = subprocess.Popen(command, cwd=self.comfyui, stdout=log, stderr=subprocess.STDOUT)
        deadline = time.monotonic() + BOOT_SECONDS
        while time.monotonic() < deadline and self._process.poll() is None:
            try:
                self.get("/system_stats")
                return self
            except OSError:
                time.sleep(0.3)
        self.__exit__()
        raise TimeoutError(f"expected ComfyUI to answer but it did not:\n{self.log_text()[-3000:]}")

    def __exit__(self, *_error: object) -> None:
        if self._process is not None:
            self._process.terminate()
            try:
                self._process.wait(20)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def pid(self) -> int:
        assert self._process is not None
        return self._process.pid

    def resident_bytes(self) -> int:
        """The process's memory, on Linux."""
        status = Path(f"/proc/{self.pid}/status").read_text(encoding="utf-8")
        return 1024 * int(status.split("VmRSS:")[1].split()[0])

    def log_text(self) -> str:
        return self.log.read_text(encoding="utf-8", errors="replace")

    # Requests

    def get(self, path: str) -> Any:
        with self._open(path) as answer:
            return json.loads(answer.read())

    def post(self, path: str, values: dict[str, Any]) -> Any:
        request = urllib.request.Request(
            self.url + path, json.dumps(values).encode(), {"Content-Type": "application/json"}
        )
        with urllib.request.urlopen(request, timeout=60) as answer:
            body = answer.read()
        return json.loads(body) if body else None

    def queue(self, prompt: Prompt, **extra_data: Any) -> str:
        """The id of the queued prompt."""
        values = {"prompt": prompt, "client_id": "tests", "extra_data": extra_data}
        try:
            return self.post("/prompt", values)["prompt_id"]
        except urllib.error.HTTPError as error:
            raise PromptRefusedError(error.read().decode()) from error

    def wait(self, prompt_id: str) -> dict[str, Any]:
        """The prompt's history entry, once it has ended well."""
        deadline = time.monotonic() + PROMPT_SECONDS
        while time.monotonic() < deadline:
            entry = self.get(f"/history/{prompt_id}").get(prompt_id)
            if entry is not None and entry.get("status", {}).get("status_str"):
                break
            time.sleep(0.1)
        else:
            raise TimeoutError(f"expected the prompt to end but it did not:\n{self.log_text()[-3000:]}")
        last, details = entry["status"]["messages"][-1]
        if last != "execution_success":
            raise PromptFailedError(last, details)
        return entry

    def run(self, prompt: Prompt) -> dict[str, Any]:
        """Queue, wait, and give the outputs by node id."""
        return self.wait(self.queue(prompt))["outputs"]

    def interrupt(self) -> None:
        self.post("/interrupt", {})

    def file(self, saved: dict[str, str]) -> Path:
        """Where an output file of a history entry lies."""
        root = {"output": "output", "temp": "temp", "input": "input"}[saved["type"]]
        return self.user / root / saved["subfolder"] / saved["filename"]

    def _open(self, path: str) -> Any:
        return urllib.request.urlopen(self.url + path, timeout=60)


def cached_nodes(entry: dict[str, Any]) -> set[str]:
    """Ids of the nodes that a prompt did not have to run."""
    for name, details in entry["status"]["messages"]:
        if name == "execution_cached":
            return set(details["nodes"])
    return set()
