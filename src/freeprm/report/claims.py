"""Finding, among a selection's metrics, the paired differences that a claim stands or falls with."""

from collections.abc import Iterable
from dataclasses import replace

from freeprm.errors import DataError
from freeprm.report.content import Claim
from freeprm.report.wording import selector_label
from freeprm.types import Metric


def claim_over(metrics: Iterable[Metric], *, scorer: str, selector: str, n: int, baseline: str) -> Claim:
    """The claim that a scorer beats majority vote, and the baseline scorer with the same selector, at N.

    Args:
        metrics: with `accuracy_difference` rows as selection writes them: `ce` by `best_of_n/min - majority`, and
            `ce - reference` (or the other way round) by `best_of_n/min`.
        scorer: the reward model.
        selector: how it chooses.
        n: responses to choose from.
        baseline: the scorer to beat, e.g. the untrained reference.

    Raises:
        DataError: there is no such difference.
    """
    rows = {
        (row.scorer, row.selector): row
        for row in metrics
        if row.metric == "accuracy_difference" and row.n == n and row.group is None
    }
    over_majority = rows.get((scorer, f"{selector} - majority"))
    over_baseline = rows.get((f"{scorer} - {baseline}", selector))
    turned = rows.get((f"{baseline} - {scorer}", selector))
    if over_baseline is None and turned is not None:
        over_baseline = _negated(turned)
    if over_majority is None or over_baseline is None:
        missing = "majority" if over_majority is None else baseline
        raise DataError(
            f"no paired difference of {scorer} over {missing} by {selector} at N = {n}; select with both, at that N"
        )
    label = f"{baseline}, {selector_label(selector)}"
    return Claim(
        scorer=scorer, selector=selector, n=n, differences={"majority vote": over_majority, label: over_baseline}
    )


def _negated(row: Metric) -> Metric:
    low, high = (None if bound is None else -bound for bound in (row.high, row.low))
    return replace(row, value=-row.value, low=low, high=high)
