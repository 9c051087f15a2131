import json
from pathlib import Path
from typing import Any

import pytest

from freeprm.core.answers import equivalent, extract
from freeprm.errors import ConfigError, DataError, RecordError, RunFolderError
from freeprm.io.rows import Row, write_rows
from freeprm.io.runs import read_metrics
from freeprm.stages.base import RunResult
from freeprm.stages.selection import select
from freeprm.types import Metric

UPSTREAM = ("scatyf3_llama3b_10x4", "rajlm10_llama1b_1x4")
UPSTREAM_NAMES = {"best_of_n/last": "naive", "weighted_vote/last": "weighted", "majority": "maj"}
# Upstream's canonical form loses a term of this answer on its way.
LOST_BY_UPSTREAM = {r"2p + \frac{1}{2}q - \frac{11}{3}": r"2p+\frac{1}{2}\frac{11}{3}"}


def row(problem_id: str, sample_idx: int, **columns: Any) -> Row:
    return {"problem_id": problem_id, "sample_idx": sample_idx, "prompt": "q", "response": f"{sample_idx}", **columns}


def two_problems(scorer: str | None = "a", sign: float = 1.0) -> list[Row]:
    """p: 4 is right, best scored and in the minority; q: 7 is right and always given."""
    rows = [
        row(
            "p",
            index,
            pred=pred,
            correct=pred == "4",
            step_scores=[sign * low, 3.0],
            scorer=scorer,
            level=1,
            score_kind="log_odds",
        )
        for index, (pred, low) in enumerate([("5", 0.25), ("4", 2.0), ("5", 0.5)])
    ]
    return rows + [
        row("q", index, pred="7", correct=True, step_scores=[sign * 0.5], scorer=scorer, level=2, score_kind="log_odds")
        for index in range(3)
    ]


def run(folder: Path, rows: list[Row], **settings: Any) -> RunResult:
    write_rows(folder / "rows.jsonl", rows)
    return select([folder / "rows.jsonl"], out=folder / "out", **settings)


def at(result: RunResult, selector: str | None, n: int, *, scorer: str | None = None, metric="accuracy") -> Metric:
    found = [
        m for m in result.metrics
        if (m.metric, m.selector, m.n, m.scorer, m.group) == (metric, selector, n, scorer, None)
    ]  # fmt: skip
    assert len(found) == 1
    return found[0]


def test_each_way_of_choosing_is_measured(tmp_path: Path):
    result = run(tmp_path, two_problems())
    assert at(result, "best_of_n/min", 3, scorer="a").value == 1.0
    assert at(result, "majority", 3).value == 0.5
    # p: 4 has sigmoid(2) = .881, 5 has sigmoid(.25) + sigmoid(.5) = 1.185
    assert at(result, "weighted_vote/min", 3, scorer="a").value == 0.5
    assert at(result, "oracle", 3).value == 1.0
    assert at(result, "random", 3).value == pytest.approx((1 / 3 + 1) / 2)
    assert at(result, None, 2, metric="pass_at_k").value == pytest.approx((2 / 3 + 1) / 2)
    # p, best of 2: two of three pairs hold sample 1
    assert at(result, "best_of_n/min", 2, scorer="a").value == pytest.approx((2 / 3 + 1) / 2)
    assert {metric.n for metric in result.metrics} == {1, 2, 3}


def test_every_metric_has_interval_count_and_seed(tmp_path: Path):
    for metric in run(tmp_path, two_problems(), by=("level",), seed=5).metrics:
        assert metric.low is not None
        assert metric.high is not None
        assert metric.low <= metric.value + 1e-12
        assert metric.value <= metric.high + 1e-12
        assert metric.count == (2 if metric.group is None else 1)
        assert metric.seed == 5


def test_weight_scale_and_weighting_decide_the_vote(tmp_path: Path):
    (tmp_path / "scaled").mkdir()
    # times 100: 4 has 1, 5 has 1 + 1; by raw scores 4 has 2, 5 has .75
    scaled = run(tmp_path / "scaled", two_problems(), weight_scale=100.0)
    assert at(scaled, "weighted_vote/min", 3, scorer="a").value == 0.5
    assert at(run(tmp_path, two_problems(), weighting="raw"), "weighted_vote/min", 3, scorer="a").value == 1.0


