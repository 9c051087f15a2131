"""What a comparison is told: whose rollouts, which methods, how each is trained; read from a file, and checked.

And where its run folders are.
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, is_dataclass
from graphlib import CycleError, TopologicalSorter
from importlib import resources
from pathlib import Path
from typing import Any, get_args, get_origin, get_type_hints

from freeprm.core.rewards import aggregator, check_reward
from freeprm.core.score_kinds import BY_KIND, check_kinds
from freeprm.errors import ConfigError
from freeprm.io.config import build, read_assignments, read_file, suggestion

UNTRAINED = "reference-only"
"""How a model that was not trained is read."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Split:
    """Problems, and how many responses to each; or rollouts that exist already."""

    n_problems: int | None = None
    """How many to take; all of them if not given."""
    n: int = 8
    """Responses a problem."""
    rollouts: tuple[str, ...] = ()
    """Files or run folders to take instead of sampling; graded where they have no label."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Sampling:
    """How rollouts are drawn; see `freeprm.stages.sampling.sample`."""

    problems: str = "arithmetic"
    """A dataset, or a file of problems."""
    dataset_options: Mapping[str, Any] = field(default_factory=dict)
    temperature: float = 0.8
    top_p: float = 1.0
    max_new_tokens: int = 512
    logprobs: bool = True
    """Note the log-probabilities of what the starting model draws, so that it costs nothing as the reference."""
    engine: str = "hf"
    engine_options: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Generator:
    """Who answers the test problems."""

    model: str | None = None
    """As the engine takes it."""
    rollouts: tuple[str, ...] = ()
    """Instead: rollouts that exist already."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Source:
    """Other rollouts to train on, drawn like the training ones; methods name them in `mix` and `replace`."""

    model: str | None = None
    """Who answers; by default the model that everything starts from."""
    n_problems: int | None = None
    """By default those of the training problems."""
    dataset_options: Mapping[str, Any] = field(default_factory=dict)
    """Over those of `sampling`."""
    rollouts: tuple[str, ...] = ()
    """Instead: rollouts that exist already."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Policies:
    """Trained models that answer the test problems themselves (section 5.2)."""

    methods: tuple[str, ...] = ()
    """Whose models."""
    n: int = 16
    """Responses a problem."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Benchmark:
    """Responses whose first errors are known, such as ProcessBench's; every method scores their steps."""

    rollouts: tuple[str, ...]
    """Files or run folders."""
    dev: str | None = None
    """Name of the benchmark on which thresholds are fitted; without one, on a share of its own problems."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Labels:
    """Step labels for the training rollouts, made once for all methods that train on them."""

    labeler: str
    """A member of the family `labelers`."""
    options: Mapping[str, Any] = field(default_factory=dict)
    """The labeler's fields."""
    model_of: str | None = None
    """Name of the method whose model the labeler takes as its option `model`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Method:
    """A reward model: trained here (`train`), another's read otherwise (`of`), released (`scorer`), or untrained."""

    title: str = ""
    """As tables name it; the method's name by default."""
    kind: str = ""
    """What tables say of its kind, e.g. ORM."""
    train: Mapping[str, Any] | None = None
    """Settings of training over those that all methods share; see `freeprm.training.settings.TrainSettings`."""
    start: str | None = None
    """Name of the method whose model is trained on; by default it is the model that everything starts from."""
    labels: str | None = None
    """Name of the step labels trained on; outcome labels alone by default."""
    of: str | None = None
    """Name of the method whose model is read."""
    reward: str | None = None
    """How a log-ratio is read: `with-reference` by default, `reference-only` of the untrained model."""
    scorer: str | None = None
    """A recipe for a released model, see `freeprm.scorers`; with `model`."""
    model: str | None = None
    """Of `scorer`: a folder or a hub id."""
    scorer_reference: str | None = None
    """Of `scorer`: the second model, where it takes two."""
    generators: tuple[str, ...] = ()
    """Whose answers it scores; by default all."""
    aggregator: str = "min"
    """Step scores -> score; a name in `freeprm.core.rewards.AGGREGATORS`."""
    weighting: str = BY_KIND
    """Score -> weight in a vote; a name in `freeprm.core.voting.WEIGHTINGS`. By default as the scores are."""
    tune: tuple[Mapping[str, Any], ...] = ()
    """Settings that `--tune` tries for this method besides those that it tries for all."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Tuning:
    """What `--tune` tries with every method that is trained, on the dev split of a seed of its own."""

    tries: tuple[Mapping[str, Any], ...] = ()
    """Settings of training, each laid over the method's own."""
    n: int = 16
    """Responses a problem that are chosen among, by best-of-n."""
    dev: Split = field(default_factory=Split)
    seed: int = 1000
    """Of problems, samples and training."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Comparison:
    """Everything that decides a comparison, besides its seed."""

    title: str = "Reward models on the same rollouts"
    model: str
    """Start and reference of whatever is trained; it draws the training and dev rollouts, unless those are given."""
    sizes: tuple[int, ...] = (4, 16, 64)
    """N of best-of-N and of the votes."""
    against: str | None = None
    """Name of the method that others are compared with, in accuracy and in cost."""
    sampling: Sampling = field(default_factory=Sampling)
    train: Split = field(default_factory=Split)
    dev: Split = field(default_factory=Split)
    """For the thresholds of step-level metrics."""
    test: Split = field(default_factory=lambda: Split(n=64))
    generators: Mapping[str, Generator]
    benchmarks: Mapping[str, Benchmark] = field(default_factory=dict)
    """Nothing is chosen on them: they are for the tables about steps."""
    training: Mapping[str, Any] = field(default_factory=dict)
    """Settings of training that all methods share."""
    sources: Mapping[str, Source] = field(default_factory=dict)
    policies: Policies = field(default_factory=Policies)
    labels: Mapping[str, Labels] = field(default_factory=dict)
    methods: Mapping[str, Method]
    tuning: Tuning = field(default_factory=Tuning)
    workers: int = 1
    """Processes that make methods side by side; decides nothing but the time."""

    def shared(self) -> dict[str, Any]:
        """What all methods of a comparison have in common; the rest may differ when a run is taken up again."""
        return {name: asdict(self)[name] for name in ("model", "sampling", "train", "dev", "test", "generators")}

    def answered_by(self, method: str) -> list[str]:
        """The generators whose answers a method scores."""
        own = self.methods[method].generators
        return [name for name in self.generators if not own or name in own]

    def parents(self, name: str) -> list[str]:
        """The methods whose models must be there before this one's."""
        method = self.methods[name]
        labeler = self.labels[method.labels].model_of if method.labels else None
        return [parent for parent in dict.fromkeys((method.start, labeler, method.of)) if parent is not None]

    def order(self) -> list[str]:
        """All methods, each behind those that it needs.

        Raises:
            ConfigError: some need each other.
        """
        try:
            return list(TopologicalSorter({name: self.parents(name) for name in self.methods}).static_order())
        except CycleError as error:
            names = ", ".join(sorted(set(error.args[1])))
            raise ConfigError(f"methods: {names} need each other's models; expected none to need its own") from error


