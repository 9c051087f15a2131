"""A comparison from its file: names that are no setting are refused with a suggestion, before anything is made."""

from collections.abc import Mapping, Sequence
from dataclasses import is_dataclass
from importlib import resources
from pathlib import Path
from typing import Any, get_args, get_origin, get_type_hints

from freeprm.core.aggregate import aggregator
from freeprm.core.rewards import check_reward
from freeprm.core.score_kinds import check_kinds
from freeprm.errors import ConfigError
from freeprm.experiments.comparison.settings import UNTRAINED, Comparison, Method
from freeprm.io.config import build, read_assignments, read_file, suggestion

PACKAGED = "embedded"
"""The comparison that comes with freeprm."""


def load_comparison(file: Path | None = None, *, assignments: Sequence[str] = ()) -> Comparison:
    """The comparison that a TOML file describes, or the packaged one.

    Args:
        file: TOML or YAML.
        assignments: `name=value` over what the file says, e.g. `train.n_problems=100`.

    Raises:
        ConfigError: an unknown name or a bad value; says where.
    """
    values = read_file(file) if file is not None else _packaged()
    layers = [values, read_assignments(assignments)]
    for layer in layers:
        _refuse_unknown(Comparison, layer, "")
    comparison = build(Comparison, layers)
    _check_methods(comparison)
    _check_data(comparison)
    return comparison


def _packaged() -> dict[str, Any]:
    with resources.as_file(resources.files("freeprm.assets") / "comparisons" / f"{PACKAGED}.toml") as path:
        return read_file(path)


def _refuse_unknown(kind: Any, table: object, where: str) -> None:
    """Refuse what is no setting, in a table or in those below it."""
    if not isinstance(table, Mapping):
        return  # refused with its type when it is converted
    known = get_type_hints(kind)
    for key, value in table.items():
        if key not in known:
            raise ConfigError(f"{where}{key}: no such setting.{suggestion(key, known)} There are {', '.join(known)}")
        named = get_args(known[key])[-1:] if get_origin(known[key]) is Mapping else ()
        if is_dataclass(known[key]):
            _refuse_unknown(known[key], value, f"{where}{key}.")
        elif named and is_dataclass(named[0]) and isinstance(value, Mapping):
            for name, item in value.items():
                _refuse_unknown(named[0], item, f"{where}{key}.{name}.")


def _check_methods(comparison: Comparison) -> None:
    if not comparison.methods:
        raise ConfigError("methods: there is none; expected at least one table [methods.NAME]")
    for name, method in comparison.methods.items():
        where = f"methods.{name}"
        if not name.replace("_", "").replace("-", "").isalnum():
            raise ConfigError(f"{where}: names a folder; expected letters, digits, - and _, and any words as its title")
        _one_source(method, where)
        for key, known in {"start": comparison.methods, "of": comparison.methods, "labels": comparison.labels}.items():
            _check_known(getattr(method, key), known, f"{where}.{key}")
        for role, parent in {"start": method.start, "of": method.of}.items():
            if parent is not None and comparison.methods[parent].train is None:
                raise ConfigError(f"{where}.{role}: {parent!r} trains no model; expected a method that does")
        aggregator(method.aggregator)
        check_kinds("", method.weighting)
        if method.reward is not None:
            check_reward(method.reward)
    for name, labels in comparison.labels.items():
        _check_known(labels.model_of, comparison.methods, f"labels.{name}.model_of")
    _check_known(comparison.against, comparison.methods, "against")
    comparison.order()


def _one_source(method: Method, where: str) -> None:
    """A method's model comes from one place, and what goes with another place is not given."""
    sources = {"train": method.train, "of": method.of, "scorer": method.scorer}
    given = [key for key, value in sources.items() if value is not None]
    if len(given) > 1:
        raise ConfigError(f"{where}: {' and '.join(given)} are given; expected one of them")
    if (method.scorer is None) != (method.model is None):
        raise ConfigError(f"{where}: scorer and model go together; give both or neither")
    if method.train is None and (method.start or method.labels or method.tune):
        raise ConfigError(f"{where}: start, labels and tune are of training; give a table [{where}.train]")
    if not given and method.reward not in (None, UNTRAINED):
        raise ConfigError(f"{where}.reward: is {method.reward!r}, but nothing is trained; expected {UNTRAINED!r}")


def _check_known(name: str | None, known: Mapping[str, Any], where: str) -> None:
    if name is not None and name not in known:
        raise ConfigError(f"{where}: there is no {name!r}.{suggestion(name, known)} There are {', '.join(known)}")


def _check_data(comparison: Comparison) -> None:
    if not comparison.generators:
        raise ConfigError("generators: there is none; expected at least one table [generators.NAME]")
    for name, generator in comparison.generators.items():
        if (generator.model is None) == (not generator.rollouts):
            raise ConfigError(f"generators.{name}: expected either a model or rollouts")
    if not comparison.sizes or min(comparison.sizes) < 1:
        raise ConfigError(f"sizes: is {list(comparison.sizes)}; expected numbers from 1, e.g. [4, 16, 64]")
    drawn = any(generator.model is not None for generator in comparison.generators.values())
    if drawn and max(comparison.sizes) > comparison.test.n:
        raise ConfigError(f"sizes: {max(comparison.sizes)} is above test.n, {comparison.test.n} responses a problem")
    if comparison.workers < 1:
        raise ConfigError(f"workers: is {comparison.workers}; expected 1 or more")
