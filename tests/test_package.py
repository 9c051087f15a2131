"""What the package promises before any of it runs: a light import, pinned versions, one version number."""

import ast
import re
import subprocess
import sys
import tomllib
from importlib.metadata import packages_distributions
from pathlib import Path

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

import freeprm

REPO = Path(__file__).parents[1]
PROJECT = tomllib.loads((REPO / "pyproject.toml").read_text(encoding="utf-8"))["project"]
HEAVY = ("torch", "transformers", "datasets", "peft", "pandas", "matplotlib", "sympy")


@pytest.mark.parametrize(
    "code",
    [
        "import freeprm",
        "from freeprm.cli.main import run\nsys.argv = ['freeprm', '--help']\ntry: run()\nexcept SystemExit: pass",
    ],
    ids=["import freeprm", "freeprm --help"],
)
def test_it_starts_without_loading_anything_heavy(code: str):
    check = (
        f"import sys\n{code}\nloaded = [name for name in {HEAVY!r} if name in sys.modules]\nassert not loaded, loaded"
    )
    done = subprocess.run([sys.executable, "-c", check], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_every_public_name_resolves():
    assert freeprm.__all__
    for name in freeprm.__all__:
        assert getattr(freeprm, name) is not None
    assert set(freeprm.__all__) <= set(dir(freeprm))


def test_an_unknown_public_name_is_an_attribute_error():
    with pytest.raises(AttributeError, match="no_such_name"):
        freeprm.no_such_name  # noqa: B018  # the look-up itself is what is tested


def pins() -> dict[str, str]:
    lines = [line for line in (REPO / "constraints.txt").read_text(encoding="utf-8").splitlines() if line]
    pinned = [line for line in lines if not line.startswith("#")]
    assert all(re.fullmatch(r"[A-Za-z0-9_.-]+==[0-9][A-Za-z0-9.]*", line) for line in pinned), (
        "exact pins, and nothing else"
    )
    return {canonicalize_name(name): version for name, version in (line.split("==") for line in pinned)}


def test_constraints_pin_torch_first():
    assert next(iter(pins().items())) == ("torch", "2.13.0")


EXTRAS = PROJECT["optional-dependencies"]
PINNED = [name for name in EXTRAS if name not in ("vllm", "dev")]  # vLLM brings its own torch
SERVED = {"fastapi", "starlette", "uvicorn", "prometheus_client"}
BROUGHT = {
    "peft", "datasets", "pyarrow", "openai", "vllm", "ray", "optimi", "tensorboard", "matplotlib", "trl", "gguf",
    *SERVED,
}  # fmt: skip
"""Packages that come with an extra."""


@pytest.mark.parametrize("extra", ["core", *PINNED])
def test_constraints_cover_every_direct_dependency_within_its_range(extra: str):
    wanted = PROJECT["dependencies"] if extra == "core" else EXTRAS[extra]
    for requirement in map(Requirement, wanted):
        if requirement.name == "freeprm":
            continue
        pinned = pins().get(canonicalize_name(requirement.name))
        assert pinned, f"constraints.txt does not pin {requirement.name}"
        assert requirement.specifier.contains(pinned), f"{requirement} does not allow the pinned {pinned}"


def test_constraints_pin_nothing_that_is_not_a_direct_dependency():
    direct = [*PROJECT["dependencies"], *(line for name in PINNED for line in EXTRAS[name])]
    assert set(pins()) == {canonicalize_name(Requirement(line).name) for line in direct} - {"freeprm"}


def test_everything_imported_is_a_declared_dependency():
    imported = {
        name.split(".")[0]
        for path in (REPO / "src").rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        for name in _imported(node)
    } - {"freeprm", *sys.stdlib_module_names}
    declared = {canonicalize_name(Requirement(line).name) for line in PROJECT["dependencies"]}
    distributions = packages_distributions()
    undeclared = {
        name for name in imported if not declared & {canonicalize_name(found) for found in distributions.get(name, [])}
    }
    assert undeclared <= BROUGHT


def _imported(node: ast.AST) -> list[str]:
    if isinstance(node, ast.Import):
        return [alias.name for alias in node.names]
    return [node.module or ""] if isinstance(node, ast.ImportFrom) else []


WITH_EXTRAS = ("freeprm.serving.", "freeprm.rl.prime", "freeprm.rl.rollouts", "freeprm.rl.running")
"""Beginnings of the names of modules that are a command's with an extra of its own."""


def test_every_other_module_can_be_imported_without_any_extra():
    code = f"""
import importlib, pkgutil, sys
for name in {BROUGHT!r}:
    sys.modules[name] = None
import freeprm
for module in pkgutil.walk_packages(freeprm.__path__, "freeprm."):
    if module.name != "freeprm.__main__" and not module.name.startswith({WITH_EXTRAS!r}):
        importlib.import_module(module.name)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize(
    ("extra", "missing", "arguments"),
    [("serve", SERVED, ["--untrained", "solver:base"]), ("rl", ["trl"], ["arithmetic", "--n-problems", "9"])],
)
def test_a_command_without_its_extra_names_it(extra: str, missing: list[str], arguments: list[str]):
    code = f"""
import sys
for name in {missing!r}:
    sys.modules[name] = None
sys.argv = ["freeprm", {extra!r}, *{arguments!r}]
from freeprm.cli import main
main.run()
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 1
    assert f"pip install 'freeprm[{extra}]'" in done.stderr


def test_there_is_one_version():
    citation = yaml.safe_load((REPO / "CITATION.cff").read_text(encoding="utf-8"))
    assert PROJECT["version"] == citation["version"] == freeprm.__version__
