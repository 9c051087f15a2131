"""What a comparison is told: whose rollouts, which methods, how each is trained."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from freeprm.core.score_kinds import BY_KIND
from freeprm.errors import ConfigError

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
    aggregator: str = "min"
    """Step scores -> score; a name in `freeprm.core.aggregate.AGGREGATORS`."""
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
    training: Mapping[str, Any] = field(default_factory=dict)
    """Settings of training that all methods share."""
    labels: Mapping[str, Labels] = field(default_factory=dict)
    methods: Mapping[str, Method]
    tuning: Tuning = field(default_factory=Tuning)
    workers: int = 1
    """Processes that make methods side by side; decides nothing but the time."""

    def shared(self) -> dict[str, Any]:
        """What all methods of a comparison have in common; the rest may differ when a run is taken up again."""
        return {name: asdict(self)[name] for name in ("model", "sampling", "train", "dev", "test", "generators")}

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
        order: list[str] = []
        while left := [name for name in self.methods if name not in order]:
            ready = [name for name in left if set(self.parents(name)) <= set(order)]
            if not ready:
                raise ConfigError(f"methods: {', '.join(left)} need each other's models; expected none to need its own")
            order.append(ready[0])
        return order
