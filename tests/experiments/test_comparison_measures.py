"""Accuracies of columns and their averages, from what the selection stage writes."""

import io
from dataclasses import asdict, replace
from pathlib import Path

import pytest
from rich.console import Console

from freeprm.errors import DataError
from freeprm.experiments.comparison.measures import (
    BASELINES,
    NULL,
    STEP_METRICS,
    Measured,
    average_difference,
    column_average,
    measured,
    read_accuracies,
)
from freeprm.experiments.comparison.settings import Comparison, Folders, Generator, Method, load_comparison
from freeprm.experiments.comparison.tables import MethodCost, all_tables
from freeprm.experiments.reproduction.claims import ClaimTest, lacking
from freeprm.experiments.reproduction.measuring import SeedRuns, differing
from freeprm.io.files import read_rows
from freeprm.io.rows import write_json, write_rows
from freeprm.report.table import print_tables
from freeprm.types import Metric

COMPARISON = Comparison(
    model="m",
    sizes=(2,),
    against="ce",
    generators={"weak": Generator(model="w"), "strong": Generator(model="s")},
    methods={"ce": Method(train={}, title="CE"), "orm": Method(train={})},
)
# Of two problems: what each way of choosing gets right, first by the weak generator, then by the strong one.
CHOICES = {
    (None, "random"): [(0.0, 0.5), (0.5, 0.5)],
    (None, "random_distinct_text"): [(0.0, 0.5), (0.0, 0.5)],
    (None, "majority"): [(0.0, 1.0), (0.0, 1.0)],
    (None, "oracle"): [(1.0, 1.0), (1.0, 1.0)],
    ("ce", "best_of_n/min"): [(0.0, 1.0), (1.0, 1.0)],
    ("ce", "weighted_vote/min"): [(0.0, 1.0), (0.0, 1.0)],
    ("orm", "best_of_n/score"): [(0.0, 0.0), (1.0, 1.0)],
    ("orm", "weighted_vote/score"): [(0.0, 0.0), (0.0, 1.0)],
}


@pytest.fixture
def folders(tmp_path: Path) -> Folders:
    """Selections of all methods, as the stage leaves them: beside each method's rows stand the baselines'."""
    folders = Folders(tmp_path)
    for index, generator in enumerate(COMPARISON.generators):
        for method in (None, *COMPARISON.methods):
            split = f"test-{generator}"
            rows = [
                {
                    "problem_id": f"p{position}", "scorer": None if scorer is None else f"{scorer} with-reference",
                    "selector": selector, "n": 2, "accuracy": accuracy,
                    **({} if scorer is None else {"tied": 0.5 * position}),
                }
                for (scorer, selector), columns in CHOICES.items() if scorer in (None, method)
                for position, accuracy in enumerate(columns[index])
            ]  # fmt: skip
            folder = folders.baseline(split) if method is None else folders.selection(method, split)
            folder.mkdir(parents=True)
            write_rows(folder / "accuracies.jsonl", rows)
            if method is not None:
                weighting = {"ce": "sigmoid", "orm": "standardised"}[method]
                vote = Metric(metric="accuracy", value=0.5, count=2, selector="weighted_vote/min", weighting=weighting)
                write_json(folder / "metrics.json", [asdict(vote)])
    return folders


def of(metrics: list[Metric], metric: str, scorer: str | None, selector: str, group: str | None = None) -> float:
    [found] = [m for m in metrics if (m.metric, m.scorer, m.selector, m.group) == (metric, scorer, selector, group)]
    return found.value


def test_methods_are_read_by_their_name_and_baselines_once(folders: Folders):
    ways = list(read_accuracies(COMPARISON, folders))
    assert [way.selector for way in ways if way.method is None] == list(BASELINES)
    assert [way.method for way in ways if way.family == "best_of_n"] == ["ce", "orm"]


def test_columns_and_their_average(folders: Folders):
    metrics = measured(COMPARISON, folders, seed=0).metrics
    assert of(metrics, "accuracy", "ce", "best_of_n/min", "generator=weak") == 0.5
    assert of(metrics, "accuracy", "ce", "best_of_n/min") == 0.75  # (0.5 + 1) / 2
    assert of(metrics, "accuracy", None, "random") == 0.375  # (0.25 + 0.5) / 2
    assert {metric.count for metric in metrics} == {2}  # problems, which both generators answered


