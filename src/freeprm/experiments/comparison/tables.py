"""The tables of a comparison: Table 1 by two ways of choosing, differences, steps, and what each method costs."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from freeprm.core.ledger import ALL_IN, AS_PUBLISHED, DEVELOPMENT, TRAINING, USE, Ledger, Total, under
from freeprm.experiments.bills import bill
from freeprm.experiments.comparison.measures import BASELINES, NULL, Measured, Place
from freeprm.experiments.comparison.settings import Comparison, Folders, test_split
from freeprm.io.manifest import read_cost
from freeprm.io.runs import read_manifest
from freeprm.report.metrics import metric_cell
from freeprm.report.table import NONE, Cell, Cells, Table
from freeprm.types import Cost, Metric

_BASELINES = {
    "random": "one response, pass@1",
    NULL: "random distinct text",
    "majority": "majority vote",
    "oracle": "any right, pass@N",
}
_FAMILIES = {"best_of_n": "best-of-N", "weighted_vote": "weighted vote"}
_FLOOR_NOTE = (
    "A scorer that knows nothing inside a problem gets what a random distinct text gets, and not what one response "
    "gets: equal texts have equal scores, and right ones repeat more often than wrong ones. Accuracies are "
    "expectations over ties."
)
_COST_NOTE = (
    "All in: everything from the first rollout to the end of training, step labels and earlier stages too. As "
    "published: what the paper's ratios tell of, which is step labels, and training by the sequence with every pair "
    "of a right and a wrong response, but neither rollouts nor the reference nor attention; see `freeprm cost`. "
    "Ratios are to the method that others are compared with. Beginnings that responses share are completed once and "
    "read once."
)
_WORK_NOTE = (
    "Methods that are made side by side take longer, each by itself. The reference costs nothing where it drew the "
    "response itself, and a response that occurs twice is scored once."
)


@dataclass(frozen=True, slots=True, kw_only=True)
class MethodCost:
    """The bill of one method. A figure is None where it is not known, or where there is nothing of the kind."""

    all_in: float | None
    """FLOPs of development: rollouts, step labels, the reference and training, those of earlier stages included."""
    published: float | None
    """The same as the paper charges it; see `freeprm.core.ledger`."""
    labels: float | None
    """FLOPs of making step labels, as far as they are in `all_in`."""
    seconds: float | None
    """Of development."""
    drawn_tokens: float | None
    """Tokens generated for it."""
    trained_tokens: float | None
    """Tokens passed forward and backward."""
    scoring_flops: float | None
    """FLOPs a scored response, over all generators that it scores."""
    scoring_seconds: float | None
    """Seconds a scored response."""


def method_costs(comparison: Comparison, folders: Folders) -> dict[str, MethodCost]:
    """The bill of each method, from the manifests of its scores and of all that those were made from."""
    return {name: _cost(comparison, folders, name) for name in comparison.methods}


def total_cost(folders: Folders) -> Cost:
    """Everything that the comparison did."""
    manifests = [read_manifest(path.parent) or {} for path in sorted(folders.out.glob("*/**/manifest.json"))]
    return sum((read_cost(manifest["cost"]) for manifest in manifests if "cost" in manifest), Cost())


def _cost(comparison: Comparison, folders: Folders, name: str) -> MethodCost:
    scored = [folders.scores(name, test_split(generator)) for generator in comparison.answered_by(name)]
    responses = sum((read_manifest(folder) or {})["counts"]["scored"] for folder in scored)
    book = bill(scored).ledger
    scoring = book.only(USE).by("stage")["score"].total()
    flops = _known_flops(scoring)
    known = comparison.methods[name].scorer is None  # what somebody else's model has cost is not
    return MethodCost(
        **(_development(book) if known else dict.fromkeys(_DEVELOPMENT)),
        scoring_flops=None if flops is None else flops / responses,
        scoring_seconds=scoring.seconds / responses,
    )


_DEVELOPMENT = ("all_in", "published", "labels", "seconds", "drawn_tokens", "trained_tokens")


def _development(book: Ledger) -> Mapping[str, float | None]:
    made = book.only(DEVELOPMENT)
    annotation = made.only(charged=["annotation"])
    return {
        "all_in": _known_flops(under(ALL_IN, book).total()),
        "published": _known_flops(under(AS_PUBLISHED, book).total()),
        "labels": _known_flops(annotation.total()) if annotation.entries else None,
        "seconds": made.total().seconds,
        "drawn_tokens": _tokens(made, "decode"),
        "trained_tokens": _tokens(made, TRAINING),
    }


def _tokens(book: Ledger, what: str) -> int:
    return book.by("what").get(what, Ledger()).total().tokens


def _known_flops(total: Total) -> float | None:
    return None if total.n_unknown else float(total.flops)


def all_tables(comparison: Comparison, found: Measured, costs: Mapping[str, MethodCost]) -> list[Table]:
    """The tables in their order; those that have nothing to show are left out."""
    metrics = found.metrics
    tables = [
        accuracy_table(comparison, found, "best_of_n"),
        accuracy_table(comparison, found, "weighted_vote"),
        difference_table(comparison, metrics),
        tie_table(comparison, metrics),
        *step_tables(comparison, metrics),
        *cost_tables(comparison, costs),
    ]
    return [table for table in tables if table.rows]


def accuracy_table(comparison: Comparison, found: Measured, family: str) -> Table:
    """A row a method, a column each generator and N, and the average; baselines without scores first."""
    shown = [metric for metric in found.metrics if metric.metric == "accuracy"]
    rows: list[Cells] = []
    for name in BASELINES:
        own = [metric for metric in shown if metric.scorer is None and metric.selector == name]
        rows.append((Cell(_BASELINES[name]), Cell(""), *_by_column(comparison, own)))
    for name, method in comparison.methods.items():
        own = [metric for metric in shown if metric.scorer == name and _family(metric) == family]
        rows.append((_titled(comparison, name), Cell(method.kind), *_by_column(comparison, own)))
    count = max((metric.count for metric in shown), default=0)
    about = _FLOOR_NOTE if family == "best_of_n" else _weights(comparison, found.weightings)
    names = _column_names(comparison)
    return Table(
        title=f"{_title(_FAMILIES[family])} accuracy, %",
        note=f"{count} problems; 95 % intervals over problems; the average is over all columns. {about}"
        f"{_left_out(found.left_out)}",
        header=("reward model", "type", *names, "average"),
        rows=tuple(rows),
        align="ll".ljust(len(names) + 3, "r"),
    )


def difference_table(comparison: Comparison, metrics: Sequence[Metric]) -> Table:
    """Average accuracies less the majority vote's, less best-of-N's null, and less those of the method `against`."""
    shown = {
        (metric.scorer, _family(metric), str(metric.selector).partition(" - ")[2]): metric
        for metric in metrics
        if metric.metric == "accuracy_difference"
    }
    rival = comparison.against
    columns = [("best_of_n", NULL), ("best_of_n", "majority"), ("weighted_vote", "majority")]
    header = [f"{_FAMILIES[family]} less {_BASELINES[other]}" for family, other in columns]
    if rival is not None:
        header += [f"{text} less {_titled(comparison, rival).value}" for text in _FAMILIES.values()]
    rows = []
    for name in comparison.methods:
        own = [shown.get((name, *column)) for column in columns]
        if rival is not None:
            own += [shown.get((f"{name} - {rival}", family, "")) for family in _FAMILIES]
        rows.append((_titled(comparison, name), *map(metric_cell, own)))
    return Table(
        title="Paired differences of the averages, points",
        note="The same problems for both; an interval without 0 is a difference that the problems cannot explain. "
        "Best-of-N less random distinct text is what the scores know inside problems.",
        header=("reward model", *header),
        rows=tuple(rows),
    )


def tie_table(comparison: Comparison, metrics: Sequence[Metric]) -> Table:
    """How often best-of-N, in each column, and the vote, on average, share the first place."""
    shown = [metric for metric in metrics if metric.metric == "tied"]
    rows = []
    for name in comparison.methods:
        best, votes = (
            [metric for metric in shown if metric.scorer == name and _family(metric) == family] for family in _FAMILIES
        )
        if best or votes:
            average = list(_by_column(comparison, votes))[-1]
            rows.append((_titled(comparison, name), *_by_column(comparison, best), average))
    names = _column_names(comparison)
    return Table(
        title="First place shared, % of problems",
        note="By different texts at best-of-N, by different answers in the vote.",
        header=("reward model", *names, "average", "vote, average"),
        rows=tuple(rows),
    )


def step_tables(comparison: Comparison, metrics: Sequence[Metric]) -> Iterator[Table]:
    """How well step scores find the first error, and how well they rank steps and responses, by generator."""
    yield _step_table(
        comparison,
        metrics,
        {"processbench_f1": "F1, %", "first_error_accuracy": "found, %"},
        title="First errors",
        note="F1 as ProcessBench defines it, each method's threshold fitted on dev: other problems. "
        "Found: the first error has the lowest score of its response.",
    )
    yield _step_table(
        comparison,
        metrics,
        {"step_auc": "steps", "response_auc": "responses", "response_auc_within_problems": "inside problems"},
        title="Areas under the ROC curve",
        note="Right steps above first errors; right responses above wrong ones, over all responses, and inside each "
        "problem that has both, on average. Best-of-N chooses inside problems.",
    )


def cost_tables(comparison: Comparison, costs: Mapping[str, MethodCost]) -> Iterator[Table]:
    """What it takes to have each reward model in FLOPs, and in work; and to score a response with it."""
    base = costs.get(comparison.against or "")
    whole, published = (base.all_in, base.published) if base is not None else (None, None)
    yield Table(
        title="Cost of development, FLOPs",
        note=_COST_NOTE,
        header=("reward model", "all in", "ratio", "of that step labels", "as published", "ratio as published"),
        rows=tuple(
            (
                _titled(comparison, name),
                _number(bill.all_in, ".3g"),
                _number(_ratio(bill.all_in, whole), ".2f"),
                _number(bill.labels, ".3g"),
                _number(bill.published, ".3g"),
                _number(_ratio(bill.published, published), ".2f"),
            )
            for name, bill in costs.items()
        ),
    )
    yield Table(
        title="Work of development, and cost of a scored response",
        note=_WORK_NOTE,
        header=("reward model", "seconds", "tokens drawn", "tokens trained on", "FLOPs a response", "ms a response"),
        rows=tuple(
            (
                _titled(comparison, name),
                _number(bill.seconds, ".0f"),
                _number(bill.drawn_tokens, ",.0f"),
                _number(bill.trained_tokens, ",.0f"),
                _number(bill.scoring_flops, ".3g"),
                _number(bill.scoring_seconds and 1000 * bill.scoring_seconds, ".2f"),
            )
            for name, bill in costs.items()
        ),
    )


def _left_out(left_out: Mapping[Place, int]) -> str:
    counted = ", ".join(f"{place.generator} @{place.n} {count}" for place, count in left_out.items())
    return f" Left out, for want of N responses with scores of every method: {counted}." if counted else ""


def _weights(comparison: Comparison, weightings: Mapping[str, str]) -> str:
    """`Weights: sigmoid; standardised of ...`, the most frequent first and without names."""
    by_weighting: dict[str, list[str]] = {}
    for name, weighting in weightings.items():
        by_weighting.setdefault(weighting, []).append(_titled(comparison, name).value)
    if not by_weighting:
        return "Accuracies are expectations over ties."
    first, *others = sorted(by_weighting, key=lambda weighting: -len(by_weighting[weighting]))
    said = "; ".join([first, *(f"{weighting} of {', '.join(by_weighting[weighting])}" for weighting in others)])
    return f"Weights, by what the scores are: {said}. Accuracies are expectations over ties."


def _step_table(
    comparison: Comparison, metrics: Sequence[Metric], columns: Mapping[str, str], *, title: str, note: str
) -> Table:
    found = {(m.scorer, m.metric, m.group): m for m in metrics if m.metric in columns}
    rows = []
    sources = [*comparison.generators, *comparison.benchmarks]
    sources = [who for who in sources if any(group == f"generator={who}" for _, _, group in found)]
    for name in comparison.methods:
        places = [(name, metric, f"generator={who}") for metric in columns for who in sources]
        if any(place in found for place in places):
            rows.append((_titled(comparison, name), *(metric_cell(found.get(place)) for place in places)))
    header = [f"{text}, {who}" for text in columns.values() for who in sources]
    return Table(title=title, note=note, header=("reward model", *header), rows=tuple(rows))


def _column_names(comparison: Comparison) -> list[str]:
    return [f"{name} @{n}" for name in comparison.generators for n in comparison.sizes]


def _by_column(comparison: Comparison, own: Sequence[Metric]) -> Iterator[Cell]:
    """The cells of a row's columns, then of its average."""
    found = {(metric.group, metric.n): metric for metric in own}
    for name in comparison.generators:
        yield from (metric_cell(found.get((f"generator={name}", n))) for n in comparison.sizes)
    yield metric_cell(found.get((None, None)))


def _family(metric: Metric) -> str:
    return str(metric.selector).partition("/")[0]


def _titled(comparison: Comparison, name: str) -> Cell:
    return Cell(comparison.methods[name].title or name)


def _title(text: str) -> str:
    return text[:1].upper() + text[1:]


def _ratio(value: float | None, base: float | None) -> float | None:
    return value / base if value is not None and base else None


def _number(value: float | None, spec: str) -> Cell:
    return Cell(NONE if value is None else format(value, spec))
