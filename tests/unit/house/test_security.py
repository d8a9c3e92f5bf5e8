"""No way for code from a file: what the linters of security say, and what no file of ours may say."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[3]
PARTS = ("memo_avatar", "nodes", "standalone", "teacache_core", "benchmarks", "demo", "tests")
FORBIDDEN = {
    "a pickle": re.compile(r"weights_only=Fals[e]|import pickl[e]|\bpickle\.load"),
    "a shell": re.compile(r"shell=Tru[e]|os\.syste[m]\(|os\.pope[n]\("),
}


def test_bandit_is_clean() -> None:
    pytest.importorskip("bandit")
    command = [sys.executable, "-m", "bandit", "-q", "-c", "pyproject.toml", "-r", *PARTS[:-1]]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stdout[-3000:]


@pytest.mark.parametrize("what", FORBIDDEN)
def test_nothing_opens(what: str) -> None:
    found = [
        path.relative_to(ROOT).as_posix()
        for part in PARTS
        for path in (ROOT / part).rglob("*.py")
        if FORBIDDEN[what].search(path.read_text(encoding="utf-8"))
    ]
    assert found == []


def test_one_module_moves_and_removes_files() -> None:
    moves = re.compile(r"\bos\.(replace|rename|remove|unlink)\(|shutil\.(move|rmtree)\(|\.(unlink|rename)\(")
    product = [path for part in PARTS[:4] for path in (ROOT / part).rglob("*.py")]
    found = {p.relative_to(ROOT).as_posix() for p in product if moves.search(p.read_text(encoding="utf-8"))}
    assert found == {"memo_avatar/files/disk.py"}
