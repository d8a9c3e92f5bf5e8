"""Who may import whom. The two packages stay free of hosts, of frameworks and of each other."""

import ast
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[3]
# ComfyUI loads these by path, without their parent on sys.path: relative imports only.
PACK = ("teacache_core", "memo_avatar", "nodes")
HOST = {
    "comfy",
    "comfy_api",
    "comfy_execution",
    "comfy_extras",
    "comfyui_version",
    "folder_paths",
    "latent_preview",
    "server",
}
FRAMEWORKS = {"diffusers", "transformers"}
LAZY = {"numpy", "PIL", "av", "insightface", "onnxruntime"}  # imported inside the functions that need them
LIBRARIES = {"torch", "safetensors"} | LAZY
PACKAGES = {"teacache_core", "memo_avatar"}
OURS = {"teacache_core", "memo_avatar", "nodes", "standalone", "benchmarks", "demo", "tests", "teacache_memo"}

# Folder or file -> what it may import besides itself and the standard library.
ALLOWED: dict[str, set[str]] = {
    "__init__.py": {"comfy_api", "nodes"},
    "teacache_core": {"torch", "PIL"},
    "memo_avatar": LIBRARIES,
    "nodes": LIBRARIES | HOST | PACKAGES,
    "standalone": LIBRARIES | FRAMEWORKS | PACKAGES | {"tqdm"},
    "teacache_memo.py": LIBRARIES | FRAMEWORKS | PACKAGES | {"standalone", "tqdm"},
}


def sources(part: str) -> list[Path]:
    path = ROOT / part
    return [path] if path.is_file() else sorted(path.rglob("*.py"))


def resolve_relative(path: Path, node: ast.ImportFrom) -> Iterator[str]:
    """The top-level names under the repository root that a relative import reaches."""
    package = path.relative_to(ROOT).parent.parts
    base = package[: len(package) - (node.level - 1)]
    dotted = [*base, *(node.module or "").split(".")] if node.module else list(base)
    yield from [dotted[0]] if dotted else [alias.name for alias in node.names]


def imports(path: Path) -> Iterator[tuple[int, str, bool]]:
    """(line, top-level module, whether the import is relative) of every import, lazy ones included."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name.split(".")[0], False) for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.level:
            yield from ((node.lineno, name, True) for name in resolve_relative(path, node))
        elif isinstance(node, ast.ImportFrom):
            yield node.lineno, (node.module or "").split(".")[0], False


@pytest.mark.parametrize("part", ALLOWED)
def test_imports_only_what_the_layering_allows(part: str) -> None:
    allowed = ALLOWED[part] | {part} | set(sys.stdlib_module_names)
    wrong = [
        f"{path.relative_to(ROOT)}:{line} imports {name}"
        for path in sources(part)
        for line, name, _ in imports(path)
        if name not in allowed
    ]
    assert not wrong, f"{part} may import only {sorted(ALLOWED[part])}:\n" + "\n".join(wrong)


def imports_at_load(path: Path) -> Iterator[str]:
    """Top-level modules that importing this file loads: not those inside functions or `if TYPE_CHECKING`."""
    for node in ast.parse(path.read_text(encoding="utf-8")).body:
        if isinstance(node, ast.Import):
            yield from (alias.name.split(".")[0] for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and not node.level:
            yield (node.module or "").split(".")[0]


@pytest.mark.parametrize("part", sorted(PACKAGES))
def test_the_packages_load_with_torch_and_safetensors_alone(part: str) -> None:
    eager = [
        f"{path.name} imports {name}"
        for path in sources(part)
        for name in imports_at_load(path)
        if name in LAZY
    ]
    assert not eager, "move these into the functions that need them:\n" + "\n".join(eager)


@pytest.mark.parametrize("part", PACK)
def test_the_pack_imports_itself_relatively(part: str) -> None:
    absolute = [
        f"{path.relative_to(ROOT)}:{line} imports {name} absolutely"
        for path in sources(part)
        for line, name, relative in imports(path)
        if name in OURS and not relative
    ]
    assert not absolute, "ComfyUI loads the pack by path, so these fail there:\n" + "\n".join(absolute)


def test_the_check_sees_lazy_absolute_and_relative_imports(tmp_path: Path) -> None:
    source = tmp_path / "module.py"
    source.write_text("def f():\n    import diffusers.models\nfrom torch import nn\n")
    assert {name for _, name, _ in imports(source)} == {"diffusers", "torch"}
    sibling = ast.ImportFrom(module="memo_avatar.model.config", names=[], level=2)
    assert list(resolve_relative(ROOT / "teacache_core" / "imaginary.py", sibling)) == ["memo_avatar"]
    within = ast.ImportFrom(module="config", names=[], level=1)
    assert list(resolve_relative(ROOT / "teacache_core" / "imaginary.py", within)) == ["teacache_core"]
