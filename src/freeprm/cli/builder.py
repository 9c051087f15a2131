"""Commands made from a stage's settings: every field is a flag, and its docstring the help.

`freeprm COMMAND` reads its settings from `--config FILE`, then from the flags, then from `--set`; other settings have
the defaults of the settings' class.
"""

import ast
import inspect
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import MISSING, dataclass, field, fields
from functools import cache
from pathlib import Path
from types import NoneType, UnionType
from typing import Annotated, Any, Literal, NamedTuple, TypeVar, Union, get_args, get_origin, get_type_hints

import typer

from freeprm.cli.values import read_mapping, read_names, read_numbers
from freeprm.errors import ConfigError
from freeprm.io.arrow import is_hub_name
from freeprm.settings import Flag, Settings, flag_of

S = TypeVar("S", bound=Settings)
_CONFIG = Annotated[
    Path | None, typer.Option("--config", help="Settings by name, from a TOML or YAML file.", exists=True)
]
_JSON = Annotated[bool, typer.Option("--json", help="Print the result as JSON on standard output.")]


class Option(NamedTuple):
    """A field of settings as a flag."""

    field: str
    kind: Any
    """Without None."""
    flag: Flag
    default: Any
    help: str

    @property
    def spelled(self) -> str:
        """With its dashes."""
        return self.flag.name or f"--{self.field.replace('_', '-')}"

    @property
    def is_switch(self) -> bool:
        """Has no value."""
        return self.flag.is_switch or self.kind is bool

    @property
    def is_many(self) -> bool:
        """May be repeated."""
        return not self.is_switch and (_is_mapping(self.kind) or (_item(self.kind) is not None and self._repeats))

    @property
    def _repeats(self) -> bool:
        return not self.flag.commas or self.flag.open

    def read(self, value: Any) -> Any:
        """The flag's value as the field's type."""
        if self.is_switch:
            return self.flag.switch if self.flag.is_switch else True
        item = _item(self.kind)
        if _is_mapping(self.kind):
            return read_mapping(self.kind, value, self.spelled)
        if item is not None and self.flag.commas:
            texts = value if self.is_many else [value]
            return [part for text in texts for part in (read_numbers(text) if item is int else read_names(text))]
        return value


@dataclass(frozen=True, kw_only=True)
class Command:
    """A command and its settings."""

    name: str
    settings: Mapping[str, type[Settings]]
    """By switch; "" without any. The first one's help is the command's."""
    work: Callable[["Invocation"], None]
    out: str | None
    """Default of `--out`."""
    inputs: tuple[str, Any, Any] | None = None
    """Name, annotation and default of its argument, if it has one."""
    is_open: bool = False
    """No flag but `--out` has a default of its own."""
    set_help: str = "name=value over flags and --config; name.key=value inside of one."
    apart: Mapping[str, str] = field(default_factory=dict)
    """Switch -> why flags of other settings are refused with it."""


class Invocation(NamedTuple):
    """One use of a command."""

    inputs: Any
    """Its argument."""
    switch: str
    """The switch used, or ""."""
    kind: type[Settings]
    """Settings of the switch."""
    layers: Mapping[str, Mapping[str, Any]]
    """Values by source; later sources override earlier ones."""
    as_json: bool
    config: Path | None
    assignments: Sequence[str]
    """Texts of `--set`."""

    def settings(self, kind: type[S]) -> S:
        """The settings of all layers."""
        from freeprm.io.config import build

        return build(kind, self.layers.values())


