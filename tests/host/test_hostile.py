"""Hostile checkpoints in a running ComfyUI: one line in the page, no memory, and the server stays up."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.fuzz.hostile import HEADERS
from tests.helpers.comfy.prompts import node
from tests.helpers.comfy.server import ComfyServer, Prompt, PromptRefusedError

pytestmark = [pytest.mark.host, pytest.mark.slow, pytest.mark.timeout(600)]

ROOM = 200 * 2**20
NAMES = ("overlapping tensors", "objects without end", "a name of 5 MB", "too many tensors", "a pickle")


@pytest.fixture
def planted(server: ComfyServer) -> Iterator[list[str]]:
    """What somebody downloaded into models/memo."""
    folder = server.user / "models" / "memo" / "downloads"
    folder.mkdir()
    for name in NAMES:
        (folder / f"{name}.safetensors").write_bytes(HEADERS[name])
    (folder / "device.safetensors").symlink_to("/dev/zero")
    os.mkfifo(folder / "pipe.safetensors")
    (folder / "sparse.safetensors").touch()
    os.truncate(folder / "sparse.safetensors", 20 * 10**9)
    yield [f"downloads/{path.name}" for path in sorted(folder.iterdir())]
    for path in folder.iterdir():
        path.unlink()
    folder.rmdir()


def loading(checkpoint: str) -> Prompt:
    load = node("MEMO_Load", checkpoint=checkpoint, weight_dtype="auto")
    return {"1": load, "2": node("MEMO_Save", model=["1", 0], memo=["1", 1], name="never", dtype="bf16")}


def test_the_server_refuses_them_and_goes_on(server: ComfyServer, planted: list[str]) -> None:
    assert len(planted) == len(NAMES) + 3
    before = server.resident_bytes()
    for checkpoint in planted:
        with pytest.raises(PromptRefusedError) as refused:
            server.run(loading(checkpoint))
        (error,) = json.loads(str(refused.value))["node_errors"]["1"]["errors"]
        message = error["details"]
        assert "xpected" in message and len(message) < 1200, message
        assert str(Path(server.user)) not in message
    assert server.resident_bytes() - before < ROOM
    assert not (server.user / "models" / "memo" / "never.safetensors").exists()
    assert server.get("/object_info/MEMO_Load")
