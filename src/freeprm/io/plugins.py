"""Finding a plug-in by name: a file in the family's folder, an installed entry point, or "package.module:Name".

A family is a folder such as `freeprm.objectives`. A member is a file in it that sets `PLUGIN` to its class or function,
and its name is the file's. `base.py` holds the family's Protocol; files that begin with an underscore are helpers.
"""

import importlib
import pkgutil
from collections.abc import Mapping, Sequence
from dataclasses import is_dataclass
from difflib import get_close_matches
from importlib.metadata import entry_points
from typing import Any

from freeprm.errors import ConfigError, PluginError

_FLAGS = {
    "datasets": "--dataset-option", "engines": "--engine-option", "executors": "--executor-option",
    "graders": "--grader-option", "labelers": "--set",
}  # fmt: skip
"""The flag for a member's options on the command line."""


def load(family: str, name: str) -> Any:
    """The plug-in of this name.

    Args:
        family: `objectives`, `engines`, `datasets`, `scorers`, ...
        name: a member's name, or `package.module:Name` for anyone's own class or function.

    Raises:
        PluginError: there is none of that name, or what the name leads to cannot be imported.
    """
    if ":" in name:
        return _load_path(name)
    if name in names(family, installed=False):
        module = importlib.import_module(f"freeprm.{family}.{name}")
        if not hasattr(module, "PLUGIN"):
            raise PluginError(f"{family}: {name!r} is not a plug-in; expected PLUGIN = <class or function> in its file")
        return module.PLUGIN
    for point in entry_points(group=f"freeprm.{family}"):
        if point.name == name:
            try:
                return point.load()
            except (ImportError, AttributeError) as error:
                raise PluginError(f"{family}: {name!r} is installed as {point.value}, but fails: {error}") from error
    known = names(family)
    close = get_close_matches(name, known, n=1)
    hint = f" Did you mean {close[0]!r}?" if close else ""
    raise PluginError(
        f"{family}: no {name!r}.{hint} There are {', '.join(known)}; "
        "a class of your own is given as 'package.module:Name'"
    )


def built(family: str, name: str, layers: Sequence[Mapping[str, Any]]) -> Any:
    """A member that is a dataclass, built from layers of options (see `config.build`).

    Raises:
        PluginError: as for `load`; or the plug-in is no dataclass.
        ConfigError: there is no such option, or its value is of the wrong type.
    """
    from freeprm.io.config import build

    kind = load(family, name)
    if not isinstance(kind, type) or not is_dataclass(kind):
        raise PluginError(f"{family}: {name!r} is {kind!r}; expected a dataclass whose fields are its options")
    try:
        return build(kind, layers)
    except ConfigError as error:
        how = f"; its options are given by {_FLAGS[family]} name=value" if family in _FLAGS else ""
        raise ConfigError(f"{family} {name}: {error}{how}") from error


def names(family: str, *, installed: bool = True) -> list[str]:
    """Sorted names of the family's members, with those that other packages install."""
    package = importlib.import_module(f"freeprm.{family}")
    modules = [module.name for module in pkgutil.iter_modules(package.__path__)]
    own = [name for name in modules if name != "base" and not name.startswith("_")]
    others = [point.name for point in entry_points(group=f"freeprm.{family}")] if installed else []
    return sorted({*own, *others})


def _load_path(path: str) -> Any:
    module_name, _, attribute = path.partition(":")
    try:
        return getattr(importlib.import_module(module_name), attribute)
    except (ImportError, AttributeError, ValueError) as error:
        raise PluginError(f"{path}: {error}. Expected 'package.module:Name', importable from here") from error
