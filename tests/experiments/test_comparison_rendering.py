"""Tables of texts in Markdown and on a terminal."""

import io

from rich.console import Console

from freeprm.experiments.comparison.tables import Cell, TextTable, markdown, print_tables

TABLE = TextTable(
    title="Accuracy",
    note="Of 3 problems.",
    header=("model", "base @4", "average"),
    rows=((Cell("CE"), Cell("50.0", "[10.0, 90.0]"), Cell("60.0", "[20.0, 80.0]")),),
    n_names=1,
)


def printed(width: int) -> str:
    stream = io.StringIO()
    print_tables(Console(file=stream, width=width), [TABLE])
    return stream.getvalue()


def test_markdown_has_the_title_the_note_and_intervals_beside_values():
    assert markdown(TABLE) == (
        "## Accuracy\n\nOf 3 problems.\n\n"
        "| model | base @4 | average |\n"
        "| --- | ---: | ---: |\n"
        "| CE | 50.0 [10.0, 90.0] | 60.0 [20.0, 80.0] |"
    )


def test_a_terminal_shows_intervals_under_values_and_only_the_last_where_there_is_no_room():
    wide = printed(80)
    assert "[10.0, 90.0]" in wide
    assert "50.0 [10.0" not in wide
    narrow = printed(30)
    assert "[10.0" not in narrow
    assert "[20.0, 80.0]" in narrow
    assert "50.0" in narrow