def test_votes_are_weighed_by_what_scores_are_and_say_how(tmp_path: Path):
    # as probabilities .9 beats .3 + .4; their sigmoids .71 do not beat .57 + .60
    rows = [
        row("p", index, pred=pred, correct=pred == "4", score=score)
        for index, (pred, score) in enumerate([("5", 0.3), ("4", 0.9), ("5", 0.4)])
    ]
    found = {}
    for name, settings in {"range": {}, "told": {"score_kinds": "log_odds"}, "given": {"weighting": "sigmoid"}}.items():
        (tmp_path / name).mkdir()
        result = run(tmp_path / name, rows, n=[3], **settings)
        vote = at(result, "weighted_vote/score", 3, scorer="scores")
        found[name] = (vote.value, vote.weighting)
        assert any(reason.startswith(f"votes of scores weighted by {vote.weighting}: ") for reason in result.counts)
        assert at(result, "best_of_n/score", 3, scorer="scores").weighting is None
    assert found == {"range": (1.0, "raw"), "told": (0.0, "sigmoid"), "given": (0.0, "sigmoid")}


def test_large_scores_do_not_saturate(tmp_path: Path):
    # the sigmoid of each is 1, and the vote would be a majority of three equals
    rows = [
        row("p", index, pred=str(index), correct=index == 2, score=score)
        for index, score in enumerate((90.0, 95.0, 99.0))
    ]
    result = run(tmp_path, rows, n=[3])
    assert at(result, "weighted_vote/score", 3, scorer="scores").value == 1.0
    assert at(result, "weighted_vote/score", 3, scorer="scores", metric="tied").value == 0.0


def test_ties_are_shared_and_counted_where_the_right_response_stands_first(tmp_path: Path):
    rows = [row("p", index, pred=str(index), correct=index == 0, score=0.5) for index in range(4)]
    rows += [
        row("q", index, pred=str(index), correct=index == 0, score=[0.9, 0.1, 0.1, 0.1][index]) for index in range(4)
    ]
    result = run(tmp_path, rows, n=[2, 4])
    for selector, scorer, at_two, at_four in [
        # p: 1/4 of all, 1/2 of the half of the pairs that hold it; q: what holds sample 0
        ("best_of_n/score", "scores", (1 / 4 + 1 / 2) / 2, (1 / 4 + 1) / 2),
        ("weighted_vote/score", "scores", (1 / 4 + 1 / 2) / 2, (1 / 4 + 1) / 2),
        ("majority", None, 1 / 4, 1 / 4),
    ]:
        assert at(result, selector, 2, scorer=scorer).value == pytest.approx(at_two)
        assert at(result, selector, 4, scorer=scorer).value == pytest.approx(at_four)
        tied = at(result, selector, 4, scorer=scorer, metric="tied")
        assert tied.value == (1.0 if scorer is None else 0.5)
    lines = [json.loads(line) for line in (result.folder / "selections.jsonl").read_text().splitlines()]
    assert {line["sample_idx"] for line in lines} == {0}  # what is handed out is the first
    lines = [json.loads(line) for line in (result.folder / "accuracies.jsonl").read_text().splitlines()]
    by = {(line["problem_id"], line["selector"], line["n"]): line for line in lines}
    assert by["p", "best_of_n/score", 4]["tied"] == 1.0
    assert "tied" not in by["p", "random_distinct_text", 4]


def test_scorers_are_compared_with_majority_and_with_each_other(tmp_path: Path):
    result = run(tmp_path, two_problems("a") + two_problems("b", sign=-1.0))
    over_majority = at(result, "best_of_n/min - majority", 3, scorer="a", metric="accuracy_difference")
    assert (over_majority.value, over_majority.count) == (0.5, 2)
    assert at(result, "best_of_n/min", 3, scorer="a - b", metric="accuracy_difference").value == 0.5
    assert at(result, "random", 3).count == 2  # two scorers' rows are still two problems


def test_rows_without_scores_give_what_needs_none(tmp_path: Path):
    rows = [{k: v for k, v in r.items() if k not in ("step_scores", "scorer")} for r in two_problems()]
    selectors = {metric.selector for metric in run(tmp_path, rows).metrics}
    assert selectors == {"majority", "oracle", "random", "random_distinct_text", None}


def test_scores_of_one_file_and_samples_of_another_are_joined(tmp_path: Path):
    scored, bare = two_problems(), [row("p", index, pred="4", correct=True) for index in (3, 4)]
    write_rows(tmp_path / "bare.jsonl", bare)
    write_rows(tmp_path / "rows.jsonl", scored)
    result = select([tmp_path / "rows.jsonl", tmp_path / "bare.jsonl"], out=tmp_path / "out", n=[3, 5])
    assert result.counts["not scored by a"] == 2
    assert at(result, "majority", 5).count == 1  # q has three samples
    assert result.counts["problems left out at n=5, with fewer samples"] == 1
    assert not any(metric.scorer == "a" and metric.n == 5 for metric in result.metrics)