def test_differences_are_of_the_averages_by_the_same_kind_of_choice(folders: Folders):
    metrics = measured(COMPARISON, folders, seed=0).metrics
    assert of(metrics, "accuracy_difference", "ce", "best_of_n/min - majority") == 0.25  # 0.75 - 0.5
    assert of(metrics, "accuracy_difference", "ce", "best_of_n/min - random_distinct_text") == 0.5  # 0.75 - 0.25
    assert of(metrics, "accuracy_difference", "orm - ce", "best_of_n/score") == -0.25  # 0.5 - 0.75
    assert of(metrics, "accuracy_difference", "orm - ce", "weighted_vote/score") == -0.25  # 0.25 - 0.5
    assert not [metric for metric in metrics if metric.scorer == "ce - ce"]


def test_a_method_that_scores_one_generator_has_that_column_and_no_average(folders: Folders):
    methods = {"ce": COMPARISON.methods["ce"], "orm": Method(train={}, generators=("strong",))}
    comparison = replace(COMPARISON, methods=methods)
    metrics = [metric for metric in measured(comparison, folders, seed=0).metrics if metric.scorer is not None]
    assert of(metrics, "accuracy", "orm", "best_of_n/score", "generator=strong") == 1.0
    assert [m for m in metrics if m.scorer == "ce"] == [
        m for m in measured(COMPARISON, folders, seed=0).metrics if m.scorer == "ce"
    ]
    assert {m.group for m in metrics if "orm" in str(m.scorer)} == {"generator=strong"}
    # 1 - 1: a test of both is on what both scored, and not on CE's 0.75 over two generators.
    runs = SeedRuns(comparison, folders, 0, folders.out)
    assert differing(runs, ClaimTest(measure="best_of_n", first="orm", second="ce")).value == 0.0
    named = ClaimTest(measure="best_of_n", first="orm", second="ce", generators="weak")
    assert lacking(named, comparison) == ["orm's scores of weak"]


def test_step_metrics_are_taken_from_the_evaluation_at_the_threshold_from_dev(folders: Folders):
    folder = folders.evaluation("ce", "test-weak")
    folder.mkdir(parents=True)
    found = [
        Metric(metric="processbench_f1", selector=selector, value=value, count=9, scorer="ce with-reference")
        for selector, value in {"threshold=dev": 0.4, "threshold=oracle": 0.6}.items()
    ]
    write_json(folder / "metrics.json", [{name: getattr(m, name) for name in Metric.__slots__} for m in found])
    metrics = measured(COMPARISON, folders, seed=0).metrics
    assert of(metrics, "processbench_f1", "ce", "threshold=dev", "generator=weak") == 0.4
    assert not [metric for metric in metrics if metric.selector == "threshold=oracle"]


def test_the_tables_have_a_row_a_method_and_a_column_a_generator_and_n(folders: Folders):
    tables = {table.title: table for table in all_tables(COMPARISON, measured(COMPARISON, folders, seed=0), {})}
    table = tables["Best-of-N accuracy, %"]
    assert table.header == ("reward model", "type", "weak @2", "strong @2", "average")
    assert [row[0].value for row in table.rows] == [
        "one response, pass@1", "random distinct text", "majority vote", "any right, pass@N", "CE", "orm"
    ]  # fmt: skip
    assert [cell.value for cell in table.rows[4][2:]] == ["50.0", "100.0", "75.0"]
    assert "First errors" not in tables  # nothing to show
    differences = tables["Paired differences of the averages, points"]
    assert differences.header[1:] == (
        "best-of-N less random distinct text", "best-of-N less majority vote", "weighted vote less majority vote",
        "best-of-N less CE", "weighted vote less CE",
    )  # fmt: skip
    assert [cell.value for cell in differences.rows[1]] == ["orm", "+25.0", "+0.0", "−25.0", "−25.0", "−25.0"]
    # tied: 0 of the first problem and 1/2 of the second
    ties = tables["First place shared, % of problems"]
    assert [cell.value for cell in ties.rows[0]] == ["CE", "25.0", "25.0", "25.0", "25.0"]
    assert "Weights, by what the scores are: sigmoid; standardised of orm." in tables["Weighted vote accuracy, %"].note


