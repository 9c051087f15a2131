import json
import random
from pathlib import Path
from typing import Any

import pytest

from freeprm.errors import ConfigError, DataError
from freeprm.io.rows import Row, write_rows
from freeprm.stages.base import RunResult
from freeprm.stages.evaluation import evaluate
from freeprm.types import Metric


def row(problem_id: str, step_scores: list[float], first_error: int | None, **columns: Any) -> Row:
    return {
        "problem_id": problem_id, "sample_idx": 0, "prompt": f"q {problem_id}", "response": "r", "scorer": "a",
        "step_scores": step_scores, "first_error": first_error, "correct": first_error is None, **columns,
    }  # fmt: skip


# at 0.3: a is found, b is not (its first step is lower), c and d are cleared
ROWS = [
    row("a", [0.9, 0.2, 0.1], 1, level=1),
    row("b", [0.25, 0.6], 1, level=2),
    row("c", [0.4, 0.8], None, level=1),
    row("d", [0.7], None, level=2),
]


def run(folder: Path, rows: list[Row], **settings: Any) -> RunResult:
    write_rows(folder / "rows.jsonl", rows)
    return evaluate([folder / "rows.jsonl"], out=folder / "out", **settings)


def at(result: RunResult, metric: str, selector: str | None = None, scorer: str = "a", group=None) -> Metric:
    found = [
        m for m in result.metrics if (m.metric, m.selector, m.scorer, m.group) == (metric, selector, scorer, group)
    ]
    assert len(found) == 1
    return found[0]


def test_a_given_threshold_is_applied(tmp_path: Path):
    result = run(tmp_path, ROWS, threshold=0.3)
    assert at(result, "accuracy_erroneous", "threshold=given").value == 0.5
    assert at(result, "accuracy_correct", "threshold=given").value == 1.0
    assert at(result, "processbench_f1", "threshold=given").value == pytest.approx(2 / 3)
    assert at(result, "processbench_f1", "threshold=given").count == 4
    assert at(result, "first_error_accuracy").value == 0.0  # the lowest steps are 2 and 0
    # right .9 .25 .4 .8 .7 against wrong .2 .6: all five beat .2; .9, .8, .7 beat .6
    assert at(result, "step_auc").value == pytest.approx(8 / 10)
    assert at(result, "step_auc").count == 7
    assert at(result, "response_auc", "min").value == 1.0
    assert not any(metric.metric == "threshold" and metric.selector == "threshold=given" for metric in result.metrics)


def test_the_oracle_stands_beside_and_is_called_so(tmp_path: Path):
    result = run(tmp_path, ROWS, threshold=5.0)
    assert at(result, "processbench_f1", "threshold=given").value == 0.0
    assert at(result, "processbench_f1", "threshold=oracle").value == pytest.approx(2 / 3)
    assert at(result, "threshold", "threshold=oracle").value == pytest.approx(0.3)  # middle of (.2, .4]


def test_a_threshold_is_fitted_on_dev_only(tmp_path: Path):
    dev = [row("x", [0.9, 0.6], 1), row("y", [0.8, 0.8], None)]  # separated by (.6, .8]
    write_rows(tmp_path / "dev.jsonl", dev)
    result = run(tmp_path, ROWS, dev=[tmp_path / "dev.jsonl"])
    assert at(result, "threshold", "threshold=dev").value == pytest.approx(0.7)
    # at .7: a is found, b is not; c is flagged, d, at the threshold, is not
    assert at(result, "processbench_f1", "threshold=dev").value == pytest.approx(0.5)
    assert result.counts["responses"] == 4
    assert result.counts["responses that thresholds were fitted on"] == 2


def test_dev_may_not_share_problems_with_the_inputs(tmp_path: Path):
    write_rows(tmp_path / "dev.jsonl", [row("a", [0.9, 0.6], 1), row("y", [0.8, 0.8], None)])
    with pytest.raises(DataError, match="dev shares 1 problems with the inputs"):
        run(tmp_path, ROWS, dev=[tmp_path / "dev.jsonl"])


