"""The order of the layers, held by reading every import; and the page that describes the tree, held to the tree."""

import ast
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

REPO = Path(__file__).parents[1]
PACKAGE = REPO / "src" / "freeprm"
LAYERS = (
    "types", "errors", "assets", "io", "core", "settings", "formats", "graders", "executors", "world", "models",
    "objectives", "training", "engines", "datasets", "scorers", "labelers", "stages", "rl", "report", "experiments",
    "serving", "cli",
)  # fmt: skip
RANK = {name: max(rank, 2) for rank, name in enumerate(LAYERS)}  # the first three are one layer
HEAVY = ("torch", "transformers")
WITHOUT_HEAVY = (
    "io",
    "core",
    "formats",
    "graders",
    "executors",
    "world",
    "stages/selection",
    "stages/evaluation",
    "stages/grading",
)

MODULES = sorted(PACKAGE.rglob("*.py"))


def name_of(path: Path) -> str:
    parts = path.relative_to(PACKAGE.parent).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def layer_of(module: str) -> str:
    """`freeprm.core.steps` -> `core`; the package itself -> ''; `python -m freeprm` is the command line."""
    layer = module.split(".")[1] if "." in module else ""
    return "cli" if layer == "__main__" else layer


def imports_of(path: Path) -> Iterator[tuple[int, str]]:
    """Line and full name of each freeprm module that a file uses, wherever in it; `freeprm.__version__` aside."""
    known = {name_of(module) for module in MODULES}
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name) for alias in node.names if alias.name.startswith("freeprm."))
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}:{node.lineno}: a relative import; the tree uses absolute ones"
            if (node.module or "").split(".")[0] == "freeprm":
                names = [f"{node.module}.{alias.name}" for alias in node.names]
                used = [name if name in known else str(node.module) for name in names if name != "freeprm.__version__"]
                yield from ((node.lineno, name) for name in used)
        elif isinstance(node, ast.Attribute) and ast.unparse(node.value) == "freeprm" and node.attr != "__version__":
            yield node.lineno, "freeprm"


@pytest.mark.parametrize("path", MODULES, ids=name_of)
def test_a_module_imports_only_from_its_own_layer_or_those_above(path: Path):
    own = layer_of(name_of(path))
    if not own:
        return  # the package's own names are lazy, and come from every layer
    assert own in LAYERS, f"{own}: a folder or file without a place in the order of the layers"
    for line, imported in imports_of(path):
        layer = layer_of(imported)
        assert layer, f"{path}:{line} imports from the package itself; import the module that has the name"
        assert RANK[layer] <= RANK[own], f"{path}:{line} imports {imported}, but {own} stands above {layer}"


@pytest.mark.parametrize("path", sorted((PACKAGE / "stages").rglob("*.py")), ids=name_of)
def test_a_stage_imports_no_other_stage(path: Path):
    own = {*name_of(path).split(".")[2:3], "base"}  # what all of them have in common
    others = {name for _, name in imports_of(path) if layer_of(name) == "stages" and name.split(".")[2] not in own}
    assert not others


def test_light_modules_load_neither_torch_nor_transformers():
    light = [name_of(path) for path in MODULES if path.relative_to(PACKAGE).as_posix().startswith(WITHOUT_HEAVY)]
    assert "freeprm.io.runs" in light
    code = f"""
import importlib, sys
for name in {light!r}:
    importlib.import_module(name)
    for heavy in {HEAVY!r}:
        assert heavy not in sys.modules, name + " loads " + heavy
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_the_described_folders_are_the_folders():
    page = (REPO / "docs" / "architecture.md").read_text(encoding="utf-8")
    block = re.search(r"^```[a-z]*\nsrc/freeprm/\n(.*?)^```", page, re.M | re.S)
    assert block, "no block that begins with src/freeprm/"
    described = re.findall(r"^  (\w+)/ ", block[1], re.M)
    assert set(described) == {path.parent.name for path in PACKAGE.glob("*/__init__.py")}
    assert [name for name in LAYERS if name in described] == described  # in the order of the layers