def test_a_breakdown_names_its_column_and_value(tmp_path: Path):
    result = run(tmp_path, two_problems(), by=("level",))
    found = {m.group: m.value for m in result.metrics if m.selector == "majority" and m.n == 3 and m.group}
    assert found == {"level=1": 0.0, "level=2": 1.0}


def test_a_breakdown_by_a_column_that_is_not_there_is_refused(tmp_path: Path):
    with pytest.raises(ConfigError, match=r"no row has a column 'subject'; .*level"):
        run(tmp_path, two_problems(), by=("subject",))


def test_missing_answers_and_labels_are_derived_and_counted(tmp_path: Path):
    rows = [
        {**row("p", 0, answer="4"), "response": r"so \boxed{4}"},
        {**row("p", 1, answer="4"), "response": "I do not know"},
        row("p", 2, answer="4", pred="8/2"),
        row("q", 0, pred="1", correct=True),
    ]
    result = run(tmp_path, rows, n=[1])
    assert result.counts["answers extracted here"] == 1
    assert result.counts["labels derived here"] == 2
    assert result.counts["without answer, never vote"] == 1
    assert result.counts["without label, counted as not correct"] == 1
    assert at(result, "random", 1).value == pytest.approx((2 / 3 + 1) / 2)


def test_what_grading_gave_up_on_is_not_judged_again(tmp_path: Path):
    rows = [
        row("p", 0, pred="4", answer="4", grade_reason="took longer than 5 s"),
        row("p", 1, pred="4", answer="4"),
        row("p", 2, pred="5", answer="4", correct=False),
    ]
    result = run(tmp_path, rows)
    assert result.counts["left without label by grade: took longer than 5 s"] == 1
    assert result.counts["labels derived here"] == 1
    assert result.counts["without label, counted as not correct"] == 1


def test_answers_vote_by_value_or_by_form(tmp_path: Path):
    rows = [
        row("p", index, pred=pred, correct=pred == "(8-4)*6", answer="24")
        for index, pred in enumerate(["(8-4)*6", "(8-4)\\times 6", "8*3", "4*6", "6*4"])
    ]
    (tmp_path / "form").mkdir()
    form = run(tmp_path / "form", rows, answers_by="form", n=[5])
    assert form.counts["answers whose responses have different labels"] == 1  # the two spellings of the first
    assert run(tmp_path, rows, n=[5]).counts["answers whose responses have different labels"] == 1
    votes = read_metrics(tmp_path / "form" / "out")
    assert next(m.value for m in votes if m.selector == "majority" and m.n == 5) == 0.0
    with pytest.raises(ConfigError, match="answers_by: is 'shape'; expected one of value, form"):
        run(tmp_path, rows, answers_by="shape")


def test_a_vote_tells_answers_apart_that_were_read_in_part_once(real_data: Path, tmp_path: Path):
    folder = real_data / "public_cases" / "voting"
    for name in ("votes", "votes_control"):
        result = select([folder / f"{name}.jsonl"], out=tmp_path / name, n=[7])
        assert at(result, "majority", 7).value == 1.0


def test_responses_that_nothing_is_known_of_are_refused(tmp_path: Path):
    with pytest.raises(DataError, match="no response has a label"):
        run(tmp_path, [row("p", 0, pred="1")])


def test_selections_say_what_was_chosen_from_all_samples(tmp_path: Path):
    result = run(tmp_path, two_problems())
    rows = [json.loads(line) for line in (result.folder / "selections.jsonl").read_text().splitlines()]
    chosen = {(r["problem_id"], r["selector"]): (r["sample_idx"], r["answer"], r["correct"], r["n"]) for r in rows}
    assert chosen["p", "best_of_n/min"] == (1, "4", True, 3)
    assert chosen["p", "majority"] == (0, "5", False, 3)
    assert chosen["q", "weighted_vote/min"] == (0, "7", True, 3)


def test_a_finished_run_is_returned_and_another_is_refused(tmp_path: Path):
    first = run(tmp_path, two_problems())
    again = run(tmp_path, two_problems())
    assert again.metrics == first.metrics == read_metrics(first.folder)
    assert dict(again.counts) == dict(first.counts)
    with pytest.raises(RunFolderError, match="weighting"):
        run(tmp_path, two_problems(), weighting="raw")


