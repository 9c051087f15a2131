"""What the claims are tested on: a comparison with all methods that they name, and what its runs will take.

A preset is a file beside the package's, which may extend a comparison. Besides what a comparison is told, it has

    [quick]        settings laid over it by --quick: fewer problems, wider intervals
    [expected]     tokens, parameters and speed, for the forecast before anything is run
    [papers]       name of a generator -> the one whose place it has in the paper's tables
    prepare        the command that makes the rollouts which are given
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from importlib import resources
from pathlib import Path
from typing import Any

from freeprm.errors import ConfigError
from freeprm.experiments.comparison.settings import Comparison, built, read_layers
from freeprm.experiments.reproduction.claims import Claim, single_tests
from freeprm.io.config import build, read_assignments, suggestion

DEFAULT = "world"


@dataclass(frozen=True, slots=True, kw_only=True)
class Expected:
    """What a preset's runs are like, as far as it is known before."""

    prompt_tokens: float
    """A problem."""
    response_tokens: float
    """A response, on average."""
    steps: float
    """A response, for step labels."""
    parameters: Mapping[str, float]
    """Model, or generator's name -> its parameters."""
    flops_per_second: float
    """Of one device, measured over training and scoring."""
    devices: int = 1
    unit: str = "2 cores"
    """What one device is."""
    rows: Mapping[str, float] = field(default_factory=dict)
    """File of rollouts that are given -> its rows, as long as it is not there."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Preset:
    """A comparison, prepared for claims."""

    name: str
    comparison: Comparison
    expected: Expected | None
    papers: Mapping[str, str]
    """See the module."""
    prepare: str
    """The command that makes the rollouts which are given."""


_FILES = resources.files("freeprm.assets") / "reproductions"
_OURS = ("quick", "expected", "papers", "prepare")


def preset_names() -> list[str]:
    """The presets that come with freeprm."""
    return sorted(file.name.removesuffix(".toml") for file in _FILES.iterdir() if file.name.endswith(".toml"))


def load_preset(name: str, *, quick: bool = False, assignments: Sequence[str] = ()) -> Preset:
    """A preset that comes with freeprm, or a file like it.

    Args:
        name: of `preset_names()`, or a path.
        quick: with its table `quick` laid over it.
        assignments: `name=value` over everything else.

    Raises:
        ConfigError: no such preset, no table `quick`, an unknown name or a bad value.
    """
    if name in preset_names():
        path = Path(str(_FILES / f"{name}.toml"))
    elif (path := Path(name)).is_file():
        name = path.stem
    else:
        raise ConfigError(
            f"--preset {name}: is no file, and no preset that comes with freeprm."
            f"{suggestion(name, preset_names())} There are {', '.join(preset_names())}"
        )
    layers = read_layers(path)
    ours: dict[str, list[Any]] = {key: [layer[key] for layer in layers if key in layer] for key in _OURS}
    told = [{key: value for key, value in layer.items() if key not in _OURS} for layer in layers]
    if quick and not ours["quick"]:
        raise ConfigError(f"--quick: {path} has no table [quick]; expected settings over those of the preset")
    return Preset(
        name=name,
        comparison=built([*told, *(ours["quick"] if quick else ()), read_assignments(assignments)]),
        expected=build(Expected, ours["expected"]) if ours["expected"] else None,
        papers={name: place for table in ours["papers"] for name, place in table.items()},
        prepare=ours["prepare"][-1] if ours["prepare"] else "",
    )


def check_data(preset: Preset) -> None:
    """Refuse a preset whose rollouts are not there.

    Raises:
        ConfigError: names the first, and the command that makes it.
    """
    comparison = preset.comparison
    given = [*comparison.train.rollouts, *comparison.dev.rollouts]
    given += [path for generator in comparison.generators.values() for path in generator.rollouts]
    given += [path for benchmark in comparison.benchmarks.values() for path in benchmark.rollouts]
    for path in given:
        if not Path(path).exists():
            how = f"make it with `{preset.prepare}`" if preset.prepare else "the preset's file says what it is"
            raise ConfigError(f"{path}: the preset {preset.name} reads it, and it is not there; {how}")


def narrowed(comparison: Comparison, claims: Iterable[Claim]) -> Comparison:
    """The comparison with only those methods that some claim names, and those that they are made from.

    Raises:
        ConfigError: no claim can be tested on it.
    """
    wanted: list[str] = []
    own: set[str] = set()
    for claim in claims:
        if list(single_tests(claim, comparison)):
            wanted += [name for name in claim.methods() | claim.shown() if name in comparison.methods]
            own |= claim.policies()
    if not wanted:
        raise ConfigError("claims: none of those asked for can be tested on this preset; it lacks their methods")
    needed: set[str] = set()
    while wanted:
        name = wanted.pop()
        if name not in needed:
            needed.add(name)
            wanted += comparison.parents(name)
    methods = {name: method for name, method in comparison.methods.items() if name in needed}
    labels = {
        name: labels for name, labels in comparison.labels.items()
        if any(method.labels == name for method in methods.values())
    }  # fmt: skip
    policies = tuple(name for name in comparison.policies.methods if name in own)
    against = comparison.against if comparison.against in methods else None
    return replace(
        comparison, methods=methods, labels=labels, against=against,
        policies=replace(comparison.policies, methods=policies),
    )  # fmt: skip
