"""`freeprm list`: the members of all families, with their options."""

import importlib
import inspect
import json
from collections.abc import Iterator
from dataclasses import MISSING, fields, is_dataclass
from typing import Annotated, Any, NamedTuple

import typer
from rich.table import Table
from rich.text import Text

from freeprm.cli import output
from freeprm.cli.builder import field_helps
from freeprm.errors import ConfigError, FreePRMError
from freeprm.io.plugins import load, names

FAMILIES = ("objectives", "datasets", "formats", "engines", "graders", "labelers", "scorers", "executors")


class ListedMember(NamedTuple):
    """A member of a family."""

    family: str
    name: str
    summary: str
    options: dict[str, dict[str, str]]
    """Name -> its default, or `required`, and its help."""


def show(
    family: Annotated[str | None, typer.Argument(help=f"One of {', '.join(FAMILIES)}; all without.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the list as JSON on standard output.")] = False,
) -> None:
    """List objectives, datasets, formats, engines, graders, labelers, scorers and executors with their options."""
    if family is not None and family not in FAMILIES:
        raise ConfigError(f"{family}: no such family; expected one of {', '.join(FAMILIES)}")
    with output.working():
        found = [member for one in (FAMILIES if family is None else (family,)) for member in _members(one)]
    if as_json:
        print(json.dumps([member._asdict() for member in found], ensure_ascii=False))
        return
    for one in dict.fromkeys(member.family for member in found):
        table = Table(one, "", box=None, header_style="bold")
        for member in (member for member in found if member.family == one):
            table.add_row(Text(member.name, style="bold"), Text(member.summary))
            for option, shown in member.options.items():
                table.add_row(Text(f"  {option}"), Text(f"{shown['help']} ({shown['default']})".strip(), style="dim"))
        output.console.print(table)


def _members(family: str) -> Iterator[ListedMember]:
    for name in names(family):
        try:
            plugin = load(family, name)
        except FreePRMError as error:  # of another package: the error is its summary
            yield ListedMember(family, name, str(error), {})
            continue
        own = name in names(family, installed=False)
        about = importlib.import_module(f"freeprm.{family}.{name}") if own else plugin
        summary = (inspect.getdoc(about) or "").partition("\n\n")[0].replace("\n", " ")
        yield ListedMember(family, name, summary, dict(_options(plugin)))


def _options(plugin: Any) -> Iterator[tuple[str, dict[str, str]]]:
    if not isinstance(plugin, type) or not is_dataclass(plugin):
        return
    helps = field_helps(plugin)
    for item in fields(plugin):
        if item.init and not item.name.startswith("_"):
            made = item.default_factory is not MISSING
            default = "required" if item.default is MISSING and not made else "{}" if made else str(item.default)
            yield item.name, {"default": default, "help": helps.get(item.name, "")}
