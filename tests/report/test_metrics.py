"""Metrics in words, and in tables."""

import pytest

from freeprm.core.curation import Operation
from freeprm.core.groups import Size
from freeprm.report.metrics import (
    accuracy_grid,
    cost_table,
    half_width_text,
    interval_text,
    metric_cell,
    metric_label,
    metric_tables,
    operations_table,
    selector_label,
    value_text,
    vote_weights,
)
from freeprm.report.table import NONE
from freeprm.types import Cost, Metric


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


def accuracy(value: float, n: int, selector: str, scorer: str | None = None, **more: object) -> Metric:
    return Metric(metric="accuracy", value=value, n=n, selector=selector, scorer=scorer, count=10, **more)  # type: ignore[arg-type]  # toy rows


def test_grid_has_a_row_for_each_scorer_and_selector_those_without_a_scorer_first():
    grid = accuracy_grid(
        [
            accuracy(0.5, 4, "best_of_n/min", "ce"),
            accuracy(0.5, 4, "weighted_vote/min", "ce"),
            accuracy(0.4, 1, "best_of_n/min", "ref"),
            accuracy(0.4, 1, "majority"),
        ]
    )
    assert grid.ns == [1, 4]
    assert [(row.selector, row.scorer) for row in grid.rows] == [
        ("majority", None),
        ("best_of_n/min", "ce"),
        ("best_of_n/min", "ref"),
        ("weighted_vote/min", "ce"),
    ]


def test_best_is_the_highest_of_what_does_not_know_the_answer():
    grid = accuracy_grid(
        [accuracy(0.9, 4, "oracle"), accuracy(0.4, 4, "majority"), accuracy(0.6, 4, "best_of_n/min", "ce")]
    )
    assert [grid.is_best(row, 4) for row in grid.rows] == [False, False, True]


def test_nothing_is_best_where_all_are_equal():
    grid = accuracy_grid([accuracy(0.4, 1, "majority"), accuracy(0.4, 1, "best_of_n/min", "ce")])
    assert not any(grid.is_best(row, 1) for row in grid.rows)


def test_seeds_become_rows_where_there_are_several():
    rows = accuracy_grid([accuracy(0.4 + seed / 10, 4, "majority", "ce", seed=seed) for seed in (0, 1)]).rows
    assert [row.scorer for row in rows] == ["ce, seed 0", "ce, seed 1"]
    assert accuracy_grid([accuracy(0.4, 4, "majority", "ce", seed=0)]).rows[0].scorer == "ce"


@pytest.mark.parametrize(("oracle", "rows"), [(0.8, ["oracle", "pass_at_k"]), (0.9, ["pass_at_k"])])
def test_the_oracle_is_not_shown_twice_where_it_is_pass_at_k(oracle: float, rows: list[str]):
    passed = Metric(metric="pass_at_k", value=0.9, n=4, selector="oracle", count=10)
    assert [row.selector for row in accuracy_grid([accuracy(oracle, 4, "oracle"), passed]).rows] == rows


def test_every_metric_is_in_exactly_one_table():
    rows = [
        accuracy(0.51, 4, "majority"),
        accuracy(0.52, 4, "majority", group="level=1"),
        Metric(
            metric="accuracy_difference", value=0.1, n=4, selector="best_of_n/min - majority", scorer="ce", count=10
        ),
        Metric(
            metric="accuracy_difference", value=0.2, n=16, selector="best_of_n/min - majority", scorer="ce", count=10
        ),
        Metric(metric="tied", value=0.25, n=4, selector="best_of_n/min", scorer="ce", count=10),
        Metric(metric="tied", value=0.26, n=4, selector="best_of_n/min", scorer="ce", group="level=1", count=10),
        Metric(metric="tokens_scored", value=0.44, n=4, selector="best_of_n/min", scorer="ce", count=10),
        Metric(metric="step_auc", value=0.9, scorer="ce", count=10),
        Metric(metric="step_auc", value=0.8, scorer="ce", group="level=1", count=10),
        Metric(metric="step_auc_difference", value=0.1, scorer="ce - dpo", count=10),
        Metric(metric="processbench_f1", value=0.6, scorer="ce", selector="threshold=dev", count=10),
        Metric(metric="processbench_f1", value=0.7, scorer="ce", selector="threshold=oracle", count=10),
        Metric(metric="accuracy", value=0.95, scorer="ce", count=10),
    ]
    tables = metric_tables(rows)
    assert list(tables) == [
        "accuracy", "ties", "differences", "measures at N", "measures", "other differences", "breakdown",
    ]  # fmt: skip
    cells = [cell.value for table in tables.values() for row in table.rows for cell in row[1:] if cell.value != NONE]
    assert sorted(cells) == sorted(map(value_text, rows))
    assert tables["differences"].header == ("compared", "N = 4", "N = 16")