def many(scorer: str, seed: int) -> list[Row]:
    rng = random.Random(seed)
    rows = []
    for problem in range(40):
        for sample in range(2):
            error = rng.choice([None, 0, 1, 2])
            scores = [rng.gauss(-1.0 if step == error else 0.0, 0.4) for step in range(3)]
            rows.append(row(f"{problem}", scores, error, sample_idx=sample, scorer=scorer))
    errors = random.Random(99)
    for item in rows:  # the truth is the same for all scorers
        item["first_error"] = errors.choice([None, 0, 1, 2])
        item["correct"] = item["first_error"] is None
    return rows


def test_without_dev_a_seeded_split_by_problem_is_fitted_on_and_left_out(tmp_path: Path):
    result = run(tmp_path, many("a", 0) + many("b", 1), seed=3)
    assert at(result, "processbench_f1", "threshold=split").count == 56  # 70 % of 40 problems, two responses each
    assert at(result, "processbench_f1", "threshold=split", scorer="b").count == 56
    assert at(result, "threshold", "threshold=split").count == 24
    rows = [json.loads(line) for line in (result.folder / "predictions.jsonl").read_text().splitlines()]
    problems = [row["problem_id"] for row in rows]
    assert all(problems.count(problem) == 4 for problem in problems)  # both responses, by both scorers


def test_a_problem_is_its_text_whatever_ids_it_stands_under(tmp_path: Path):
    rows = many("a", 0)
    for item in rows:  # two generators' ids, and their own spacing, for each of 40 problems
        generator = item.pop("sample_idx")
        item |= {"problem_id": f"{item['problem_id']}-{generator}", "prompt": item["prompt"] + "  ?" * generator}
        item["prompt"] = item["prompt"].replace("  ?", " \n").upper() if generator else item["prompt"]
    result = run(tmp_path, rows, seed=3)
    lines = [json.loads(line) for line in (result.folder / "predictions.jsonl").read_text().splitlines()]
    numbers = [line["problem_id"].split("-")[0] for line in lines]
    assert all(numbers.count(number) == 2 for number in numbers)  # none stands in dev as well
    assert result.counts["problems"] == 28
    (tmp_path / "ids").mkdir()
    by_id = run(tmp_path / "ids", many("a", 0), seed=3)  # the same with one id each
    assert [(m.value, m.low, m.high) for m in by_id.metrics] == [(m.value, m.low, m.high) for m in result.metrics]
    (tmp_path / "dev").mkdir()
    dev = [{**row("elsewhere", [0.9, 0.6], 1), "prompt": " Q   a"}, row("y", [0.8, 0.8], None)]
    write_rows(tmp_path / "dev.jsonl", dev)
    with pytest.raises(DataError, match=r"dev shares 1 problems with the inputs, by their text, e\.g\. 'elsewhere'"):
        run(tmp_path / "dev", ROWS, dev=[tmp_path / "dev.jsonl"])


def test_responses_to_one_problem_cannot_be_split(tmp_path: Path):
    with pytest.raises(DataError, match="all responses are to one problem, by its text"):
        run(tmp_path, [{**item, "prompt": "q"} for item in ROWS])


GRADED = [  # of p the right one is above the wrong one, of q below; r has but one outcome
    {"problem_id": problem, "sample_idx": index, "prompt": problem, "response": "r", "correct": correct, "score": score}
    for problem, index, correct, score in [
        ("p", 0, True, 0.9), ("p", 1, False, 0.8), ("q", 0, True, 0.1), ("q", 1, False, 0.2), ("q", 2, True, 0.3),
        ("r", 0, True, 0.0), ("r", 1, None, 1.0),
    ]
]  # fmt: skip


@pytest.mark.parametrize("shape", ["score", "step_scores"])
def test_responses_are_ranked_without_any_truth_of_steps(tmp_path: Path, shape: str):
    rows = [{**item, shape: [item["score"], 2.0] if shape == "step_scores" else item["score"]} for item in GRADED]
    if shape == "step_scores":
        rows = [{key: value for key, value in item.items() if key != "score"} for item in rows]
    result = run(tmp_path, rows)
    selector = "score" if shape == "score" else "min"
    pooled = at(result, "response_auc", selector, scorer="scores")
    inside = at(result, "response_auc_within_problems", selector, scorer="scores")
    # right .9 .1 .3 .0 against wrong .8 .2: .9 beats both, .3 one
    assert (pooled.value, pooled.count) == (3 / 8, 6)
    assert (inside.value, inside.count) == ((1 + 1 / 2) / 2, 2)
    assert {metric.metric for metric in result.metrics} == {"response_auc", "response_auc_within_problems"}
    assert result.counts["without label, left out of the response areas"] == 1
    assert (result.folder / "predictions.jsonl").read_text() == ""