PACKAGED = "embedded"
"""The comparison that is made where none is named."""
_FILES = resources.files("freeprm.assets") / "comparisons"


@dataclass(frozen=True, slots=True)
class Folders:
    """Places of a comparison; each stage resumes from its own."""

    out: Path

    def sampled(self, split: str) -> Path:
        """Rollouts as they were drawn; `split` is train, dev, or test-GENERATOR."""
        return self.out / "rollouts" / split

    def graded(self, split: str) -> Path:
        """The same with their outcome labels."""
        return self.out / "graded" / split

    def labels(self, name: str) -> Path:
        """The training rollouts with step labels."""
        return self.out / "labels" / name

    def model(self, method: str) -> Path:
        """What a method trained."""
        return self.out / "methods" / method / "model"

    def scores(self, method: str, split: str) -> Path:
        """A split's rollouts with a method's scores."""
        return self.out / "methods" / method / f"scores-{split}"

    def selection(self, method: str, split: str) -> Path:
        """What is chosen by those scores."""
        return self.out / "methods" / method / f"selection-{split}"

    def evaluation(self, method: str, split: str) -> Path:
        """How well those scores find the first error."""
        return self.out / "methods" / method / f"evaluation-{split}"

    def baseline(self, split: str) -> Path:
        """What is chosen without scores."""
        return self.out / "baselines" / f"selection-{split}"

    @property
    def logprobs(self) -> Path:
        """Token log-probabilities, above all the reference's, computed once for all methods."""
        return self.out / "logprobs"