def test_rows_of_one_choice_stand_below_its_name():
    table = metric_tables([accuracy(0.5, 4, "best_of_n/min", "ce"), accuracy(0.4, 4, "majority")])["accuracy"]
    assert [[cell.value for cell in row] for row in table.rows] == [
        ["without a scorer"], ["majority vote", "40.0"], ["best-of-N, min over steps"], ["ce", "50.0"],
    ]  # fmt: skip
    assert [cell.mark for row in table.rows for cell in row[1:]] == ["", "best"]


def test_the_longer_side_goes_down_the_page():
    rows = [Metric(metric=name, value=1.0, scorer=scorer, count=1) for scorer in ("a", "b") for name in ("x", "y", "z")]
    assert metric_tables(rows)["measures"].header == ("measure", "a", "b")
    rows = [Metric(metric="x", value=1.0, scorer=scorer, count=1) for scorer in ("a", "b")]
    assert metric_tables(rows)["measures"].header == ("measure", "X")


def test_what_else_was_measured_of_a_choice_stands_by_n():
    rows = [
        Metric(metric="tokens_scored", value=0.5, scorer="a", selector="best_of_n/min", n=n, count=1) for n in (4, 64)
    ]
    tables = metric_tables(rows)
    assert list(tables) == ["measures at N"]
    assert tables["measures at N"].header == ("measure", "N = 4", "N = 64")
    assert len(tables["measures at N"].rows[-1]) == 3


def test_only_choices_that_were_ever_tied_are_shown():
    metrics = [
        Metric(metric="tied", value=value, scorer="ce", selector=selector, n=n, count=1)
        for selector, values in {"best_of_n/min": (0.0, 0.4), "weighted_vote/min": (0.0, 0.0)}.items()
        for n, value in zip((1, 4), values, strict=True)
    ]
    tables = metric_tables(metrics)
    assert list(tables) == ["ties"]
    assert [row[0].value for row in tables["ties"].rows] == ["best-of-N, min over steps", "ce"]


@pytest.mark.parametrize(
    ("bounds", "mark"), [((0.01, 0.2), "gain"), ((-0.2, -0.01), "loss"), ((0.0, 0.2), ""), ((None, None), "")]
)
def test_a_difference_clear_of_zero_is_set_off(bounds: tuple[float | None, float | None], mark: str):
    row = Metric(metric="accuracy_difference", value=0.1, low=bounds[0], high=bounds[1], count=9)
    assert metric_cell(row).mark == mark


def test_weights_of_votes_are_named_once_where_all_scorers_have_the_same():
    votes = [Metric(metric="accuracy", value=0.5, scorer=name, weighting="sigmoid", count=1) for name in ("a", "b")]
    assert vote_weights(votes) == "sigmoid"
    votes.append(Metric(metric="accuracy", value=0.5, scorer="c", weighting="raw", count=1))
    assert vote_weights(votes) == "sigmoid of a, sigmoid of b, raw of c"
    assert vote_weights([]) == ""


def test_a_size_that_changed_is_shown_before_and_after_with_every_reason():
    table = operations_table([
        Operation(
            name="deduplicate 0.8", before=Size(problems=3, responses=1200, pairs=9),
            after=Size(problems=3, responses=1100, pairs=8), left_out={"repeated responses": 100},
            noted={"repeated responses with another label": 4},
        )
    ])  # fmt: skip
    assert table.header == ("data", "problems", "responses", "pairs", "left out")
    assert [[cell.value for cell in row] for row in table.rows] == [[
        "deduplicate 0.8", "3", "1,200 → 1,100", "9 → 8",
        "100 repeated responses\nnoted: 4 repeated responses with another label",
    ]]  # fmt: skip


def test_nothing_done_is_an_empty_table():
    assert operations_table([]).rows == ()


def test_costs_are_summed():
    costs = {"fit": Cost(seconds=1.5, flops=2e12, trained_tokens=1000), "score": Cost(seconds=0.5, flops=1e12)}
    assert [cell.value for cell in cost_table(costs).rows[-1]] == ["all stages", "2.0", "3 T", "–", "–", "1,000"]


@pytest.mark.parametrize(("metric", "text"), [("accuracy", "±3.8"), ("accuracy_difference", "±3.8"), ("auc", "±0.038")])
def test_half_widths_have_the_unit_of_the_value_and_no_sign(metric: str, text: str):
    assert half_width_text(Metric(metric=metric, value=0.1, low=0.062, high=0.138, count=8)) == text
    assert half_width_text(Metric(metric=metric, value=0.1, count=8)) == ""
