"""Who may import whom: the walls of the house.

The two packages stay free of hosts, of frameworks and of each other; inside `memo_avatar` a wing imports only
those that the plan puts below it; and no file imports another in a circle, however well the circle is hidden.
"""

import ast
import sys
from dataclasses import dataclass
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[3]
PRODUCT = ("teacache_core", "memo_avatar", "nodes", "standalone", "benchmarks", "demo")
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
MEDIA = {"numpy", "PIL", "av"}  # ComfyUI ships and has loaded them
OPTIONAL = {"insightface", "onnxruntime"}  # imported inside the functions that need them
FRAMEWORKS = {"diffusers", "transformers", "imageio", "ray"}
LIBRARIES = {"torch", "safetensors"} | MEDIA | OPTIONAL
PACKAGES = {"teacache_core", "memo_avatar"}
OURS = {*PRODUCT, "tests", "teacache_memo"}
MOST_FILES = 16  # Python files in a folder, beside its sub-folders

# Folder or file -> the top-level modules that it may import besides itself and the standard library.
ALLOWED: dict[str, set[str]] = {
    "__init__.py": {"comfy_api", "nodes"},
    "teacache_core": {"torch", "PIL"},
    "memo_avatar": LIBRARIES,
    "nodes": LIBRARIES | HOST | PACKAGES,
    "standalone": LIBRARIES | FRAMEWORKS | PACKAGES | {"tqdm", "memo"},
    "teacache_memo.py": LIBRARIES | FRAMEWORKS | PACKAGES | {"standalone", "tqdm"},
}

GROUND = {"inputs", "timing", "torch_ops"}  # files of memo_avatar that every wing stands on

# Wing of memo_avatar -> the wings that it may import, and the libraries besides torch.
WINGS: dict[str, tuple[set[str], set[str]]] = {
    "files": (set(), {"safetensors"}),
    "model": (set(), set()),
    "portrait": ({"files"}, {"safetensors", "numpy", "PIL", "insightface"}),
    "voice": ({"files"}, {"safetensors", "numpy", "av", "onnxruntime"}),
    "clips": ({"model"}, set()),
    "checkpoint": ({"files", "model", "voice"}, {"safetensors"}),
    "video": ({"clips", "files", "voice"}, {"safetensors", "numpy", "av", "PIL"}),
}


@dataclass(frozen=True)
class Import:
    """One import statement's module, as a dotted name from the repository's root."""

    line: int
    name: str
    is_relative: bool
    at_load: bool  # not inside a function

    @property
    def top(self) -> str:
        return self.name.split(".")[0]


def sources(part: str) -> list[Path]:
    path = ROOT / part
    return [path] if path.is_file() else sorted(path.rglob("*.py"))