def test_split(generator: str) -> str:
    """The split of a generator's answers to the test problems."""
    return f"test-{generator}"


def benchmark_split(benchmark: str) -> str:
    """The split of a benchmark's responses."""
    return f"benchmark-{benchmark}"


def source_split(source: str) -> str:
    """The split of other rollouts to train on."""
    return f"train-{source}"


def policy_split(method: str) -> str:
    """The split of a trained model's own answers to the test problems."""
    return f"test-by-{method}"


def load_comparison(name: str | Path = PACKAGED, *, assignments: Sequence[str] = ()) -> Comparison:
    """The comparison of a file, or one that comes with freeprm.

    Args:
        name: TOML or YAML, or a name in `packaged_comparisons()`.
        assignments: `name=value` over what the file says, e.g. `train.n_problems=100`.

    Raises:
        ConfigError: an unknown name or a bad value; says where.
    """
    return built([*read_layers(name), read_assignments(assignments)])


def packaged_comparisons() -> list[str]:
    """Names of the comparisons that come with freeprm."""
    return sorted(file.name.removesuffix(".toml") for file in _FILES.iterdir() if file.name.endswith(".toml"))


def read_layers(name: str | Path) -> list[dict[str, Any]]:
    """The tables of a comparison's file behind those of the one that it `extends`: a packaged one, or a path from it.

    Raises:
        ConfigError: there is no such file, or a file extends itself.
    """
    layers: list[dict[str, Any]] = []
    seen: list[Path] = []
    path: Path | None = _file(name, beside=Path())
    while path is not None:
        if path in seen:
            raise ConfigError(f"{path}: extends itself; expected a file that ends in one without `extends`")
        seen.append(path)
        values = read_file(path)
        base = values.pop("extends", None)
        layers.insert(0, values)
        path = None if base is None else _file(base, beside=path.parent)
    return layers


def _file(name: str | Path, *, beside: Path) -> Path:
    if str(name) in packaged_comparisons():
        return Path(str(_FILES / f"{name}.toml"))
    path = beside / name
    if not path.is_file():
        known = packaged_comparisons()
        raise ConfigError(
            f"{name}: is no file, and no comparison that comes with freeprm.{suggestion(str(name), known)} "
            f"There are {', '.join(known)}"
        )
    return path


def built(layers: Sequence[Mapping[str, Any]]) -> Comparison:
    """The comparison of tables, each laid over those before it.

    Raises:
        ConfigError: an unknown name or a bad value; says where.
    """
    for layer in layers:
        _refuse_unknown(Comparison, layer, "")
    comparison = build(Comparison, layers)
    _check_methods(comparison)
    _check_data(comparison)
    return comparison


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
        for generator in method.generators:
            _check_known(generator, comparison.generators, f"{where}.generators")
        aggregator(method.aggregator)
        check_kinds("", method.weighting)
        if method.reward is not None:
            check_reward(method.reward)
    for name, labels in comparison.labels.items():
        _check_known(labels.model_of, comparison.methods, f"labels.{name}.model_of")
    for name in comparison.policies.methods:
        _check_known(name, comparison.methods, "policies.methods")
        if comparison.methods[name].train is None:
            raise ConfigError(f"policies.methods: {name!r} trains no model; expected a method that does")
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
    if twice := comparison.generators.keys() & comparison.benchmarks.keys():
        raise ConfigError(
            f"benchmarks.{min(twice)}: is a generator's name too; expected another one, as both are columns"
        )
    for name, benchmark in comparison.benchmarks.items():
        if not benchmark.rollouts:
            raise ConfigError(
                f"benchmarks.{name}.rollouts: there is none; expected files of rows with their first errors"
            )
        _check_known(benchmark.dev, comparison.benchmarks, f"benchmarks.{name}.dev")
    if not comparison.sizes or min(comparison.sizes) < 1:
        raise ConfigError(f"sizes: is {list(comparison.sizes)}; expected numbers from 1, e.g. [4, 16, 64]")
    drawn = any(generator.model is not None for generator in comparison.generators.values())
    if drawn and max(comparison.sizes) > comparison.test.n:
        raise ConfigError(f"sizes: {max(comparison.sizes)} is above test.n, {comparison.test.n} responses a problem")
    if comparison.workers < 1:
        raise ConfigError(f"workers: is {comparison.workers}; expected 1 or more")
