"""Rows of benchmarks as tables and plots."""

from dataclasses import replace

import pytest

from freeprm.apps.benchmarks.plots import growth_plot
from freeprm.apps.benchmarks.tables import markdown, number, terminal_table
from freeprm.bench.base import Row

ROW = Row(
    name="growth/N: 50M, N=4", ours=1.5, peer=3.0, ratio=2.0, target=3.0, unit="s",
    details={"axis": "N", "x": 4, "meaning": "responses a prompt", "hardware": "2 cores", "command": "freeprm bench"},
)  # fmt: skip
MISSING = replace(ROW, name="gpu/scoring", ours=None, ratio=None, missing="no CUDA device here")


def test_the_page_has_a_table_a_subject_and_says_why_a_figure_is_missing():
    page = markdown([ROW, MISSING])
    assert page.count("Taken on 2 cores, with `freeprm bench`.") == 1
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
