"""teacache_core as another project would meet it: its README."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[3]
PACKAGE = ROOT / "teacache_core"


def example() -> str:
    """The README's first block of code."""
    found = re.search(r"```python\n(.*?)```", (PACKAGE / "README.md").read_text(encoding="utf-8"), re.DOTALL)
    assert found is not None
    return found[1]


def test_the_readmes_example_runs_and_does_what_it_says(tmp_path: Path) -> None:
    script = tmp_path / "example.py"
    script.write_text(example(), encoding="utf-8")
    command = [
        sys.executable,
        "-c",
        f"import sys; sys.path.append({str(ROOT)!r}); exec(open('example.py').read())",
    ]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    assert re.findall(r"(\d+) of 20 computed", done.stdout) == ["20", "10", "10"]