def imports(path: Path) -> list[Import]:
    """Every import of a file: lazy ones, and those for the type checker alone, included."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    inside = {
        id(node)
        for function in ast.walk(tree)
        if isinstance(function, ast.FunctionDef | ast.AsyncFunctionDef)
        for node in ast.walk(function)
    }
    found: list[Import] = []
    for node in ast.walk(tree):
        at_load = id(node) not in inside
        if isinstance(node, ast.Import):
            found += [Import(node.lineno, alias.name, False, at_load) for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            base = imported_from(path, node)
            names = [".".join(filter(None, (base, alias.name))) for alias in node.names]
            found += [Import(node.lineno, name, bool(node.level), at_load) for name in names]
    return found


def imported_from(path: Path, node: ast.ImportFrom) -> str:
    """The module that a `from` names, dotted from the root; empty for the root itself."""
    package = path.relative_to(ROOT).parent.parts if node.level else ()
    base = package[: len(package) - (node.level - 1)] if node.level else ()
    return ".".join([*base, *filter(None, (node.module or "").split("."))])


def file_of(name: str) -> Path | None:
    """The file of ours that holds what a dotted name says: a module, a package, or something in either."""
    parts = name.split(".")
    for length in range(len(parts), 0, -1):
        path = ROOT.joinpath(*parts[:length])
        for candidate in (path.with_suffix(".py"), path / "__init__.py"):
            if candidate.is_file():
                return candidate
    return None


def where(path: Path, found: Import) -> str:
    return f"{path.relative_to(ROOT)}:{found.line} imports {found.name}"


@pytest.mark.parametrize("part", ALLOWED)
def test_imports_only_what_the_layering_allows(part: str) -> None:
    allowed = ALLOWED[part] | {part} | set(sys.stdlib_module_names)
    wrong = [
        where(path, found) for path in sources(part) for found in imports(path) if found.top not in allowed
    ]
    assert not wrong, f"{part} may import only {sorted(ALLOWED[part])}:\n" + "\n".join(wrong)


@pytest.mark.parametrize("wing", WINGS)
def test_a_wing_imports_only_those_below_it(wing: str) -> None:
    below, libraries = WINGS[wing]
    ours = {wing, *below, *GROUND}
    outside = {"torch", *libraries, *sys.stdlib_module_names}
    wrong = [
        where(path, found)
        for path in sources(f"memo_avatar/{wing}")
        for found in imports(path)
        if (found.name.split(".")[1] not in ours if found.top == "memo_avatar" else found.top not in outside)
    ]
    assert not wrong, f"{wing} may import only {sorted(ours | libraries)}:\n" + "\n".join(wrong)


def test_every_folder_of_memo_avatar_is_a_wing_and_the_ground_stands_on_nothing() -> None:
    folders = {path.parent.name for path in (ROOT / "memo_avatar").glob("*/__init__.py")}
    assert folders == set(WINGS)
    assert {path.stem for path in (ROOT / "memo_avatar").glob("*.py")} == {"__init__", *GROUND}
    wrong = [
        where(path, found)
        for path in (ROOT / "memo_avatar").glob("*.py")
        for found in imports(path)
        if found.top == "memo_avatar" and found.name.split(".")[1] not in GROUND
    ]
    assert not wrong, "\n".join(wrong)


def test_no_file_imports_another_in_a_circle() -> None:
    graph: dict[Path, set[Path]] = {}
    for path in (path for part in PRODUCT for path in sources(part)):
        found = {file_of(one.name) for one in imports(path) if one.top in OURS}
        graph[path] = {target for target in found if target not in (None, path)}
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        circle = " -> ".join(str(path.relative_to(ROOT)) for path in error.args[1])
        pytest.fail(f"a circle, lazy and type-checking imports counted: {circle}")


def test_no_node_imports_another() -> None:
    nodes = {path for path in (ROOT / "nodes").glob("*.py") if path.name != "__init__.py"}
    wrong = [where(path, found) for path in nodes for found in imports(path) if file_of(found.name) in nodes]
    assert not wrong, "what two nodes share belongs into nodes/host:\n" + "\n".join(wrong)


@pytest.mark.parametrize("part", sorted(PACKAGES))
def test_optional_packages_are_imported_where_they_are_needed(part: str) -> None:
    eager = [
        where(path, found)
        for path in sources(part)
        for found in imports(path)
        if found.at_load and found.top in OPTIONAL
    ]
    assert not eager, "move these into the functions that need them:\n" + "\n".join(eager)


@pytest.mark.parametrize("part", PACK)
def test_the_pack_imports_itself_relatively(part: str) -> None:
    absolute = [
        where(path, found)
        for path in sources(part)
        for found in imports(path)
        if found.top in OURS and not found.is_relative
    ]
    assert not absolute, "ComfyUI loads the pack by path, so these fail there:\n" + "\n".join(absolute)


def test_no_folder_holds_more_files_than_one_can_see_at_once() -> None:
    folders: dict[Path, int] = {}
    for path in (path for part in PRODUCT for path in sources(part)):
        folders[path.parent] = folders.get(path.parent, 0) + (path.name != "__init__.py")
    crowded = {str(path.relative_to(ROOT)): count for path, count in folders.items() if count > MOST_FILES}
    assert not crowded


def test_the_checks_see_lazy_hidden_absolute_and_relative_imports(tmp_path: Path) -> None:
    source = ROOT / "teacache_core" / "imaginary.py"
    lazy = ast.ImportFrom(module="memo_avatar.timing", names=[], level=2)
    assert imported_from(source, lazy) == "memo_avatar.timing"
    assert imported_from(source, ast.ImportFrom(module="config", names=[], level=1)) == "teacache_core.config"
    assert imported_from(ROOT / "__init__.py", ast.ImportFrom(module="nodes", names=[], level=1)) == "nodes"
    module = tmp_path / "module.py"
    module.write_text(
        "import torch\nif TYPE_CHECKING:\n    import a\ndef f():\n    import diffusers.models\n",
        encoding="utf-8",
    )
    assert [(found.top, found.at_load) for found in imports(module)] == [
        ("torch", True),
        ("a", True),
        ("diffusers", False),
    ]
    assert file_of("memo_avatar.timing.FPS") == ROOT / "memo_avatar" / "timing.py"
    assert file_of("torch.nn") is None
