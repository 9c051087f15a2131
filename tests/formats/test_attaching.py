"""Outputs in columns and in files become scores of the responses they are for, or are named."""

from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from freeprm.errors import ConfigError, DataError, RecordError
from freeprm.formats._attaching import Attaching, ScoreOptions
from freeprm.io.config import build
from freeprm.io.rows import OnBad, Row, write_rows
from freeprm.types import Rollout

STEPS = [[0.1, 0.9], [0.8, 0.2]]


def sample(index: int = 0, **extra: Any) -> Rollout:
    return Rollout(problem_id="p", sample_idx=index, prompt="?", response="a\n\nb", extra=extra)


def of_column(rollouts: list[Rollout], *, on_bad: OnBad = "raise", counts: Counter[str] | None = None, **options: Any):
    told = build(ScoreOptions, [{"column": "out", "good": 1, **options}])
    counts = Counter() if counts is None else counts
    attaching = Attaching(told, on_bad, counts)
    return attaching.attached("out", attaching.in_column(rollouts))


def body(*items: Any) -> Row:
    return {
        "object": "list", "model": "prm",
        "data": [{"index": index, "object": "pooling", "data": item} for index, item in enumerate(items)],
    }  # fmt: skip


@pytest.mark.parametrize("value", [STEPS, {"index": 0, "object": "pooling", "data": STEPS}, body(STEPS)])
def test_a_column_holds_numbers_or_an_item_or_a_whole_answer(value: Any):
    (made,) = of_column([sample(out=value)])
    assert made.step_scores == (0.9, 0.2)
    assert made.scorer == ("prm" if "model" in value else "out")
    assert of_column([sample(out=value)], scorer="mine")[0].scorer == "mine"


def test_a_list_of_classes_is_one_score_for_the_response():
    (made,) = of_column([sample(out=[0.25, 0.75])])
    assert (made.score, made.step_scores) == (0.75, None)


def test_rows_without_outputs_and_failed_requests_get_no_score_and_are_counted():
    counts: Counter[str] = Counter()
    rows = [sample(0, out=STEPS), sample(1, out=None), sample(2, out={"error": {"message": "busy"}}), sample(3)]
    assert [row.sample_idx for row in of_column(rows, counts=counts)] == [0]
    assert counts["failed request: busy"] == 1
    with pytest.raises(DataError, match=r"out: no response has a score by it \(1 failed request: busy\)"):
        of_column(rows[1:])


def test_places_that_a_mask_leaves_out_are_no_steps():
    # predictions and label_ids of transformers' Trainer.predict: a place a token, padded to the longest
    logits = [[9.0, 9.0], [0.0, 0.0], [9.0, 9.0], [1.0, 1.0], [-100.0, -100.0]]
    (made,) = of_column(
        [sample(out=logits, label_ids=[-100, 1, -100, 0, -100], steps=["a", "b"])], mask="label_ids", values="logits"
    )
    assert made.step_scores == (0.5, 0.5)
    with pytest.raises(DataError, match="out: has 5 places; expected as many as label_ids has labels"):
        of_column([sample(out=logits, label_ids=[1])], mask="label_ids", values="logits")


@pytest.mark.parametrize("known", [{"steps": ["a", "b", "c"]}, {"step_labels": [True, None, False]}])
def test_another_number_of_scores_than_steps_is_refused(known: dict[str, Any]):
    with pytest.raises(DataError, match="problem 'p', sample 0: out: has 2 step scores, but the response has 3 steps"):
        of_column([sample(out=STEPS, **known)])


def test_the_number_is_checked_by_a_splitter_where_rows_bring_no_steps_and_counted_where_nothing_is_known():
    assert of_column([sample(out=STEPS)], splitter="blank_lines")
    with pytest.raises(DataError, match="has 2 step scores, but the response has 3 steps"):
        of_column([Rollout(problem_id="p", sample_idx=0, prompt="?", response="a\nb\nc", extra={"out": STEPS})],
                  splitter="lines")  # fmt: skip
    counts: Counter[str] = Counter()
    of_column([sample(out=STEPS)], counts=counts)
    assert counts["step scores whose number could not be checked, as the steps are not known"] == 1


