"""The page: one self-contained HTML text without scripts or anything to load, from a `Report`."""

from html import escape
from importlib.resources import files

from freeprm.report.arrange import (
    Pivot,
    accuracy_grid,
    breakdowns,
    differences,
    other_differences,
    others,
    others_at_n,
    ties,
    vote_weights,
)
from freeprm.report.content import Report
from freeprm.report.figures import accuracy_figures, training_figures
from freeprm.report.headline import headline
from freeprm.report.plots import BANDED_LINES
from freeprm.report.solutions import solutions_page
from freeprm.report.svg import element
from freeprm.report.tables import accuracy_table, cost_table, metric_table, settings_table

_TABLE_NOTE = (
    "95 % intervals under each value. The best value of each column is marked, rows that know the gold answer aside. "
    "At N = 1 every row is the accuracy of a single response (pass@1). "
    f"Plots of more than {BANDED_LINES} lines leave the intervals to the table."
)
_NULL_NOTE = (
    "Random distinct text is what a scorer gets that knows nothing inside a problem: equal texts have equal scores, so "
    "it chooses among different texts, and right ones repeat more often than wrong ones."
)
_TIES_NOTE = (
    "How often a choice shared the first place with another text, or a vote with another answer, in % of the problems. "
    "Accuracies are expectations over these ties; what is never tied is not in the table."
)
_DIFFERENCE_NOTE = (
    "In points, with 95 % intervals, paired over the same problems so that what both share cancels; "
    "positive where the first is better, and set off in colour and weight where the interval lies off zero."
)
_OTHER_DIFFERENCE_NOTE = "Paired differences of these measures, on the same responses."
_OTHERS_NOTE = "Where the truth of each step is used, it was used here only: no training label told it."
_SOLUTION_NOTE = (
    "Each step carries its reward, the log-ratio of its tokens: blue where the reward model finds it better than the "
    "reference does, orange where worse. The first truly wrong step is labelled."
)


def render(report: Report) -> str:
    """The whole page. Equal reports give equal bytes; a section without data is left out.

    Raises:
        NonFiniteError: a plotted value is NaN or infinite.
    """
    sections = {title: body for title, body in _sections(report).items() if body}
    contents = [element("a", title, href=f"#{_anchor(title)}") for title in sections]
    body = [
        element(
            "header", element("h1", escape(report.title)), _command(report.command), _disclosure(report.disclosure)
        ),
        headline(report.claim, report.metrics) if report.claim else "",
        element("nav", *contents, aria_label="sections") if len(contents) > 1 else "",
        *[element("section", element("h2", title), body, id=_anchor(title)) for title, body in sections.items()],
    ]
    head = [
        '<meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">'
        '<meta name="color-scheme" content="light dark">',
        element("title", escape(report.title)),
        element("style", files("freeprm.report").joinpath("report.css").read_text(encoding="utf-8")),
    ]
    return (
        "<!DOCTYPE html>\n"
        + element("html", element("head", *head), element("body", element("main", *body)), lang="en")
        + "\n"
    )


def _sections(report: Report) -> dict[str, str]:
    return {
        "Accuracy": _accuracy(report),
        "Ties": _pivot(ties(report.metrics), _TIES_NOTE, corner="choice"),
        "Paired differences": _pivot(differences(report.metrics), _DIFFERENCE_NOTE, corner="compared"),
        "Step level and other measures": _pivot(others(report.metrics), _OTHERS_NOTE, corner="measure")
        + _pivot(others_at_n(report.metrics), _OTHERS_NOTE, corner="measure")
        + _pivot(other_differences(report.metrics), _OTHER_DIFFERENCE_NOTE, corner="difference"),
        "Breakdown": _folded(breakdowns(report.metrics)),
        "Training": training_figures(report.curves),
        "Solutions": _noted(_SOLUTION_NOTE, solutions_page(report.solutions)) if report.solutions else "",
        "Cost": cost_table(report.costs) if report.costs else "",
        "Settings": settings_table(report.settings) if report.settings else "",
    }


def _accuracy(report: Report) -> str:
    grid = accuracy_grid(report.metrics)
    if not grid.rows:
        return ""
    weights = vote_weights(report.metrics)
    notes = [
        f"Accuracy in %, over {grid.problems}. {_TABLE_NOTE}",
        *([_NULL_NOTE] if any(row.selector == "random_distinct_text" for row in grid.rows) else []),
        *([f"Weights of votes: {weights}."] if weights else []),
    ]
    return _noted(" ".join(notes), accuracy_table(grid)) + accuracy_figures(grid)


def _pivot(pivot: Pivot, note: str, *, corner: str) -> str:
    return _noted(note, metric_table(pivot, corner=corner)) if pivot.rows else ""


def _folded(pivot: Pivot) -> str:
    if not pivot.rows:
        return ""
    summary = element("summary", f"{len(pivot.rows)} rows: every figure over parts of the split")
    return element("details", summary, metric_table(pivot, corner="part"))


def _noted(note: str, body: str) -> str:
    return element("p", escape(note), class_="note") + body


def _command(command: str) -> str:
    return element("pre", element("code", escape(command)))


def _disclosure(text: str) -> str:
    return element("p", escape(text), class_="disclosure") if text else ""


def _anchor(title: str) -> str:
    return title.lower().replace(" ", "-")
