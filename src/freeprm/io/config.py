"""Layered settings: defaults < preset < file < `--set a.b=c`; an unknown key is refused with a suggestion."""

import re
import tomllib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import fields, is_dataclass
from difflib import get_close_matches
from pathlib import Path
from typing import Any, TypeVar

import yaml

from freeprm.errors import ConfigError
from freeprm.io.rows import short

T = TypeVar("T")


def build(kind: type[T], layers: Iterable[Mapping[str, Any]]) -> T:
    """A settings dataclass from layers of plain values; later layers override earlier ones.

    Mappings are merged key by key, at any depth; every other value is replaced.

    Raises:
        ConfigError: an unknown key, a missing one, or a value of the wrong type; names the key.
    """
    assert is_dataclass(kind)
    known = [item.name for item in fields(kind)]
    values: dict[str, Any] = {}
    for layer in layers:
        for key in layer:
            if key not in known:
                raise ConfigError(f"{key}: no such setting.{suggestion(key, known)} There are {', '.join(known)}")
        values = _merged(values, layer)
    settings: T = convert(kind, values, name="")
    return settings


def convert(kind: Any, value: Any, *, name: str) -> Any:
    """A plain value converted to a setting's type, e.g. the text "1e-6" to a float.

    Raises:
        ConfigError: the value is not of that type; names the setting, or the field of a dataclass below it.
    """
    from pydantic import TypeAdapter, ValidationError

    try:
        return TypeAdapter(kind).validate_python(value)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in (name, *first["loc"]) if part)
        if first["type"] == "missing":
            raise ConfigError(f"{where}: is not given; give it as an option, in a file, or by --set") from error
        found = short(first["input"])
        if first["type"] == "literal_error":
            choices = first["ctx"]["expected"].replace(" or ", ", ").replace("'", "")
            raise ConfigError(f"{where}: is {found}; expected one of {choices}") from error
        raise ConfigError(f"{where}: is {found}; {first['msg'][0].lower()}{first['msg'][1:]}") from error


def read_file(path: Path) -> dict[str, Any]:
    """The settings of a TOML file, or of a YAML file by any other ending."""
    try:
        text = path.read_text(encoding="utf-8")
        values = tomllib.loads(text) if path.suffix == ".toml" else yaml.load(text, Loader=_Loader)
    except (OSError, ValueError, yaml.YAMLError) as error:
        raise ConfigError(f"{path}: {error}") from error
    if not isinstance(values, dict):
        raise ConfigError(f"{path}: expected settings by name, got {type(values).__name__}")
    return values


def read_assignments(assignments: Sequence[str]) -> dict[str, Any]:
    """`--set trainer.learning_rate=1e-6` as nested mappings; `null`, `true`, numbers and lists as such, else text.

    Raises:
        ConfigError: an assignment without a name or `=`, or one inside a plain value.
    """
    root: dict[str, Any] = {}
    for assignment in assignments:
        path, equals, raw = assignment.partition("=")
        *tables, leaf = [part.strip() for part in path.split(".")]
        if not equals or not all((*tables, leaf)):
            raise ConfigError(f"--set {assignment}: expected name=value, e.g. trainer.learning_rate=1e-6")
        table = root
        for name in tables:
            table = table.setdefault(name, {})
            if not isinstance(table, dict):
                raise ConfigError(f"--set {assignment}: {name} was set to {table!r} before; expected only one of both")
        table[leaf] = _value(raw.strip())
    return root


def suggestion(name: object, known: Iterable[str]) -> str:
    """ " Did you mean 'x'?" with the closest known name, or an empty text."""
    close = get_close_matches(str(name), list(known), n=1)
    return f" Did you mean {close[0]!r}?" if close else ""


def lookup(table: Mapping[str, T], name: str, *, setting: str) -> T:
    """The entry of a name; a ConfigError if there is none, which suggests the closest name."""
    if name not in table:
        raise ConfigError(f"{setting}: no {name!r}; expected one of {', '.join(table)}.{suggestion(name, table)}")
    return table[name]


def _merged(below: Mapping[str, Any], above: Mapping[str, Any]) -> dict[str, Any]:
    merged = dict(below)
    for key, value in above.items():
        old = merged.get(key)
        merged[key] = _merged(old, value) if isinstance(old, Mapping) and isinstance(value, Mapping) else value
    return merged


class _Loader(yaml.SafeLoader):
    """YAML 1.1, except that 5e-7 is a number and not text."""


_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float", re.compile(r"^[-+]?[0-9][0-9_]*[eE][-+]?[0-9]+$"), list("-+0123456789")
)
_WORDS = {"null": None, "None": None, "True": True, "False": False}
"""Words that TOML lacks; `none` stays text, since some settings have a choice of this name."""


def _value(raw: str) -> Any:
    if raw in _WORDS:
        return _WORDS[raw]
    try:
        return tomllib.loads(f"value = {raw}")["value"]
    except tomllib.TOMLDecodeError:
        return raw