def add(app: typer.Typer, command: Command) -> None:
    """Add the command to the app."""
    options = {kind: list(options_of(kind)) for kind in command.settings.values()}
    first = next(iter(command.settings.values()))
    every: dict[str, Option] = {}
    for kind in options:
        for option in options[kind]:
            every.setdefault(option.spelled, option)
    shown = {_parameter_name(spelled): option for spelled, option in every.items() if not option.flag.hidden}

    def run(context: typer.Context, **values: Any) -> None:
        sources = {name: context.get_parameter_source(name) for name in values}
        used = {name for name, source in sources.items() if source is not None and source.name == "COMMANDLINE"}
        switch = next((switch for switch in command.settings if switch and values[_parameter_name(switch)]), "")
        kind = command.settings[switch]
        taken = {option.spelled: option for option in options[kind]}
        flags: dict[str, Any] = {}
        for name in sorted(used & shown.keys(), key=list(shown).index):
            spelled = shown[name].spelled
            if spelled not in taken or taken[spelled].flag.hidden:
                raise ConfigError(f"{spelled} {command.apart[switch]}")
            flags[taken[spelled].field] = taken[spelled].read(values[name])
        layers = {
            "default": {} if command.out is None else {"out": command.out},
            **_configured(values.get("config_file")),
            "option": flags,
            "--set": _assigned(values["assignments"] or (), options[kind]),
        }
        inputs = values[command.inputs[0]] if command.inputs else None
        assignments = values["assignments"] or ()
        command.work(
            Invocation(inputs, switch, kind, layers, values["as_json"], values.get("config_file"), assignments)
        )

    parameters: list[tuple[str, Any, Any]] = [("context", typer.Context, inspect.Parameter.empty)]
    parameters += [command.inputs] if command.inputs else []
    parameters += [
        (name, _annotation(option, command), _shown_default(option, command)) for name, option in shown.items()
    ]
    parameters += [
        (_parameter_name(switch), Annotated[bool, typer.Option(switch, help=_summary(kind))], False)
        for switch, kind in command.settings.items() if switch
    ]  # fmt: skip
    parameters += [
        ("config_file", _CONFIG, None),
        ("assignments", Annotated[list[str] | None, typer.Option("--set", help=command.set_help)], None),
        ("as_json", _JSON, False),
    ]
    signature = [
        inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, annotation=annotation, default=default)
        for name, annotation, default in parameters
    ]
    run.__signature__ = inspect.Signature(signature)  # type: ignore[attr-defined]
    run.__annotations__ = {name: annotation for name, annotation, _ in parameters}
    app.command(command.name, help=_summary(first))(run)


def options_of(kind: type[Settings]) -> Iterator[Option]:
    """The fields of settings as flags; a class's own before inherited ones."""
    hints, helps = get_type_hints(kind, include_extras=True), field_helps(kind)
    known = {item.name: item for item in fields(kind)}
    homes = [base for base in kind.__mro__ if base is not object]
    for name in dict.fromkeys(name for home in homes for name in inspect.get_annotations(home)):
        item = known[name]
        default = None if item.default is MISSING else item.default
        plain = get_args(hints[name])[0] if get_origin(hints[name]) is Annotated else hints[name]
        yield Option(name, _without_none(plain), flag_of(hints[name]), default, helps.get(name, ""))


def field_helps(kind: type) -> dict[str, str]:
    """The docstring of each field of a dataclass, inherited ones included."""
    helps: dict[str, str] = {}
    for base in reversed(kind.__mro__):
        helps |= _helps_in(base.__module__).get(base.__name__, {})
    return helps


@cache
def _helps_in(module: str) -> dict[str, dict[str, str]]:
    """Class -> field -> docstring."""
    import importlib

    try:
        tree = ast.parse(inspect.getsource(importlib.import_module(module)))
    except (OSError, TypeError):  # built in
        return {}
    return {node.name: dict(_texts(node)) for node in tree.body if isinstance(node, ast.ClassDef)}


def _texts(node: ast.ClassDef) -> Iterator[tuple[str, str]]:
    for item, below in zip(node.body, node.body[1:], strict=False):
        match item, below:
            case ast.AnnAssign(target=ast.Name(id=name)), ast.Expr(value=ast.Constant(value=str(text))):
                yield name, " ".join(text.split())


