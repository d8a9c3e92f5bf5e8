"""Unit tests and the demo with the lowest or the highest versions that pyproject.toml allows.

    python .ci/versions.py oldest|newest|comfyui PYTHON...

`oldest` pins every lower bound (those of ComfyUI 0.8.0, too); `newest` takes the newest that pip finds;
`comfyui` takes that, but PyAV and safetensors as ComfyUI 0.33.0 has them at least. Each PYTHON gets an
environment in out/versions/, which a second run updates. Prints a row of the table in docs/platforms.md for
each; exits 1 where something failed.
"""

from __future__ import annotations

import argparse
import json
import math
import re
import subprocess
import sys
import wave
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.append(str(ROOT))

from standalone.setup_command import TORCH, python_in  # noqa: E402

SHOWN = ("torch", "diffusers", "safetensors", "numpy", "av", "pillow", "transformers", "insightface")
COMFYUI = ("av==16.0.0", "safetensors==0.4.2")  # of the requirements.txt of 0.33.0
VERSIONS = """
import json, sys
from importlib.metadata import version
print(json.dumps({name: version(name) for name in sys.argv[1:]}))
"""
READ_BACK = "import av, sys; print(sum(1 for _ in av.open(sys.argv[1]).decode(video=0)))"


def lower_bounds() -> list[str]:
    """Every `name>=version` of the extras that the command and its tests install, as `name==version`."""
    text = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    found = [
        re.search(rf"^{name} = \[(.*?)\]$", text, re.MULTILINE | re.DOTALL)
        for name in ("standalone", "face", "dev")
    ]
    bounds = [pair for extra in found if extra for pair in re.findall(r'"([\w-]+)>=([\d.]+)[";]', extra[1])]
    return [f"{name}=={version}" for name, version in bounds]


def constraints(versions: str) -> list[str]:
    """What pip is held to."""
    return {"oldest": lower_bounds(), "newest": [], "comfyui": list(COMFYUI)}[versions]


def run(*command: str | Path) -> subprocess.CompletedProcess[str]:
    """Its output is kept, its status is the caller's to judge."""
    arguments = [str(part) for part in command]
    return subprocess.run(arguments, cwd=ROOT, capture_output=True, text=True, check=False)


def make_environment(versions: str, python: str, folder: Path) -> Path:
    """The Python of an environment of these versions."""
    folder.mkdir(parents=True, exist_ok=True)
    held = folder / "constraints.txt"
    held.write_text("\n".join(constraints(versions)) + "\n", encoding="utf-8")
    torch = TORCH if versions == "oldest" else "torch"
    options = ["--tests", "--folder", folder / "venv", "--constraints", held, "--torch", torch]
    done = run(python, "teacache_memo.py", "setup", *options)
    if done.returncode:
        raise SystemExit(f"{versions} with {python}: no environment.\n{done.stdout}{done.stderr}")
    environment = python_in(folder / "venv")
    done = run(environment, "-m", "pip", "install", "--constraint", held, "-e", ".[face]")
    if done.returncode:
        raise SystemExit(f"{versions} with {python}: no insightface.\n{done.stdout}{done.stderr}")
    return environment


def installed(python: Path) -> str:
    """Python and the packages that count, with their versions."""
    found = json.loads(run(python, "-c", VERSIONS, *SHOWN).stdout)
    release = run(python, "-c", "import platform; print(platform.python_version())").stdout.strip()
    return f"| {release} | " + ", ".join(f"{name} {version}" for name, version in found.items())


def unit_tests(python: Path, folder: Path) -> tuple[bool, str]:
    """Whether they passed, and pytest's last line."""
    options = ["-q", "-p", "no:cacheprovider", "-n", "auto"]
    done = run(python, "-m", "pytest", "tests/unit", *options)
    (folder / "tests.txt").write_text(done.stdout + done.stderr, encoding="utf-8")
    lines = done.stdout.strip().splitlines() or done.stderr.strip().splitlines() or ["nothing was printed"]
    return done.returncode == 0, re.sub(r" in [\d.]+s.*", "", lines[-1])


def demo(python: Path, folder: Path) -> tuple[bool, str]:
    """Whether the demo renders a video of all its frames, read back by the same PyAV."""
    video = folder / "demo.mp4"
    video.unlink(missing_ok=True)
    inputs = ["--image", "demo/portrait.png", "--audio", "demo/speech.wav", "--output", video]
    done = run(python, "teacache_memo.py", *inputs, "--steps", "4")
    if done.returncode:
        return False, (done.stderr.strip().splitlines() or ["nothing was said"])[-1]
    frames = run(python, "-c", READ_BACK, video).stdout.strip()
    with wave.open(str(ROOT / "demo" / "speech.wav")) as speech:
        expected = math.ceil(speech.getnframes() * 30 / speech.getframerate())
    return frames == str(expected), f"{frames or 'no'} of {expected} frames"


def main() -> int:
    """One row for each Python."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("versions", choices=("oldest", "newest", "comfyui"))
    parser.add_argument("pythons", nargs="+", metavar="PYTHON")
    options = parser.parse_args()
    good = True
    for python in options.pythons:
        release = run(python, "-c", "import sys; print('%d.%d' % sys.version_info[:2])").stdout.strip()
        folder = ROOT / "out" / "versions" / f"{options.versions}-{release}"
        environment = make_environment(options.versions, python, folder)
        tests, demo_found = unit_tests(environment, folder), demo(environment, folder)
        good = good and tests[0] and demo_found[0]
        print(f"| {options.versions} {installed(environment)} | {tests[1]} | {demo_found[1]} |", flush=True)
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