def test_a_problem_in_which_some_method_cannot_choose_is_left_out_for_all_and_counted(folders: Folders):
    file = folders.selection("orm", "test-weak") / "accuracies.jsonl"
    rows = [row for _, row in read_rows(file) if row["problem_id"] != "p0"]
    write_rows(file, rows)
    found = measured(COMPARISON, folders, seed=0)
    assert found.left_out == {("weak", 2): 1}
    assert of(found.metrics, "accuracy", "ce", "best_of_n/min", "generator=weak") == 1.0  # of p1 alone
    assert of(found.metrics, "accuracy_difference", "orm - ce", "best_of_n/score") == -0.5  # (0 - 0 + 0 - 1) / 2
    note = all_tables(COMPARISON, found, {})[0].note
    assert note.endswith("Left out, for want of N responses with scores of every method: weak @2 1.")


def test_a_column_without_a_shared_problem_is_refused_with_the_method_that_lacks_them(folders: Folders):
    write_rows(folders.selection("orm", "test-weak") / "accuracies.jsonl", [])
    with pytest.raises(DataError, match=r"weak @2: no problem has 2 responses .*; orm has them for 0 problems"):
        measured(COMPARISON, folders, seed=0)


def test_it_is_the_mean_of_the_columns_means():
    # (1 + 0) / 2 = 0.5 and (1 + 1 + 0.5 + 0.5) / 4 = 0.75; their mean is 0.625, not that of the six values
    columns = [{"a": 1.0, "b": 0.0}, {"a": 1.0, "b": 1.0, "c": 0.5, "d": 0.5}]
    assert column_average(columns, seed=0).value == pytest.approx(0.625)


def test_a_column_repeated_changes_nothing_because_its_problems_are_drawn_together():
    column = {str(index): float(index % 3 == 0) for index in range(30)}
    assert column_average([column] * 9, seed=1) == pytest.approx(column_average([column], seed=1))


def test_columns_that_err_on_opposite_problems_have_no_uncertainty():
    first = {str(index): float(index % 2) for index in range(20)}
    second = {problem: 1 - value for problem, value in first.items()}
    assert column_average([first, second], seed=0) == pytest.approx((0.5, 0.5, 0.5))


def test_a_constant_difference_is_certain_however_the_problems_differ():
    first = {str(index): index / 40 for index in range(20)}
    second = {problem: value + 0.25 for problem, value in first.items()}
    assert average_difference([second, second], [first, first], seed=0) == pytest.approx((0.25, 0.25, 0.25))


def test_other_problems_are_refused():
    with pytest.raises(DataError, match="not measured on the same problems"):
        average_difference([{"a": 1.0}], [{"b": 1.0}], seed=0)
    with pytest.raises(DataError, match="a column without problems"):
        column_average([{"a": 1.0}, {}], seed=0)


def test_on_80_columns_every_row_of_the_packaged_comparison_has_all_its_values_and_intervals():
    comparison = load_comparison()
    columns = [(f"generator={name}", n) for name in comparison.generators for n in comparison.sizes]
    ways = [(name, f"{family}/min") for name in comparison.methods for family in ("best_of_n", "weighted_vote")]
    few = {"value": 0.123, "low": 0.08, "high": 0.166, "count": 200}
    metrics = [
        Metric(metric=metric, scorer=scorer, selector=selector, group=group, n=n, **few)
        for metric in ("accuracy", "tied")
        for scorer, selector in [*ways, *((None, name) for name in BASELINES)]
        for group, n in [*columns, (None, None)]
    ]
    metrics += [
        Metric(metric="accuracy_difference", scorer=scorer, selector=selector, **few)
        for name, way in ways
        for scorer, selector in [(name, f"{way} - majority"), (name, f"{way} - {NULL}"), (f"{name} - ce", way)]
    ]
    metrics += [
        Metric(metric=metric, scorer=name, group=f"generator={generator}", **few)
        for metric in STEP_METRICS for name in comparison.methods for generator in comparison.generators
    ]  # fmt: skip
    costs = {name: MethodCost(**dict.fromkeys(MethodCost.__slots__, 12345678.0)) for name in comparison.methods}
    tables = all_tables(comparison, Measured(metrics, {}, {}), costs)
    assert len(tables) == 8
    for table in tables:
        stream = io.StringIO()
        print_tables(Console(file=stream, width=80), [table])
        lines = stream.getvalue().splitlines()
        assert max(map(len, lines)) <= 80
        for row in table.rows:  # a line in each part of the table
            drawn = [line.split("  ") for line in lines if line.startswith(f"{row[0].value}  ")]
            assert len(drawn) == lines.count("") > 0
            shown = [part.strip() for line in drawn for part in line[1:]]
            assert [text for text in shown if "±" in text] == [f"{c.value} {c.short}" for c in row if c.short]
