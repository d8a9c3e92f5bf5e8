"""`.github/`: what cannot run here is at least valid, safe by a linter's rules, and names what exists."""

from __future__ import annotations

import importlib.util
import re
import shutil
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest
import yaml
from PIL import Image

from tests.helpers.checkout import ROOT

GITHUB = ROOT / ".github"
WORKFLOWS = sorted((GITHUB / "workflows").glob("*.yml"))
FORMS = [path for path in sorted((GITHUB / "ISSUE_TEMPLATE").glob("*.yml")) if path.stem != "config"]
SCHEMAS = {
    "vendor.github-workflows": WORKFLOWS,
    "vendor.github-issue-forms": FORMS,
    "vendor.github-issue-config": [GITHUB / "ISSUE_TEMPLATE" / "config.yml"],
}
OURS = re.compile(r"(?<![\w./-])(?:\.ci|demo|tests|workflows)/[\w./-]+|\bteacache_memo\.py")


def run(*command: str | Path) -> subprocess.CompletedProcess[str]:
    arguments = [str(part) for part in command]
    return subprocess.run(arguments, cwd=ROOT, capture_output=True, text=True, check=False)


def scripts(path: Path) -> list[str]:
    """What a workflow's steps run, expressions replaced by a word."""
    jobs = yaml.safe_load(path.read_text(encoding="utf-8"))["jobs"]
    steps = [step for job in jobs.values() for step in job.get("steps", [])]
    return [re.sub(r"\$\{\{.*?\}\}", "x", step["run"]) for step in steps if "run" in step]


@pytest.mark.parametrize("schema", SCHEMAS)
def test_github_would_read_them(schema: str) -> None:
    done = run(sys.executable, "-m", "check_jsonschema", "--builtin-schema", schema, *SCHEMAS[schema])
    assert done.returncode == 0, done.stdout + done.stderr


def test_the_linter_of_workflows_finds_nothing() -> None:
    zizmor = Path(sys.executable).parent / ("zizmor.exe" if sys.platform == "win32" else "zizmor")
    done = run(zizmor, "--offline", "--config", GITHUB / "zizmor.yml", *WORKFLOWS)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.skipif(shutil.which("bash") is None, reason="no bash to read the scripts with")
@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.stem)
def test_the_scripts_are_bash(path: Path) -> None:
    for script in scripts(path):
        done = run("bash", "-n", "-c", script)
        assert done.returncode == 0, f"{script}\n{done.stderr}"


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.stem)
def test_the_files_they_name_exist(path: Path) -> None:
    named = {name for script in scripts(path) for name in OURS.findall(script)}
    assert not [name for name in named if not (ROOT / name).exists()]


def test_comfy_test_runs_workflows_that_exist() -> None:
    text = (ROOT / "comfy-test.toml").read_text(encoding="utf-8")
    named = re.findall(r'"!?([^"]+\.json)"', text)
    assert named and all((ROOT / "workflows" / name).is_file() for name in named)


@pytest.fixture(scope="module")
def release_notes() -> ModuleType:
    spec = importlib.util.spec_from_file_location("release_notes", ROOT / ".ci" / "release_notes.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


PYPROJECT = '[project]\nname = "teacache-memo"\nversion = "1.2.0"\n'
CHANGELOG = (
    "# Changelog\n\n## Unreleased\n\n- c\n\n## 1.2.0 - 2026-12-01\n\n- b\n\n## 1.1.0 - 2026-11-01\n\n- a\n"
)


def test_a_release_has_its_section_of_the_changelog(release_notes: ModuleType) -> None:
    assert release_notes.notes("v1.2.0", PYPROJECT, CHANGELOG) == "- b"


@pytest.mark.parametrize(
    ("tag", "changelog", "text"),
    [
        ("v1.3.0", CHANGELOG, "expected version 1.3.0 in pyproject.toml but got 1.2.0"),
        ("v1.2.0", CHANGELOG.replace("1.2.0", "1.2.01"), "expected a dated section 1.2.0"),
        ("v1.2.0", CHANGELOG.replace("2026-12-01", "Unreleased"), "expected a dated section 1.2.0"),
    ],
)
def test_a_release_that_is_not_ready_is_refused(
    release_notes: ModuleType, tag: str, changelog: str, text: str
) -> None:
    with pytest.raises(ValueError, match=re.escape(text)):
        release_notes.notes(tag, PYPROJECT, changelog)


def test_the_cards_pictures_are_as_the_registry_wants_them() -> None:
    pictures = {}
    text = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    for key in ("Icon", "Banner"):
        address = re.search(rf'^{key} = "https://.*/main/(.+)"$', text, re.MULTILINE)
        assert address is not None, f"[tool.comfy] names no {key}"
        pictures[key] = Image.open(ROOT / address[1]).size
    assert pictures["Icon"][0] == pictures["Icon"][1] <= 400
    assert pictures["Banner"][0] * 9 == pictures["Banner"][1] * 21
