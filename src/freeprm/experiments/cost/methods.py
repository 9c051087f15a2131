"""The methods of a comparison of cost: their bills, and how well they choose, where a selection tells."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from freeprm.core.cost_conventions import Convention, under
from freeprm.core.ledger import USE, Ledger, Total
from freeprm.errors import ConfigError
from freeprm.experiments.cost.bills import Bill, bill
from freeprm.io.runs import read_metrics
from freeprm.types import Metric

CHOSEN_BY = "best_of_n/min"
"""The paper's way: the response whose lowest step score is highest."""
_ABLATIONS = ("without-reference", "reference-only")
"""Scorers of a selection that are not the method itself."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Method:
    """A method with its bill."""

    label: str
    bill: Bill
    accuracy: Metric | None
    """Of best-of-n at the largest n; None where its folders hold no selection."""

    def development(self, convention: Convention) -> Ledger:
        """What its development is charged."""
        return under(convention, self.bill.ledger)

    @property
    def use(self) -> Ledger:
        """What using it took: rollouts to choose from, and scores."""
        return self.bill.ledger.only(USE)


def read_methods(arguments: Sequence[str], *, selector: str = CHOSEN_BY) -> list[Method]:
    """Methods from `[label=]folder[,folder ...]`; the label is the folder's name if not given.

    Raises:
        ConfigError: an argument without a folder.
        RecordError: a folder that is not there, or holds no finished run.
    """
    methods = []
    for argument in arguments:
        label, folders = _parsed(argument)
        made = bill(folders)
        methods.append(Method(label=label, bill=made, accuracy=_accuracy(made, selector)))
    return methods


def base_of(method: Method, methods: Sequence[Method], *, label: str) -> Method:
    """What a method is compared with: of those with a label, the one with as many responses an instruction, else the
    first."""
    labelled = [one for one in methods if one.label == label]
    return next((one for one in labelled if one.bill.responses == method.bill.responses), labelled[0])


def ratio(part: Total, whole: Total) -> float | None:
    """Of the FLOPs of two totals; None where one is not wholly known, or there is nothing to compare with."""
    if part.n_unknown or whole.n_unknown or not whole.flops:
        return None
    return part.flops / whole.flops


def _parsed(argument: str) -> tuple[str, list[Path]]:
    label, equals, paths = argument.partition("=")
    if not equals or Path(argument.split(",")[0]).exists():  # a folder's name may hold an equals sign
        label, paths = "", argument
    folders = [Path(path) for path in paths.split(",") if path]
    if not folders:
        raise ConfigError(f"{argument}: expected a run folder, or label=folder")
    return label or folders[0].resolve().name, folders


def _accuracy(made: Bill, selector: str) -> Metric | None:
    """The best-informed scorer's, in the last selection that there is."""
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
