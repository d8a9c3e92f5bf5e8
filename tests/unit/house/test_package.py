"""What `pip install` of the repository gives: the step cache as a library, its licence, no requirement."""

from __future__ import annotations

import subprocess
import sys
import zipfile
from email import message_from_bytes
from email.message import Message
from pathlib import Path

import pytest

from tests.helpers.checkout import ROOT, copy_tracked

pytestmark = pytest.mark.slow  # pip fetches setuptools to build with


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> zipfile.ZipFile:
    """The wheel of a fresh clone."""
    source, out = copy_tracked(tmp_path_factory.mktemp("clone")), tmp_path_factory.mktemp("wheel")
    command = [sys.executable, "-m", "pip", "wheel", "-qq", "--no-deps", "-w", str(out), str(source)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=500, check=False)
    if "setuptools" in done.stderr and "No matching distribution" in done.stderr:
        pytest.skip("pip finds no setuptools to build with, here")
    assert done.returncode == 0, done.stderr[-3000:]
    (path,) = out.glob("*.whl")
    return zipfile.ZipFile(path)


@pytest.fixture(scope="module")
def metadata(wheel: zipfile.ZipFile) -> Message:
    (name,) = [name for name in wheel.namelist() if name.endswith(".dist-info/METADATA")]
    return message_from_bytes(wheel.read(name))


def test_it_holds_the_step_cache_alone(wheel: zipfile.ZipFile) -> None:
    held = {name for name in wheel.namelist() if ".dist-info/" not in name}
    sources = {path.relative_to(ROOT).as_posix() for path in (ROOT / "teacache_core").rglob("*.py")}
    assert held >= sources | {"teacache_core/py.typed"}
    assert {name.split("/")[0] for name in held} == {"teacache_core"}


def test_nothing_is_required(metadata: Message) -> None:
    """ComfyUI ships what the nodes need; what others need is an extra."""
    assert not [line for line in metadata.get_all("Requires-Dist", []) if "extra ==" not in line]
    assert {"core", "standalone"} <= set(metadata.get_all("Provides-Extra", []))


def test_the_licence_is_named_and_comes_along(wheel: zipfile.ZipFile, metadata: Message) -> None:
    assert metadata["License-Expression"] == "Apache-2.0"
    assert any(name.endswith("licenses/LICENSE") for name in wheel.namelist())


def test_another_project_can_import_it(wheel: zipfile.ZipFile, tmp_path: Path) -> None:
    wheel.extractall(tmp_path)
    code = "import teacache_core; print(teacache_core.__file__); teacache_core.StepCacheConfig()"
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert Path(done.stdout.strip()).is_relative_to(tmp_path)


def test_the_command_says_from_which_version_each_package_will_do(metadata: Message) -> None:
    """`make test-oldest` runs with these; without a bound it would run with the newest."""
    lines = [line for line in metadata.get_all("Requires-Dist", []) if 'extra == "standalone"' in line]
    assert lines and not [line for line in lines if ">=" not in line]