def test_broken_outputs_are_named_or_skipped_and_counted():
    counts: Counter[str] = Counter()
    rows = [sample(0, out=STEPS), sample(1, out=[[1.5, -0.5]]), sample(2, out=body(STEPS, STEPS)), sample(3, out="x")]
    for row, cause in zip(rows[1:], ["no probabilities", "has 2 items; expected one", "holds text"], strict=True):
        with pytest.raises(DataError, match=rf"problem 'p', sample {row.sample_idx}: out: .*{cause}"):
            of_column([row])
    assert len(of_column(rows, on_bad="skip", counts=counts)) == 1
    assert {reason: count for reason, count in counts.items() if reason.startswith("skipped: ")} == {
        "skipped: out: holds N, N, which are no probabilities of classes; if no softmax was applied, say values=logits,"
        " and values=scores for what is a score as it stands": 1,
        "skipped: out: has N items; expected one, for this response": 1,
        "skipped: out: holds text; ask the server for encoding_format 'float'": 1,
    }


def test_the_softmax_over_one_class_is_no_score():
    with pytest.raises(DataError, match="every score is exactly 1, as the softmax over a single class makes it"):
        of_column([sample(index, out={"probs": [1.0], "num_classes": 1}) for index in range(2)], good=None)
    assert of_column([sample(out=[1.0]), sample(1, out=[0.5])], good=None)


def test_a_column_that_no_row_has_is_refused_with_those_there_are():
    with pytest.raises(ConfigError, match="column: no row has a column 'out'; further columns there are: other"):
        of_column([sample(other=STEPS)])


def test_a_class_that_is_not_said_is_asked_for():
    with pytest.raises(ConfigError, match="problem 'p', sample 0: out: good: is None; expected the index of the class"):
        of_column([sample(out=STEPS)], good=None)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"column": "step_scores"}, "step_scores is a column of ours"),
        ({"mask": "labels"}, "mask: goes with column"),
        ({"values": "softmax"}, "values: is 'softmax'"),
        ({"column": "out", "splitter": "line"}, "Did you mean 'lines'"),
        ({"goood": 1}, "goood: no such setting. Did you mean 'good'"),
    ],
)
def test_options_that_make_no_sense_are_refused(options: dict[str, Any], message: str):
    with pytest.raises(ConfigError, match=message):
        build(ScoreOptions, [options])


def answers(folder: Path, *rows: Any) -> Path:
    write_rows(folder / "answers.jsonl", rows)
    return folder / "answers.jsonl"


def of_file(path: Path, rollouts: list[Rollout], *, on_bad: OnBad = "raise", counts: Counter[str] | None = None):
    told, counts = ScoreOptions(good=1), Counter() if counts is None else counts
    attaching = Attaching(told, on_bad, counts)
    return attaching.attached("answers", attaching.in_file(path, rollouts))


def test_a_file_s_scores_bear_the_model_s_name_and_errors_the_line(tmp_path: Path):
    rows = [sample(0), sample(1)]
    made = of_file(answers(tmp_path, {"custom_id": "p/1", **body(STEPS)}), rows)
    assert [(row.sample_idx, row.scorer, row.step_scores) for row in made] == [(1, "prm", (0.9, 0.2))]
    path = answers(tmp_path, body(STEPS), body([[3.0, 1.0]]))
    with pytest.raises(DataError, match=rf"{path}:2, problem 'p', sample 1: answers: holds 3, 1, which are no prob"):
        of_file(path, rows)


def test_answers_that_are_nobody_s_stop_or_are_counted(tmp_path: Path):
    path = answers(tmp_path, {"custom_id": "p/0", **body(STEPS)}, {"custom_id": "q/0", **body(STEPS)}, {"custom_id": 1})
    with pytest.raises(RecordError, match=rf"{path}:3: .*expected an answer"):
        of_file(path, [sample()])
    counts: Counter[str] = Counter()
    assert len(of_file(path, [sample()], on_bad="skip", counts=counts)) == 1
    assert counts["skipped: no answer of a server"] == 1
    assert counts["skipped: answers to no response, or to one that has an answer"] == 1


def test_a_file_is_either_by_ids_or_in_order(tmp_path: Path):
    path = answers(tmp_path, {"custom_id": "p/0", **body(STEPS)}, body(STEPS))
    with pytest.raises(DataError, match="some answers have a custom_id, some have none"):
        of_file(path, [sample()])
    with pytest.raises(RecordError, match="no answer of a server in it"):
        of_file(answers(tmp_path), [sample()])
