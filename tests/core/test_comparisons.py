import pytest

from freeprm.core.comparisons import Cell, accuracy_metrics, difference_metrics, problems_by_value
from freeprm.core.selectors import Selector

MAJORITY = Cell(Selector(None, "majority"), 4)
A = Cell(Selector("a", "best_of_n/min"), 4)
B = Cell(Selector("b", "best_of_n/min"), 4)
TABLE = {
    MAJORITY: {"p": 0.0, "q": 0.5, "r": 1.0},
    A: {"p": 1.0, "q": 0.5, "r": 1.0},
    B: {"p": 0.5, "q": 0.5},  # has not scored r
}


def test_a_metric_has_value_interval_count_and_who_chose():
    first = next(accuracy_metrics(TABLE, seed=7))
    assert (first.metric, first.scorer, first.selector, first.n) == ("accuracy", None, "majority", 4)
    assert first.value == pytest.approx(0.5)
    assert (first.count, first.seed) == (3, 7)
    assert first.low is not None
    assert first.high is not None
    assert 0.0 <= first.low <= 0.5 <= first.high <= 1.0


def test_a_breakdown_averages_over_its_problems_only_and_leaves_out_empty_cells():
    found = list(accuracy_metrics(TABLE, seed=0, problems=frozenset("r"), group="level=3"))
    assert [(m.scorer, m.value, m.count, m.group) for m in found] == [
        (None, 1.0, 1, "level=3"), ("a", 1.0, 1, "level=3"),
    ]  # fmt: skip


def test_differences_are_over_the_problems_that_both_have():
    found = {(m.scorer, m.selector): m for m in difference_metrics(TABLE, seed=0)}
    assert set(found) == {
        ("a", "best_of_n/min - majority"), ("b", "best_of_n/min - majority"), ("a - b", "best_of_n/min"),
    }  # fmt: skip
    assert found["a", "best_of_n/min - majority"].value == pytest.approx(1 / 3)  # (1 + 0 + 0) / 3
    assert found["a - b", "best_of_n/min"].value == pytest.approx(0.25)  # (0.5 + 0) / 2
    assert found["a - b", "best_of_n/min"].count == 2


def test_scorers_are_compared_with_the_same_selector_or_with_one_score_a_response():
    names = ("best_of_n/min", "best_of_n/mean", "weighted_vote/min")
    cells = [Cell(Selector("steps", name), 2) for name in names]
    cells += [Cell(Selector("whole", "best_of_n/score"), 2), Cell(Selector("whole", "best_of_n/score"), 4)]
    found = [(m.scorer, m.selector, m.n) for m in difference_metrics({cell: {"p": 1.0} for cell in cells}, seed=0)]
    assert found == [
        ("steps - whole", "best_of_n/min - best_of_n/score", 2),
        ("steps - whole", "best_of_n/mean - best_of_n/score", 2),
    ]


def test_problems_are_gathered_by_value():
    assert problems_by_value({"p": 2, "q": 1, "r": 2}, "level") == {
        "level=1": frozenset("q"), "level=2": frozenset("pr"),
    }  # fmt: skip
