import pytest

from freeprm.report.wording import interval_text, metric_label, selector_label, value_text
from freeprm.types import Metric


@pytest.mark.parametrize(
    ("selector", "label"),
    [
        ("majority", "majority vote"),
        ("best_of_n/min", "best-of-N, min over steps"),
        ("weighted_vote/score", "weighted vote, by its one score"),
        ("best_of_n/min - majority", "best-of-N, min over steps − majority vote"),
        ("anothers_own", "anothers own"),
    ],
)
def test_selector_label_reads_as_words(selector: str, label: str):
    assert selector_label(selector) == label


@pytest.mark.parametrize(
    ("metric", "label", "value", "interval"),
    [
        ("accuracy", "Accuracy, %", "12.5", "[6.2, 25.0]"),
        ("accuracy_difference", "Accuracy, points", "+12.5", "[+6.2, +25.0]"),
        ("processbench_f1", "ProcessBench F1, %", "12.5", "[6.2, 25.0]"),
        ("step_auc", "Step AUC", "0.125", "[0.062, 0.250]"),
        ("step_auc_difference", "Step AUC", "+0.125", "[+0.062, +0.250]"),
    ],
)
def test_shares_are_percent_and_differences_signed_points(metric: str, label: str, value: str, interval: str):
    row = Metric(metric=metric, value=0.125, low=0.0625, high=0.25, count=8)
    assert (metric_label(row), value_text(row), interval_text(row)) == (label, value, interval)


def test_a_metric_says_by_which_threshold_it_was_decided():
    row = Metric(metric="processbench_f1", selector="threshold=dev", value=0.5, count=8)
    assert metric_label(row) == "ProcessBench F1, % (threshold=dev)"


def test_a_difference_that_rounds_to_nothing_is_not_negative():
    assert value_text(Metric(metric="accuracy_difference", value=-0.0004, count=8)) == "+0.0"


def test_a_metric_without_an_interval_has_no_interval_text():
    assert interval_text(Metric(metric="loss", value=1.0, count=1)) == ""


def test_a_small_or_large_number_keeps_its_digits():
    assert value_text(Metric(metric="error", value=1.5e-10, count=1)) == "1.5e−10"
    assert value_text(Metric(metric="tokens", value=123456.0, count=1)) == "1.235e+05"
