"""Rows of benchmarks, and rows as tables and plots. No test of benchmarks asserts a time."""

from dataclasses import replace

import pytest

from benchmarks.rows import Row, cheaper, faster, growth_plot, markdown, number, required, terminal_table
from benchmarks.timing import Rate

ROW = Row(
    name="growth/N: 50M, N=4", ours=1.5, peer=3.0, ratio=2.0, target=3.0, unit="s",
    details={
        "axis": "N", "x": 4, "meaning": "responses a prompt", "hardware": "2 cores", "command": "python -m benchmarks",
    },
)  # fmt: skip
MISSING = replace(ROW, name="gpu/scoring", ours=None, ratio=None, missing="no CUDA device here")


def test_a_row_meets_its_target_by_its_ratio():
    row = Row(name="a/b", ours=3.0, peer=1.0, ratio=3.0, target=3.0, unit="tokens/s")
    assert row.met is True
    assert replace(row, ratio=2.9).met is False
    assert replace(row, target=None).met is None
    assert replace(row, ours=None, ratio=None, missing="no GPU").met is None


def test_rows_are_of_medians():
    ours, peer = Rate(amount=12, seconds=(1.0, 2.0, 3.0)), Rate(amount=12, seconds=(4.0, 4.0, 9.0))
    row = faster("a/b", ours=ours, peer=peer, details={"x": 1}, target=2.0)
    assert (row.ours, row.peer, row.ratio) == (6, 3, 2)  # 12 / 2, 12 / 4
    assert row.details["ours_spread"] == (4, 12)
    row = required("a/b", ours=ours, least=8, details={})
    assert (row.peer, row.ratio, row.target, row.met) == (8, 0.75, 1.0, False)


def test_of_two_costs_the_smaller_is_better():
    row = cheaper("a/b", ours=2.0, peer=3.0, unit="s", details={}, target=2.0)
    assert (row.ratio, row.met) == (1.5, False)  # 3 / 2


def test_the_page_has_a_table_a_subject_and_says_why_a_figure_is_missing():
    page = markdown([ROW, MISSING])
    assert page.count("Taken on 2 cores, with `python -m benchmarks`.") == 1
    assert page.index("## Growth") < page.index("## Gpu")
    assert "| growth/N: 50M, N=4 | 1.50 | 3.00 | s | 2.00 | 3.00 | no |" in page
    assert "not measured: no CUDA device here" in page


def test_the_terminals_table_has_all_rows():
    assert terminal_table([ROW, MISSING]).row_count == 2


@pytest.mark.parametrize(
    ("value", "shown"),
    [(None, ""), (0.0, "0"), (12345.6, "12,346"), (1.2345, "1.23"), (12.345, "12.3"), (0.01234, "0.0123")],
)
def test_a_number_has_three_digits_that_count(value, shown):
    assert number(value) == shown


def test_only_what_grew_is_drawn(tmp_path):
    file = tmp_path / "growth.svg"
    assert not growth_plot([replace(ROW, details={})], file)
    assert not file.exists()
    assert growth_plot([ROW, MISSING], file)
    assert "<svg" in file.read_text()
