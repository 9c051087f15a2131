"""The costs of methods: the ledger of a method's run folders and their ancestors, and times of best-of-N."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from freeprm.core.ledger import (
    DEVELOPMENT,
    POLICY,
    REFERENCE,
    SCORER,
    USE,
    Convention,
    Ledger,
    Paid,
    Total,
    ledger_of,
    under,
)
from freeprm.errors import ConfigError
from freeprm.io.lineage import TRAIN, Run, descent, runs_in, with_ancestors
from freeprm.io.runs import read_metrics
from freeprm.types import Metric

CHOSEN_BY = "best_of_n/min"
"""The paper's selector: the response whose lowest step score is highest."""
_ABLATIONS = ("without-reference", "reference-only")
"""Scorers of a selection that are not the method itself."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Bill:
    """The cost of a method, with notes."""

    ledger: Ledger
    runs: tuple[Run, ...]
    """Ancestors first."""
    responses: float | None
    """Labelled responses an instruction in the last training; None without training."""
    notes: tuple[str, ...]
    """Costs that are missing or cannot be separated."""


def ledger(folders: Sequence[Path]) -> Ledger:
    """The ledger of the runs in these folders and their subfolders, without ancestors."""
    return _ledger(runs_in(folders))


def bill(folders: Sequence[Path]) -> Bill:
    """The bill of a method, from its folders: of training runs, scores, selections, or a folder of them."""
    runs = with_ancestors(runs_in(folders))
    return Bill(ledger=_ledger(runs), runs=tuple(runs), responses=_responses(runs), notes=tuple(_notes(runs)))


def _ledger(runs: Sequence[Run]) -> Ledger:
    made = descent(runs)
    return ledger_of(
        Paid(
            folder=str(run.folder),
            stage=run.stage,
            purpose=DEVELOPMENT if run.folder in made else USE,
            cost=run.cost,
        )
        for run in runs
    )


def _responses(runs: Sequence[Run]) -> float | None:
    trained = [run.counts for run in runs if run.stage == TRAIN]
    if not trained:
        return None
    counts = trained[-1]
    return float(counts["right responses"] + counts["wrong responses"]) / float(counts["prompts"])


def _notes(runs: Sequence[Run]) -> list[str]:
    notes = [f"{run.folder}: was made from {name}, which is gone: not charged" for run in runs for name in run.lost]
    old = [run for run in runs if run.cost.flops and not run.cost.charges]
    if old:
        notes.append(
            f"{old[0].folder}{f' and {len(old) - 1} more' if len(old) > 1 else ''}: written before charges were "
            "itemised, so its reference is not told from the rest, nor attention from parameters"
        )
    trained = any(run.stage == TRAIN for run in runs)
    notes += [
        f"{run.folder}: does not say where its reward model is; name that folder too, or its development is not charged"
        for run in runs
        if run.stage == "score" and not run.names_models and not trained
    ]
    return notes


@dataclass(frozen=True, slots=True, kw_only=True)
class Billed:
    """A method with its bill."""

    label: str
    bill: Bill
    accuracy: Metric | None
    """Of best-of-n at the largest n; None without a selection."""

    def development(self, convention: Convention) -> Ledger:
        """The charges of its development."""
        return under(convention, self.bill.ledger)

    @property
    def use(self) -> Ledger:
        """The charges of using it: rollouts to choose from, and scores."""
        return self.bill.ledger.only(USE)


def read_methods(arguments: Sequence[str], *, selector: str = CHOSEN_BY) -> list[Billed]:
    """Methods from `[label=]folder[,folder ...]`; the default label is the folder's name.

    Raises:
        ConfigError: an argument without a folder.
        RecordError: a missing folder, or one without a finished run.
    """
    methods = []
    for argument in arguments:
        label, folders = _parsed(argument)
        made = bill(folders)
        methods.append(Billed(label=label, bill=made, accuracy=_accuracy(made, selector)))
    return methods


def base_of(method: Billed, methods: Sequence[Billed], *, label: str) -> Billed:
    """The method to compare with: of those with the label, the one with as many responses, or else the first."""
    labelled = [one for one in methods if one.label == label]
    return next((one for one in labelled if one.bill.responses == method.bill.responses), labelled[0])


def ratio(part: Total, whole: Total) -> float | None:
    """The ratio of the FLOPs of two totals; None if one is not wholly known, or `whole` is 0."""
    if part.n_unknown or whole.n_unknown or not whole.flops:
        return None
    return part.flops / whole.flops


def _parsed(argument: str) -> tuple[str, list[Path]]:
    label, equals, paths = argument.partition("=")
    if not equals or Path(argument.split(",")[0]).exists():  # a folder's name may contain an equals sign
        label, paths = "", argument
    folders = [Path(path) for path in paths.split(",") if path]
    if not folders:
        raise ConfigError(f"{argument}: expected a run folder, or label=folder")
    return label or folders[0].resolve().name, folders


def _accuracy(made: Bill, selector: str) -> Metric | None:
    """The accuracy of the scorer at the largest n, in the last selection."""
    selections = [run.folder for run in made.runs if run.stage == "select"]
    if not selections:
        return None
    found = [
        metric
        for metric in read_metrics(selections[-1])
        if (metric.metric, metric.selector, metric.group) == ("accuracy", selector, None) and metric.scorer
    ]
    own = [metric for metric in found if not str(metric.scorer).endswith(_ABLATIONS)] or found
    return max(own, key=lambda metric: metric.n or 0) if own else None


@dataclass(frozen=True, slots=True, kw_only=True)
class BestOfN:
    """The times of choosing among N responses."""

    label: str
    n: float
    """Responses a problem."""
    seconds: dict[str, float]
    """Of generation, of each scoring model, and of the rest of scoring."""
    ledgers: dict[str, Ledger]
    """The same without the rest, which has no FLOPs."""
    devices: tuple[str, ...]

    def share(self, part: str) -> float:
        """In % of generation."""
        return 100 * self.seconds[part] / self.seconds["generation"]

    @property
    def total(self) -> float:
        """Of all parts, in % of generation."""
        return sum(map(self.share, self.seconds))


def best_of_n(method: Billed) -> BestOfN:
    """The times of a method's use; a ConfigError without scores, or rollouts with times."""
    drawn, scored = _runs(method, "sample"), _runs(method, "score")
    if not scored or not drawn:
        raise ConfigError(
            f"{method.label}: {'no scores' if not scored else 'no rollouts that freeprm drew'} among its folders; "
            "expected a folder that `freeprm score` wrote for rollouts of `freeprm sample`"
        )
    by_what = method.use.by("what")
    models = {what: by_what[what] for what in (POLICY, SCORER, REFERENCE) if what in by_what}
    seconds = {what: part.total().seconds for what, part in models.items()}
    whole = sum(run.cost.seconds for run in scored)
    return BestOfN(
        label=method.label,
        n=sum(run.counts["samples"] for run in drawn) / sum(run.counts["problems"] for run in drawn),
        seconds={
            "generation": sum(run.cost.seconds for run in drawn),
            **seconds,
            "rest of scoring": whole - sum(seconds.values()),
        },
        ledgers={"generation": method.use.by("group")["generation"], **models},
        devices=tuple(dict.fromkeys(device for run in (*drawn, *scored) for device in run.cost.devices)),
    )


def _runs(method: Billed, stage: str) -> list[Run]:
    folders = {entry.folder for entry in method.bill.ledger.only(USE).entries}
    return [run for run in method.bill.runs if run.stage == stage and str(run.folder) in folders]
