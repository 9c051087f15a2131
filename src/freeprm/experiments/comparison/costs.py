"""What each method costs: the bills of `freeprm cost`, for the scores of every method of a comparison."""

from collections.abc import Mapping
from dataclasses import dataclass

from freeprm.core.cost_conventions import ALL_IN, AS_PUBLISHED, under
from freeprm.core.ledger import DEVELOPMENT, TRAINING, USE, Ledger, Total
from freeprm.experiments.comparison.folders import Folders, test_split
from freeprm.experiments.comparison.settings import Comparison
from freeprm.experiments.cost.bills import bill
from freeprm.io.costs import read_cost
from freeprm.io.runs import read_manifest
from freeprm.types import Cost


@dataclass(frozen=True, slots=True, kw_only=True)
class MethodCost:
    """The bill of one method. A figure is None where it is not known, or where there is nothing of the kind."""

    all_in: float | None
    """FLOPs of development: rollouts, step labels, the reference and training, those of earlier stages included."""
    published: float | None
    """The same as the paper charges it; see `freeprm.core.cost_conventions`."""
    labels: float | None
    """FLOPs of making step labels, as far as they are in `all_in`."""
    seconds: float | None
    """Of development."""
    drawn_tokens: float | None
    """Tokens generated for it."""
    trained_tokens: float | None
    """Tokens passed forward and backward."""
    scoring_flops: float | None
    """FLOPs a scored response, over all generators."""
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
    scored = [folders.scores(name, test_split(generator)) for generator in comparison.generators]
    responses = sum((read_manifest(folder) or {})["counts"]["scored"] for folder in scored)
    book = bill(scored).ledger
    scoring = book.only(USE).by("stage")["score"].total()
    flops = _flops(scoring)
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
        "all_in": _flops(under(ALL_IN, book).total()),
        "published": _flops(under(AS_PUBLISHED, book).total()),
        "labels": _flops(annotation.total()) if annotation.entries else None,
        "seconds": made.total().seconds,
        "drawn_tokens": _tokens(made, "decode"),
        "trained_tokens": _tokens(made, TRAINING),
    }


def _tokens(book: Ledger, what: str) -> int:
    return book.by("what").get(what, Ledger()).total().tokens


def _flops(total: Total) -> float | None:
    return None if total.n_unknown else float(total.flops)
