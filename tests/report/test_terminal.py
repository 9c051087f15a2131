import io

from rich.console import Console

from freeprm.report.terminal import print_metrics
from freeprm.types import Metric


def printed(*metrics: Metric, width: int = 120) -> str:
    console = Console(file=io.StringIO(), width=width)
    print_metrics(console, metrics)
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


def accuracy(value: float, n: int, scorer: str = "ce") -> Metric:
    return Metric(
        metric="accuracy", value=value, low=value - 0.038, high=value + 0.038, n=n, scorer=scorer,
        selector="best_of_n/min", count=200,
    )  # fmt: skip


def test_a_row_has_a_scorer_and_a_selector_and_a_column_for_each_n():
    lines = printed(accuracy(0.61, 64), accuracy(0.55, 4)).splitlines()
    assert lines[0].startswith("accuracy in %, 200 problems")
    assert lines[1].split() == ["scorer", "chosen", "by", "N", "=", "4", "N", "=", "64"]
    assert "ce" in lines[2]
    assert lines[2].index("55.0 [51.2, 58.8]") < lines[2].index("61.0 [57.2, 64.8]")


def test_a_narrow_terminal_loses_no_figure():
    rows = [accuracy(0.1 + n / 100, n) for n in (1, 2, 4, 8, 16)]
    text = printed(*rows, width=80)
    for row in rows:
        assert f"{100 * row.value:.1f}" in text
    assert max(map(len, text.splitlines())) <= 80


def test_differences_and_other_metrics_have_tables_of_their_own():
    gain = Metric(metric="accuracy_difference", value=0.1, low=0.05, high=0.15, n=64, scorer="a - b", count=200)
    text = printed(gain, Metric(metric="step_auc", value=0.9, scorer="ce", count=10))
    assert "+10.0 [+5.0, +15.0]" in text
    assert "Step AUC" in text
    assert "0.900" in text


def test_brackets_in_names_are_text_not_markup():
    assert "my[red]scorer" in printed(accuracy(0.5, 4, scorer="my[red]scorer"))


def test_nothing_is_printed_of_nothing():
    assert printed() == ""