def _annotation(option: Option, command: Command) -> Any:
    """The flag's annotation for typer."""
    taken: Any
    if option.is_switch:
        taken = bool
    elif option.is_many:
        taken = list[Path] if option.flag.exists else list[str]
    elif _item(option.kind) is not None:
        taken = str if option.flag.commas else option.kind
    else:
        plain = option.kind in (int, float, str) or get_origin(option.kind) in (Literal, tuple)
        taken = option.kind if plain else str if option.kind is Any else Path
    names = (option.spelled, "-o") if option.field == "out" else (option.spelled,)
    exists = _existing if option.flag.exists else None
    return Annotated[taken | None, typer.Option(*names, help=_help(option, command), callback=exists)]


def _shown_default(option: Option, command: Command) -> Any:
    if option.field == "out":
        return None if command.out is None else Path(command.out)
    if option.is_switch:
        return False
    if command.is_open or option.flag.open or option.is_many or option.default is None:
        return None
    return ",".join(map(str, option.default)) or None if option.flag.commas else option.default


def _help(option: Option, command: Command) -> str:
    parts = [option.help]
    if option.flag.family:
        from freeprm.io.plugins import names

        known = ", ".join(names(option.flag.family, installed=False))
        parts.append(f"{known}, or package.module:Name; see `freeprm list {option.flag.family}`.")
    is_open = option.flag.open or (command.is_open and not option.is_switch and option.field != "out")
    if is_open and option.default not in (None, "", ()) and not option.is_many:
        shown = " ".join(option.default) if isinstance(option.default, tuple) else option.default
        parts.append(f"({shown} by default)")
    return " ".join(parts)


def _existing(value: Any) -> Any:
    """Paths; a `typer.BadParameter` if one neither exists nor is a hub's data set."""
    for path in value if isinstance(value, list | tuple) else [value] if value else []:
        if not path.exists() and not is_hub_name(path):
            raise typer.BadParameter(f"Path '{path}' does not exist.")
    return value


INPUTS = (
    "inputs",
    Annotated[
        list[Path],
        typer.Argument(
            help=r"Files of rows (.jsonl, .csv, .parquet, ...), folders, hf:owner/name[:config]\[@revision]\[#split].",
            callback=_existing,
            show_default=False,
        ),
    ],
    inspect.Parameter.empty,
)
"""The argument of stages that read rows."""


def _configured(file: Path | None) -> dict[str, Mapping[str, Any]]:
    if file is None:
        return {}
    from freeprm.io.config import read_file

    return {str(file): read_file(file)}


def _assigned(assignments: Sequence[str], options: Sequence[Option]) -> dict[str, Any]:
    """Values of `--set`; names that are no field go to the field for the rest, if there is one."""
    if not assignments:
        return {}
    from freeprm.io.config import read_assignments

    values = read_assignments(assignments)
    rest = next((option.field for option in options if option.flag.rest), None)
    if rest is None:
        return values
    known = {option.field for option in options}
    return {
        **{name: value for name, value in values.items() if name in known},
        rest: {name: value for name, value in values.items() if name not in known},
    }


def _parameter_name(spelled: str) -> str:
    return f"flag_{spelled.strip('-').replace('-', '_')}"


def _summary(kind: type) -> str:
    return (inspect.getdoc(kind) or "").partition("\n\n")[0].replace("\n", " ")


def _without_none(kind: Any) -> Any:
    if get_origin(kind) not in (UnionType, Union):
        return kind
    left = [part for part in get_args(kind) if part is not NoneType]
    return left[0] if len(left) == 1 else Union[tuple(left)]  # noqa: UP007  # made of parts


def _is_mapping(kind: Any) -> bool:
    parts = get_args(kind) if get_origin(kind) in (UnionType, Union) else (kind,)
    return any(get_origin(part) is Mapping for part in parts)


def _item(kind: Any) -> Any:
    """The type of a sequence's items; None for other types."""
    args = get_args(kind)
    is_open = get_origin(kind) is Sequence or (get_origin(kind) is tuple and args[-1] is ...)
    return args[0] if is_open else None