def test_one_score_a_response_stands_beside_step_scores(tmp_path: Path):
    whole = [{**row(item["problem_id"], [], None), "scorer": "b", "score": 0.5} for item in ROWS]
    for item, known in zip(whole, ROWS, strict=True):
        item |= {"correct": known["correct"], "step_scores": None}
    result = run(tmp_path, ROWS + whole, threshold=0.3)
    assert at(result, "response_auc", "score", scorer="b").value == 0.5
    assert at(result, "step_auc").value == pytest.approx(8 / 10)
    assert not any(metric.metric == "step_auc" and metric.scorer == "b" for metric in result.metrics)
    assert result.counts["without step_scores or first_error, in response areas only"] == 4


def test_scorers_of_the_same_responses_are_compared(tmp_path: Path):
    result = run(tmp_path, many("a", 0) + many("b", 1))
    for name, selector in [("processbench_f1", "threshold=split"), ("step_auc", None), ("response_auc", "min")]:
        gap = at(result, f"{name}_difference", selector, scorer="a - b")
        assert gap.value == pytest.approx(
            at(result, name, selector).value - at(result, name, selector, scorer="b").value
        )
        assert gap.low is not None
        assert gap.high is not None
        assert gap.low <= gap.value <= gap.high


def test_scorers_of_other_responses_are_not_compared_and_that_is_counted(tmp_path: Path):
    result = run(tmp_path, [*ROWS, *({**item, "scorer": "b"} for item in ROWS[:3])], threshold=0.3)
    assert not any(metric.metric.endswith("_difference") for metric in result.metrics)
    assert result.counts["not the same responses, not compared: a, b"] == 1


def test_a_breakdown_reports_what_is_defined_in_it(tmp_path: Path):
    result = run(tmp_path, ROWS, threshold=0.3, by=("level",))
    assert at(result, "processbench_f1", "threshold=given", group="level=1").value == 1.0
    assert at(result, "processbench_f1", "threshold=given", group="level=2").value == 0.0
    with pytest.raises(ConfigError, match=r"no row has a column 'subject'; .*level"):
        run(tmp_path / "out", ROWS, threshold=0.3, by=("subject",))


def test_predictions_say_which_step_was_named(tmp_path: Path):
    result = run(tmp_path, ROWS, threshold=0.3)
    rows = [json.loads(line) for line in (result.folder / "predictions.jsonl").read_text().splitlines()]
    assert [(row["predicted_first_error"], row["first_error"]) for row in rows] == [
        (1, 1), (0, 1), (None, None), (None, None),
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("broken", "message"),
    [
        ({"first_error": 2}, "problem 'z', sample 0, scorer 'a': first_error is 2 with 2 step_scores"),
        ({"first_error": -1}, "first_error is -1"),
        ({"first_error": True}, "first_error is True"),
        ({"step_scores": []}, "no step_scores"),
    ],
)
def test_a_row_that_does_not_fit_its_truth_is_refused_or_skipped_and_counted(
    tmp_path: Path, broken: dict[str, Any], message: str
):
    rows = [*ROWS, {**row("z", [0.5, 0.5], 1), **broken}]
    with pytest.raises(DataError, match=message):
        run(tmp_path, rows, threshold=0.3)
    (tmp_path / "skip").mkdir()
    result = run(tmp_path / "skip", rows, threshold=0.3, on_bad="skip")
    assert result.counts["responses"] == 4
    assert sum(count for reason, count in result.counts.items() if reason.startswith("skipped: ")) == 1


def test_rows_without_truth_or_scores_are_refused(tmp_path: Path):
    without_truth = [{key: value for key, value in item.items() if key != "first_error"} for item in ROWS]
    with pytest.raises(DataError, match="threshold: no response has step_scores and first_error"):
        run(tmp_path, without_truth, threshold=0.3)
    (tmp_path / "bare").mkdir()
    without_scores = [{key: value for key, value in item.items() if key != "step_scores"} for item in ROWS]
    with pytest.raises(DataError, match="no step_scores; score the responses first"):
        run(tmp_path / "bare", without_scores, threshold=0.3)
    (tmp_path / "ungraded").mkdir()
    with pytest.raises(DataError, match=r"no response has first_error .*nor a label"):
        run(tmp_path / "ungraded", [{**item, "correct": None} for item in without_truth])


