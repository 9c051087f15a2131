"""The result in one sentence, and whether what was claimed beforehand holds."""

from collections.abc import Sequence
from html import escape

from freeprm.report.content import Claim
from freeprm.report.svg import element
from freeprm.report.wording import ACCURACY, interval_text, selector_label, value_text
from freeprm.types import Metric


def headline(claim: Claim, metrics: Sequence[Metric]) -> str:
    """The sentence and the verdict.

    The claim holds if the paired interval of every difference lies above zero; otherwise the verdict
    names the baselines that are not beaten.
    """
    holds = not unbeaten(claim)
    return element(
        "div",
        element("p", _sentence(claim, metrics), class_="result"),
        element("p", verdict(claim), class_="verdict right" if holds else "verdict wrong"),
        class_="headline",
    )


def verdict(claim: Claim) -> str:
    """Markup that says whether the claim holds, and if not, where it fails."""
    failed = unbeaten(claim)
    if not failed:
        return "The claim holds: every paired 95 % interval lies above zero."
    names = " and ".join(escape(f"{name} ({value_text(row)} {interval_text(row)})") for name, row in failed.items())
    return f"The claim does not hold on this run: no gain that is clear of chance over {names}."


def unbeaten(claim: Claim) -> dict[str, Metric]:
    """Baselines whose difference is not clearly above zero; one without an interval counts as not beaten."""
    return {name: row for name, row in claim.differences.items() if row.low is None or row.low <= 0}


def _sentence(claim: Claim, metrics: Sequence[Metric]) -> str:
    gains = [
        f"{element('b', value_text(row) + ' points')} {interval_text(row)} against {escape(name)}"
        for name, row in claim.differences.items()
    ]
    how = escape(f"{claim.scorer}, {selector_label(claim.selector)}, N = {claim.n}")
    found = _accuracy(claim, metrics)
    if found is None:
        return f"{how}: {', '.join(gains)}."
    level = f"{element('b', value_text(found) + ' %')} {interval_text(found)} of {found.count:,} problems right"
    return f"{level} with {how}: {', '.join(gains)}."


def _accuracy(claim: Claim, metrics: Sequence[Metric]) -> Metric | None:
    wanted = (ACCURACY, claim.scorer, claim.selector, claim.n, None)
    return next((m for m in metrics if (m.metric, m.scorer, m.selector, m.n, m.group) == wanted), None)
