"""The page of a comparison of cost: one self-contained HTML text of tables and figures."""

from collections.abc import Iterable, Sequence
from html import escape
from importlib.resources import files

from freeprm.experiments.cost.tables import TextTable
from freeprm.report.svg import element


def page(title: str, *, command: str, tables: Sequence[TextTable], figures: Sequence[str], notes: Sequence[str]) -> str:
    """The whole page; equal contents give equal bytes."""
    css = files("freeprm.report").joinpath("report.css").read_text(encoding="utf-8")
    head = [
        '<meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">',
        element("title", escape(title)),
        element("style", css),
    ]
    body = [
        element("h1", escape(title)),
        element("pre", element("code", escape(command))),
        *[element("section", figure, id=f"figure-{place}") for place, figure in enumerate(figures)],
        *[
            element("section", element("h2", escape(table.title)), html_table(table), id=f"table-{place}")
            for place, table in enumerate(tables)
        ],
        *([element("section", element("h2", "Notes"), _listed(notes), id="notes")] if notes else []),
    ]
    return (
        "<!DOCTYPE html>\n"
        + element("html", element("head", *head), element("body", element("main", *body)), lang="en")
        + "\n"
    )


def html_table(table: TextTable) -> str:
    """The table with its note."""
    head = element("tr", *[element("th", escape(name), scope="col") for name in table.columns])
    rows = [
        element(
            "tr",
            element("th", escape(first), scope="row"),
            *[element("td", escape(cell), class_="num") for cell in cells],
        )
        for first, *cells in table.rows
    ]
    note = element("p", escape(table.note), class_="note") if table.note else ""
    whole = element("table", element("thead", head), element("tbody", *rows))
    return note + element("div", whole, class_="scroll", tabindex="0")


def _listed(notes: Iterable[str]) -> str:
    return element("ul", *[element("li", escape(note)) for note in notes])
