"""Every command, import, name and file that the documentation shows is there: flags, `--set`, options of plug-ins."""

import ast
import inspect
import re
import shlex
import textwrap
from collections.abc import Iterator, Mapping
from dataclasses import fields, is_dataclass, replace
from importlib import import_module
from pathlib import Path
from typing import Annotated, Any, get_type_hints

import pytest
import typer
from typer.testing import CliRunner

from conftest import REPO
from freeprm.cli import builder
from freeprm.cli.experiments import DEMO, EXPERIMENTS
from freeprm.cli.planning import PLAN
from freeprm.cli.stages import STAGES, TrainFlags
from freeprm.experiments.comparison.settings import PACKAGED, load_comparison, packaged_comparisons
from freeprm.experiments.reproduction.claims import load_claims
from freeprm.experiments.reproduction.presets import DEFAULT, load_preset, preset_names
from freeprm.io.config import build
from freeprm.io.plugins import built, load, names
from freeprm.settings import TrainSettings, flag_of

PAGES = [
    path
    for folder in (".", "docs", "docs/results", "benchmarks", "examples")
    for path in sorted((REPO / folder).iterdir())
    if path.suffix in (".md", ".sh", ".py") and path.name not in ("CHANGELOG.md", "__init__.py", "__main__.py")
    and (path.suffix == ".md" or folder == "examples")
]  # fmt: skip
COMMANDS = {command.name: command for command in (DEMO, *STAGES, PLAN, *EXPERIMENTS)}
PLACEHOLDER = re.compile(r"package\.module:|my_|[A-Z]{2,}")
"""MODEL, NAME, package.module:Name, my_module:Name: of the reader's own."""
OPTIONS = {
    "engine": "engine_options", "executor": "executor_options", "grader": "grader_options", "labeler": "options",
    "source": "read_options", "to": "write_options",
}  # fmt: skip
"""Setting that names a plug-in -> the setting with its options."""


def blocks(page: Path) -> Iterator[str]:
    """Code, as it stands in fences, or indented by four; a script is one."""
    text = page.read_text(encoding="utf-8")
    if page.suffix != ".md":
        yield text
        return
    yield from re.findall(r"^```(?:python|bash|sh)\n(.*?)^```", text, re.M | re.S)
    for found in re.findall(r"(?:^ {4}.*\n|^\n(?= {4}))+", text, re.M):
        yield textwrap.dedent(found)


def commands(page: Path) -> Iterator[str]:
    """The `freeprm` commands of a page's blocks, each on one line."""
    for block in blocks(page):
        for line in block.replace("\\\n", " ").splitlines():
            if found := re.match(r"(?:\S*=\S* |accelerate .*-m |.*; |.*&& \S*/)?freeprm (?=[a-z])(.*)", line):
                yield found[1]


def shown() -> list[Any]:
    """Each command, by its page."""
    return [
        pytest.param(line, id=f"{page.name}: {line[:50]}") for page in PAGES for line in dict.fromkeys(commands(page))
    ]


@pytest.fixture(scope="module")
def parsed() -> Iterator[Any]:
    """What a command line says, without anything done; files need not be there."""
    calls: list[builder.Invocation] = []
    app = typer.Typer()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(builder, "_existing", lambda given: given)
        for command in COMMANDS.values():
            given = Annotated[list[str] | None, typer.Argument()]
            inputs = (command.inputs[0], given, None) if command.inputs else None
            builder.add(app, replace(command, inputs=inputs, work=calls.append))

    def parse(line: str) -> builder.Invocation:
        arguments = [word for word in shlex.split(line, comments=True) if word != "..."]
        made = CliRunner().invoke(app, arguments)
        assert made.exit_code == 0, made.output or made.exception
        return calls.pop()

    return parse