@pytest.mark.parametrize(
    ("settings", "error", "message"),
    [
        ({"aggregators": ("mni",)}, ConfigError, "Did you mean 'min'"),
        ({"weighting": "sigmiod"}, ConfigError, "Did you mean 'sigmoid'"),
        ({"subsets": "frist"}, ConfigError, "expected one of resample, first"),
        ({"weight_scale": 0.0}, ConfigError, "weight_scale is 0"),
        ({"n": [2, 99]}, ConfigError, "expected 1 to 3"),
        ({"n": [0]}, ConfigError, "expected 1 to 3"),
        ({"n": []}, ConfigError, "expected 1 to 3"),
        ({"aggregators": ("prod",)}, DataError, "problem 'p', sample 0, scorer 'a': prod"),
    ],
)
def test_a_bad_setting_is_refused(tmp_path: Path, settings: dict[str, Any], error: type[Exception], message: str):
    with pytest.raises(error, match=message):
        run(tmp_path, two_problems(), **settings)


def test_a_score_that_is_not_a_number_is_refused_or_skipped_and_counted(tmp_path: Path):
    rows = [*two_problems(), row("r", 0, correct=True, step_scores=["high"])]
    with pytest.raises(RecordError, match=r"rows\.jsonl:7: step_scores"):
        run(tmp_path, rows)
    (tmp_path / "skip").mkdir()
    counts = run(tmp_path / "skip", rows, on_bad="skip").counts
    assert counts["skipped: step_scores is not a list of finite numbers, one a step"] == 1


def test_results_repeat_with_their_seed(tmp_path: Path):
    rows = [
        row(
            str(problem),
            index,
            pred=str(index * problem % 5),
            correct=index * problem % 5 == 1,
            step_scores=[index % 7 / 7],
        )
        for problem in range(6)
        for index in range(20)
    ]
    folders = [tmp_path / name for name in ("one", "two", "three")]
    for folder in folders:
        folder.mkdir()
    first, second, other = (run(f, rows, n=[8], seed=s).metrics for f, s in zip(folders, (0, 0, 1), strict=True))
    assert first == second != other


def test_qwens_reward_model_selects_as_published(real_data: Path, tmp_path: Path):
    path = real_data / "qwen_rm_maj_100x8" / "rollouts.jsonl"
    result = select([path], out=tmp_path / "out", columns={"score": "rm_score"}, by=("level",))
    # data README, from upstream's rm_maj_eval: rm@8 94, maj@8 93, pass@8 96 of 100, mean accuracy 0.91
    assert at(result, "best_of_n/score", 8, scorer="scores").value == pytest.approx(0.94)
    # upstream takes the first of equals: two answers share the first place in four problems, three times half right
    assert at(result, "majority", 8).value == pytest.approx(0.925)
    assert at(result, "majority", 8, metric="tied").value == pytest.approx(0.04)
    lines = [json.loads(line) for line in (result.folder / "selections.jsonl").read_text().splitlines()]
    assert sum(line["correct"] for line in lines if line["selector"] == "majority") == 93
    assert at(result, "weighted_vote/score", 8, scorer="scores").weighting == "standardised"
    assert at(result, "oracle", 8).value == pytest.approx(0.96)
    assert at(result, None, 8, metric="pass_at_k").value == pytest.approx(0.96)
    assert at(result, "random", 8).value == pytest.approx(0.91)
    assert {metric.group for metric in result.metrics} == {None, *(f"level=Level {i}" for i in range(1, 6))}


@pytest.mark.parametrize("name", UPSTREAM)
def test_selections_from_the_first_n_are_search_and_learns(real_data: Path, tmp_path: Path, name: str):
    folder = real_data / "search_and_learn_bon"
    rows = [json.loads(line) for line in (folder / f"{name}.rollouts.jsonl").read_text().splitlines()]
    for item in rows:  # upstream takes the last number where there is no box
        item["pred"] = extract(item["response"], ("boxed", "last_number"))
    result = run(tmp_path, rows, aggregators=("last",), weighting="raw", subsets="first")
    oracle = [json.loads(line) for line in (folder / f"{name}.oracle.jsonl").read_text().splitlines()]
    wanted = {entry["problem_id"]: entry for entry in oracle}
    chosen = [json.loads(line) for line in (result.folder / "selections.jsonl").read_text().splitlines()]
    assert len(chosen) == len(oracle) * 3 * 3  # three selectors at n = 1, 2, 4
    for entry in chosen:
        theirs = wanted[entry["problem_id"]][f"pred_{UPSTREAM_NAMES[entry['selector']]}@{entry['n']}"]
        ours = LOST_BY_UPSTREAM.get(entry["answer"], entry["answer"])
        assert equivalent(ours, extract(theirs)).correct, entry
