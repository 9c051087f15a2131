import pytest

from freeprm.report.arrange import (
    accuracy_grid,
    breakdowns,
    differences,
    other_differences,
    others,
    others_at_n,
    ties,
    vote_weights,
)
from freeprm.types import Metric


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
        accuracy(0.5, 4, "majority"),
        accuracy(0.5, 4, "majority", group="level=1"),
        Metric(
            metric="accuracy_difference", value=0.1, n=4, selector="best_of_n/min - majority", scorer="ce", count=10
        ),
        Metric(
            metric="accuracy_difference", value=0.1, n=16, selector="best_of_n/min - majority", scorer="ce", count=10
        ),
        Metric(metric="step_auc", value=0.9, scorer="ce", count=10),
        Metric(metric="step_auc", value=0.8, scorer="ce", group="level=1", count=10),
        Metric(metric="step_auc_difference", value=0.1, scorer="ce - dpo", count=10),
        Metric(metric="processbench_f1", value=0.6, scorer="ce", selector="threshold=dev", count=10),
        Metric(metric="processbench_f1", value=0.7, scorer="ce", selector="threshold=oracle", count=10),
        Metric(metric="accuracy", value=0.9, scorer="ce", count=10),
    ]
    shown = [cell for row in accuracy_grid(rows).rows for cell in row.cells.values()]
    for pivot in (differences(rows), other_differences(rows), breakdowns(rows), others(rows)):
        shown += [cell for cells in pivot.rows.values() for cell in cells if cell is not None]
    assert sorted(map(repr, shown)) == sorted(map(repr, rows))
    assert differences(rows).columns == ["N = 4", "N = 16"]


def test_the_longer_side_goes_down_the_page():
    rows = [Metric(metric=name, value=1.0, scorer=scorer, count=1) for scorer in ("a", "b") for name in ("x", "y", "z")]
    assert others(rows).columns == ["a", "b"]
    assert others([Metric(metric="x", value=1.0, scorer=scorer, count=1) for scorer in ("a", "b")]).columns == ["X"]


def test_what_else_was_measured_of_a_choice_stands_by_n():
    rows = [
        Metric(metric="tokens_scored", value=0.5, scorer="a", selector="best_of_n/min", n=n, count=1) for n in (4, 64)
    ]
    assert others_at_n(rows).columns == ["N = 4", "N = 64"]
    assert [cell and cell.n for row in others_at_n(rows).rows.values() for cell in row] == [4, 64]
    assert not others(rows).rows


def test_only_choices_that_were_ever_tied_are_shown():
    metrics = [
        Metric(metric="tied", value=value, scorer="ce", selector=selector, n=n, count=1)
        for selector, values in {"best_of_n/min": (0.0, 0.4), "weighted_vote/min": (0.0, 0.0)}.items()
        for n, value in zip((1, 4), values, strict=True)
    ]
    table = ties(metrics)
    assert (table.columns, list(table.rows)) == (["N = 1", "N = 4"], ["ce: best-of-N, min over steps"])
    assert others_at_n(metrics).rows == {}


def test_weights_of_votes_are_named_once_where_all_scorers_have_the_same():
    votes = [Metric(metric="accuracy", value=0.5, scorer=name, weighting="sigmoid", count=1) for name in ("a", "b")]
    assert vote_weights(votes) == "sigmoid"
    votes.append(Metric(metric="accuracy", value=0.5, scorer="c", weighting="raw", count=1))
    assert vote_weights(votes) == "sigmoid of a, sigmoid of b, raw of c"
    assert vote_weights([]) == ""