@pytest.mark.parametrize("line", shown())
def test_a_command_parses_and_its_settings_and_options_are_known(line: str, parsed: Any):
    if line.startswith("list"):
        return
    call = parsed(re.sub(r" \[(--[^\]]*)\]", r" \1", line))
    if line.startswith("compare"):
        named = call.inputs[0] if call.inputs else PACKAGED
        load_comparison(named if named in packaged_comparisons() else PACKAGED, assignments=call.assignments)
        return
    if line.startswith("reproduce"):
        preset = call.layers["option"].get("preset", DEFAULT)
        load_preset(preset if preset in preset_names() else DEFAULT, assignments=call.assignments)
        load_claims(call.layers["option"].get("only", ()))
        return
    kind: type[Any] = TrainSettings if call.kind is TrainFlags else call.kind
    known = {item.name for item in fields(kind)}
    layers = [{key: item for key, item in layer.items() if key in known} for layer in call.layers.values()]
    settings = build(kind, [{"model": "MODEL"} if "..." in line and kind is TrainSettings else {}, *layers])
    hints = get_type_hints(kind, include_extras=True)
    for item in fields(kind):
        if family := flag_of(hints[item.name]).family:
            check_member(family, getattr(settings, item.name), getattr(settings, OPTIONS.get(item.name, ""), {}))
    if line.startswith("sample"):
        rows = call.inputs[0] not in names("datasets")
        check_member("datasets", "rows" if rows else call.inputs[0], settings.dataset_options)


def check_member(family: str, name: str | None, options: Mapping[str, Any]) -> None:
    """The plug-in is there, and has the options."""
    if name is None or PLACEHOLDER.match(name):
        return
    kind = load(family, name)
    if options or (isinstance(kind, type) and is_dataclass(kind)):
        given = {item.name: "given" for item in fields(kind) if item.name in ("model", "path")}
        built(family, name, [given, options])


def snippets() -> list[Any]:
    """The Python code of the pages."""
    found = [
        (page, block)
        for page in PAGES
        for block in blocks(page)
        if re.search(r"^(import|from) \w|freeprm\.", block, re.M)
    ]
    return [pytest.param(block, id=f"{page.name}: {block[:50]!r}") for page, block in found if _tree(block) is not None]


def _tree(block: str) -> ast.Module | None:
    try:
        return ast.parse(block)
    except SyntaxError:
        return None


@pytest.mark.parametrize("block", snippets())
def test_what_a_snippet_imports_from_freeprm_is_there(block: str):
    import freeprm

    tree = _tree(block)
    assert tree is not None
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == "freeprm":
            for alias in node.names:
                assert hasattr(import_module(str(node.module)), alias.name), f"{node.module}.{alias.name}"
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id == "freeprm":
            assert hasattr(freeprm, node.attr), node.attr
        if (
            isinstance(node, ast.Call)
            and isinstance(node.func, ast.Attribute)
            and ast.unparse(node.func.value) == "freeprm"
        ):
            signature = inspect.signature(getattr(freeprm, node.func.attr))
            assert {word.arg for word in node.keywords if word.arg} <= set(signature.parameters), node.func.attr


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_modules_and_files_that_a_page_names_are_there(page: Path):
    text = page.read_text(encoding="utf-8")
    for dotted in re.findall(r"`(freeprm(?:\.\w+)+)`", text):
        assert resolves(dotted), dotted
    for file in re.findall(
        r"(?<![\w/])(?:tests|scripts|src|benchmarks|examples|docs)/[\w/.-]*\w\.(?:py|sh|md|toml)\b", text
    ):
        assert (REPO / file).exists(), file
    for link in re.findall(r"\]\((?!http)([^)#]+)", text):
        assert (page.parent / link).exists(), link


def resolves(dotted: str) -> bool:
    """It is a module or a name in one; or a family of entry points, which is a folder."""
    for end in range(dotted.count(".") + 1, 0, -1):
        parts = dotted.split(".")
        try:
            found: Any = import_module(".".join(parts[:end]))
        except ModuleNotFoundError:
            continue
        for name in parts[end:]:
            if not hasattr(found, name):
                return False
            found = getattr(found, name)
        return True
    return False
