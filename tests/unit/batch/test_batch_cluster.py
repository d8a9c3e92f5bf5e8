"""A batch on a real Ray cluster of three nodes: CPUs of this machine stand in for cards; a node is lost."""

import importlib.util
import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import pytest

from standalone.command import main

ROOT = Path(__file__).resolve().parents[3]
DEMO = ROOT / "demo"
FAST = ["--steps", "1", "--guidance-scale", "1", "--device", "cpu"]
SECONDS = [4.0] + [0.3] * 10  # eight clips, and one

pytestmark = pytest.mark.skipif(importlib.util.find_spec("ray") is None, reason="Ray is not installed")


@pytest.fixture
def cluster(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """A head without CPUs and three nodes of one, listening on the loopback interface alone."""
    monkeypatch.setenv("RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER", "0")
    monkeypatch.setenv("RAY_USAGE_STATS_ENABLED", "0")
    monkeypatch.setenv("RAY_health_check_period_ms", "500")
    monkeypatch.setenv("RAY_health_check_failure_threshold", "3")
    monkeypatch.setenv("RAY_worker_niceness", "0")  # at Ray's 15 a busy machine never lets one begin
    from ray.cluster_utils import Cluster

    cluster = Cluster(
        initialize_head=True,
        head_node_args={"num_cpus": 0, "object_store_memory": 80 * 2**20, "include_dashboard": False},
    )
    yield cluster
    cluster.shutdown()


def add_node(cluster: Any) -> Any:
    return cluster.add_node(num_cpus=1, object_store_memory=80 * 2**20)


def write_jobs(folder: Path) -> Path:
    """Eleven rows of one voice and two portraits, and one whose sound is damaged."""
    (folder / "noise.wav").write_bytes(b"RIFF\x24\x00\x00\x00WAVEfmt " + bytes(range(256)) * 40)
    lines = [
        {
            "id": f"row{number:02}",
            "image": str(DEMO / ("portrait2.png" if number % 2 else "portrait.png")),
            "audio": str(DEMO / "speech.wav"),
            "max-seconds": seconds,
            "seed": number,
        }
        for number, seconds in enumerate(SECONDS)
    ]
    lines.append({"id": "poisoned", "image": str(DEMO / "portrait.png"), "audio": "noise.wav"})
    path = folder / "jobs.jsonl"
    path.write_text("\n".join(map(json.dumps, lines)), encoding="utf-8")
    return path


def read_results(folder: Path) -> dict[str, dict[str, Any]]:
    lines = (folder / "results.jsonl").read_text(encoding="utf-8").splitlines()
    return {line["id"]: line for line in map(json.loads, lines)}


def streams(path: Path) -> dict[str, list[tuple[int, Fraction, bytes]]]:
    """Every packet of every stream of a file."""
    found: dict[str, list[tuple[int, Fraction, bytes]]] = {}
    with av.open(str(path)) as container:
        for packet in container.demux():
            if packet.dts is not None:
                one = (packet.pts or 0, packet.time_base or Fraction(0), bytes(packet))
                found.setdefault(packet.stream.type, []).append(one)
    return found


def node_of(folder: Path, nodes: list[Any]) -> Any:
    """The node on which an unfinished video is made: workers are children of their node's raylet."""
    parents = {
        parent_of(process) for process in Path("/proc").glob("[0-9]*") if holds(process, folder / "lock")
    }
    (node,) = [n for n in nodes if n.all_processes["raylet"][0].process.pid in parents]
    return node


def holds(process: Path, file: Path) -> bool:
    try:
        return any(os.readlink(link) == str(file) for link in (process / "fd").iterdir())
    except OSError:
        return False


def parent_of(process: Path) -> int:
    return int((process / "stat").read_text().rpartition(")")[2].split()[1])


def wait_for(condition: Any, seconds: float = 120) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "nothing came of it in time"
        time.sleep(0.1)


@pytest.mark.slow  # five processes load torch and a model; on a busy machine that takes minutes
def test_a_lost_node_loses_no_video(cluster: Any, tmp_path: Path) -> None:
    jobs, spread, alone = write_jobs(tmp_path), tmp_path / "spread", tmp_path / "alone"
    nodes = [add_node(cluster) for _ in range(3)]
    line = [
        sys.executable,
        str(ROOT / "teacache_memo.py"),
        "batch",
        str(jobs),
        "--output-folder",
        str(spread),
    ]
    batch = subprocess.Popen([*line, *FAST, "--ray", cluster.address], stderr=subprocess.PIPE, text=True)
    try:
        wait_for(lambda: list(spread.glob(".unfinished-*/*/clip_000001.mp4")))
        (clip,) = spread.glob(".unfinished-*/*/clip_000001.mp4")
        cluster.remove_node(node_of(clip.parent, nodes), allow_graceful=False)
        add_node(cluster)
        _, err = batch.communicate(timeout=200)
    finally:
        batch.kill()
    assert batch.returncode == 1, err
    results = read_results(spread)
    poisoned = results.pop("poisoned")
    assert poisoned["state"] == "failed" and poisoned["message"].startswith("expected ")
    assert json.loads((spread / "failed.jsonl").read_text())["id"] == "poisoned"
    assert {line["state"] for line in results.values()} == {"done"} and len(results) == 11
    (continued,) = [line for line in results.values() if line["continued_from"]]
    (lost,) = continued["earlier"]
    assert continued["attempt"] == 2 and lost["machine"] != continued["machine"]
    assert 32 <= continued["continued_from"] < continued["frames"] == 120
    assert (
        continued["evaluations"] == 8 - continued["continued_from"] // 16
    )  # a step for every clip that was left
    assert lost["message"].startswith("expected the worker to finish")

    assert main(["batch", str(jobs), "--output-folder", str(alone), *FAST]) == 1
    names = sorted(path.name for path in spread.glob("*.mp4"))
    assert names == [f"row{number:02}.mp4" for number in range(11)]
    for name in names:
        assert streams(spread / name) == streams(alone / name), name