@pytest.mark.parametrize(
    ("settings", "error", "message"),
    [
        ({"dev": [Path("x")], "threshold": 0.5}, ConfigError, "both given"),
        ({"dev_share": 1.0}, ConfigError, "dev_share is 1.0"),
        ({"aggregators": ("mni",)}, ConfigError, "Did you mean 'min'"),
    ],
)
def test_a_bad_setting_is_refused(tmp_path: Path, settings: dict[str, Any], error: type[Exception], message: str):
    with pytest.raises(error, match=message):
        run(tmp_path, ROWS, **settings)


def test_a_split_without_both_kinds_says_for_whom_and_what_to_do(tmp_path: Path):
    with pytest.raises(DataError, match=r"scorer 'a', threshold=split: .*give more responses, or the threshold"):
        run(tmp_path, [item for item in many("a", 0) if item["first_error"] is None])


def test_a_finished_run_is_returned(tmp_path: Path):
    first = run(tmp_path, ROWS, threshold=0.3)
    again = run(tmp_path, ROWS, threshold=0.3)
    assert again.metrics == first.metrics
    assert dict(again.counts) == dict(first.counts)


def scored_processbench(source: Path, target: Path) -> Path:
    """Every step scored by an oracle that is right about nine steps in ten."""
    rng = random.Random(0)
    entries = json.loads(source.read_text(encoding="utf-8"))
    for entry in entries:
        entry["step_scores"] = [
            float((index != entry["label"]) != (rng.random() < 0.1)) for index in range(len(entry["steps"]))
        ]
    target.write_text(json.dumps(entries), encoding="utf-8")
    return target


def test_processbench_files_with_scores_are_evaluated_dev_on_one_subset_test_on_another(
    real_data: Path, tmp_path: Path
):
    folder = real_data / "processbench"
    dev = scored_processbench(folder / "gsm8k.json", tmp_path / "gsm8k.json")
    test = scored_processbench(folder / "math.json", tmp_path / "math.json")
    result = evaluate([test], out=tmp_path / "out", dev=[dev], by=("generator",))
    f1 = at(result, "processbench_f1", "threshold=dev", scorer="scores")
    assert f1.count == 1000
    assert at(result, "accuracy_erroneous", "threshold=dev", scorer="scores").count == 594
    # the scores are 0 or 1, so any fitted threshold lies between, and the oracle's does no better
    assert f1.value == at(result, "processbench_f1", "threshold=oracle", scorer="scores").value
    entries = json.loads(test.read_text(encoding="utf-8"))
    named = [next((i for i, s in enumerate(e["step_scores"]) if s < 0.5), -1) == e["label"] for e in entries]
    kinds = {True: [], False: []}
    for right, entry in zip(named, entries, strict=True):
        kinds[entry["label"] == -1].append(right)
    a, b = (sum(kind) / len(kind) for kind in kinds.values())
    assert f1.value == pytest.approx(2 * a * b / (a + b))


def test_scores_that_say_nothing_have_an_auc_of_one_half(real_data: Path, tmp_path: Path):
    entries = json.loads((real_data / "processbench" / "gsm8k.json").read_text(encoding="utf-8"))
    for entry in entries:
        entry["step_scores"] = [0.5] * len(entry["steps"])
    (tmp_path / "flat.json").write_text(json.dumps(entries), encoding="utf-8")
    result = evaluate([tmp_path / "flat.json"], out=tmp_path / "out", threshold=0.1)
    assert at(result, "step_auc", scorer="scores").value == 0.5
    assert at(result, "response_auc", "min", scorer="scores").value == 0.5
    assert at(result, "processbench_f1", "threshold=given", scorer="scores").value == 0.0


def test_processbench_files_without_scores_say_so(real_data: Path, tmp_path: Path):
    with pytest.raises(DataError, match="no step_scores; score the responses first"):
        evaluate([real_data / "processbench" / "gsm8k.json"], out=tmp_path / "out")
