"""One table: in Markdown, and on terminals of several widths."""

import io

import pytest
from rich.cells import cell_len
from rich.console import Console

from freeprm.report.metrics import metric_tables
from freeprm.report.table import Cell, Table, markdown, print_tables, texts
from freeprm.types import Metric

TABLE = Table(
    title="Accuracy",
    note="Of 3 problems.",
    header=("model", "base @4", "average"),
    rows=(
        (Cell("trained"),),
        (Cell("CE"), Cell("50.0", "[10.0, 90.0]", "±40.0"), Cell("60.0", "[20.0, 80.0]", "±30.0", "best")),
    ),
)


def printed(*tables: Table, width: int) -> str:
    stream = io.StringIO()
    print_tables(Console(file=stream, width=width), tables)
    return stream.getvalue()


def test_markdown_has_the_title_the_note_and_intervals_beside_values():
    assert markdown(TABLE) == (
        "## Accuracy\n\nOf 3 problems.\n\n"
        "| model | base @4 | average |\n"
        "| --- | ---: | ---: |\n"
        "| trained |  |  |\n"
        "| CE | 50.0 [10.0, 90.0] | 60.0 [20.0, 80.0] |"
    )


def test_a_wide_terminal_shows_both_ends_of_every_interval_beside_its_value():
    assert printed(TABLE, width=60).splitlines() == [
        "Accuracy",
        "  model               base @4            average",
        "trained",
        "  CE        50.0 [10.0, 90.0]  60.0 [20.0, 80.0]",
        "Of 3 problems.",
        "",
    ]


def test_intervals_give_way_to_half_widths_and_a_line_says_so():
    half = printed(TABLE, width=40)
    assert "50.0 ±40.0  60.0 ±30.0" in half
    assert "±: half the width of the 95 % interval." in half


def test_a_table_too_wide_for_the_terminal_is_printed_in_parts_that_keep_every_column_and_interval():
    assert printed(TABLE, width=22).splitlines() == [
        "Accuracy",
        "  model        base @4",
        "trained",
        "  CE        50.0 ±40.0",
        "",
        "  model        average",
        "trained",
        "  CE        60.0 ±30.0",
        "Of 3 problems.",
        "±: half the width of ",
        "the 95 % interval. A ",
        "wider terminal shows ",
        "both ends.",
        "",
    ]


def test_parts_take_as_many_columns_as_fit():
    table = Table(header=("name", "a", "b", "c"), rows=(texts("x", "10", "20", "30"),))
    assert [line.split() for line in printed(table, width=12).splitlines()] == [
        ["name", "a", "b"], ["x", "10", "20"], [], ["name", "c"], ["x", "30"], [],
    ]  # fmt: skip


def test_a_name_that_is_too_long_is_cut_rather_than_its_numbers():
    table = Table(header=("name", "value"), rows=(texts("a name of some length", "12345"),))
    assert printed(table, width=20).splitlines()[1] == "a name of so…  12345"


def test_headers_take_several_lines_where_that_makes_room_but_n_stays_with_its_number():
    table = Table(header=("", "tokens trained on", "N = 64"), rows=(texts("x", "1,234,567", "61.5"),))
    lines = printed(table, width=20).splitlines()
    assert [line.split() for line in lines[:3]] == [["tokens"], ["trained"], ["on", "N", "=", "64"]] or [
        line.split() for line in lines[:2]
    ] == [["tokens"], ["trained", "on", "N", "=", "64"]]
    assert lines[-2].split() == ["x", "1,234,567", "61.5"]


def accuracy(value: float, n: int, selector: str = "best_of_n/min", scorer: str | None = "ce with-reference") -> Metric:
    return Metric(
        metric="accuracy", value=value, low=value - 0.06, high=value + 0.06, n=n, scorer=scorer, selector=selector,
        count=200,
    )  # fmt: skip


def difference(scorer: str, selector: str, n: int) -> Metric:
    return Metric(
        metric="accuracy_difference", value=-0.12, low=-0.2, high=-0.04, n=n, scorer=scorer, selector=selector, count=9
    )


SIZES = (1, 4, 16, 64)
METRICS = [
    *(accuracy(0.4 + n / 400, n) for n in SIZES),
    *(accuracy(0.5, n, "weighted_vote/min", "ce without-reference") for n in SIZES),
    *(accuracy(0.5, n, "majority", None) for n in SIZES),
    *(difference("ce with-reference - ce without-reference", "weighted_vote/min", n) for n in SIZES),
    *(difference("ce without-reference", "weighted_vote/min - majority", n) for n in SIZES),
    *(
        Metric(
            metric="processbench_f1", selector="threshold=oracle", value=0.5, low=0.4, high=0.6, count=9, scorer=scorer
        )
        for scorer in ("ce with-reference", "ce without-reference", "reference-only")
    ),
]


def test_on_80_columns_every_row_of_a_demos_metrics_is_one_line_with_all_its_values():
    tables = metric_tables(METRICS)
    for table in tables.values():
        lines = printed(table, width=80).splitlines()
        assert max(map(cell_len, lines)) <= 80
        for row in table.rows:
            assert [line for line in lines if all(cell.value in line for cell in row)], row
    shown = printed(tables["accuracy"], width=80)
    assert "  ce with-reference     40.2 ±6.0  41.0 ±6.0  44.0 ±6.0  56.0 ±6.0" in shown.splitlines()
    assert len(shown.splitlines()) <= 1 + 1 + len(tables["accuracy"].rows) + 3  # title, header, rows, legend


@pytest.mark.parametrize("width", [60, 80, 100, 200])
def test_no_line_is_wider_than_the_terminal(width: int):
    lines = printed(*metric_tables(METRICS).values(), width=width).splitlines()
    assert max(map(cell_len, lines)) <= width


def test_brackets_in_names_are_text_not_markup():
    assert "my[red]scorer" in printed(*metric_tables([accuracy(0.5, 4, scorer="my[red]scorer")]).values(), width=80)


def test_nothing_is_printed_of_nothing():
    assert printed(*metric_tables([]).values(), width=80) == ""
