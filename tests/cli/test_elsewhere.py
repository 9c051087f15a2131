"""Scores that others gave, on the command line: `select` and `evaluate` take their files as they are."""

import json
import re
from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest

from command_line import run
from freeprm.formats._attaching import ScoreOptions
from freeprm.io.files import read_rows, write_table
from freeprm.io.rows import Row, write_rows


def measured(*arguments: object) -> tuple[dict[tuple[str, str | None, int | None], float], dict[str, int]]:
    """Metrics by name, selector and n, and the counts."""
    code, out, err = run(*arguments, "--json")
    assert code == 0, err
    found = json.loads(out)
    of_one = [item for item in found["metrics"] if not item["metric"].endswith("_difference")]
    return {(item["metric"], item["selector"], item["n"]): item["value"] for item in of_one}, found["counts"]


def refused(*arguments: object) -> str:
    code, out, err = run(*arguments)
    assert (code, out) == (1, "")
    return err


def rollouts(n_problems: int = 4) -> list[Row]:
    """Two responses to each problem, of two steps; the second is right, the first goes wrong in its second step."""
    return [
        {
            "problem_id": f"p{problem}", "sample_idx": sample, "prompt": f"{problem}?", "response": f"a\n\nb{sample}",
            "pred": str(sample), "correct": sample == 1, "steps": ["a", f"b{sample}"],
            "first_error": None if sample == 1 else 1,
        }
        for problem in range(n_problems) for sample in range(2)
    ]  # fmt: skip


def judged(row: Row) -> list[list[float]]:
    """What a process reward model that is right says of it: [wrong, right] a step."""
    return [[0.1, 0.9], [0.2, 0.8] if row["correct"] else [0.9, 0.1]]


def pooling(*items: Any) -> Row:
    """A PoolingResponse, vllm-project/vllm, vllm/entrypoints/pooling/pooling/protocol.py."""
    data = [{"index": index, "object": "pooling", "data": item} for index, item in enumerate(items)]
    usage = {"prompt_tokens": 99, "total_tokens": 99, "completion_tokens": 0, "prompt_tokens_details": None}
    return {"id": "pool-7f", "object": "list", "created": 1, "model": "Qwen/PRM", "data": data, "usage": usage}


def classify(*probs: list[float]) -> Row:
    """A ClassificationResponse, vllm-project/vllm, vllm/entrypoints/pooling/classify/protocol.py."""
    items = [{"index": at, "label": None, "probs": item, "num_classes": len(item)} for at, item in enumerate(probs)]
    return {**pooling(), "id": "classify-7f", "data": items}


def in_batch(custom_id: str, body: Row) -> Row:
    """A BatchRequestOutput, vllm-project/vllm, vllm/entrypoints/openai/run_batch.py."""
    response = {"status_code": 200, "request_id": "vllm-batch-7f", "body": body}
    return {"id": "vllm-7f", "custom_id": custom_id, "response": response, "error": None}


def test_known_figures_come_out_of_a_search_and_learn_file_as_it_is(real_data: Path, tmp_path: Path):
    folder = real_data / "search_and_learn_bon"
    as_it_is, counts = measured(
        "select", folder / "scatyf3_llama3b_10x4.raw.jsonl", "--aggregator", "last", "--first", "--out", tmp_path / "a"
    )
    ours, _ = measured(
        "select", folder / "scatyf3_llama3b_10x4.rollouts.jsonl", "--aggregator", "last", "--first", "--out",
        tmp_path / "b",
    )  # fmt: skip
    assert as_it_is == ours
    assert (counts["problems"], counts["responses"]) == (10, 40)
    assert ("accuracy", "best_of_n/last", 4) in as_it_is


def test_the_figures_of_a_table_do_not_depend_on_its_container(real_data: Path, tmp_path: Path):
    rows = real_data / "qwen_rm_maj_100x8" / "rollouts.jsonl"
    write_table(tmp_path / "rows.parquet", [row for _, row in read_rows(rows)])
    given = ["--map", "score=rm_score", "--n", "8"]
    found, _ = measured("select", tmp_path / "rows.parquet", *given, "--out", tmp_path / "a")
    # As their owners state them: 100 problems, eight responses each.
    assert found["accuracy", "best_of_n/score", 8] == pytest.approx(0.94)
    # 93 by the first of equals; of the four problems with two first places three have a right one, worth a half each
    assert found["accuracy", "majority", 8] == pytest.approx(0.925)


@pytest.mark.parametrize("shape", ["column", "one a line", "all in one", "batch", "by problem"])
def test_answers_of_pooling_reach_both_commands_in_whatever_shape_they_were_kept(shape: str, tmp_path: Path):
    rows = rollouts()
    options: list[object] = ["--scores-option", "good=1"]
    if shape == "column":
        rows = [{**row, "pooling": pooling(judged(row))} for row in rows]
        options += ["--scores-option", "column=pooling"]
    else:
        answers = {
            "one a line": [pooling(judged(row)) for row in rows],
            "all in one": [pooling(*map(judged, rows))],
            "batch": [in_batch(f"{row['problem_id']}/{row['sample_idx']}", pooling(judged(row))) for row in rows[::-1]],
            "by problem": [
                in_batch(f"p{at}", pooling(*[judged(row) for row in rows if row["problem_id"] == f"p{at}"]))
                for at in range(4)
            ],
        }[shape]
        write_rows(tmp_path / "answers.jsonl", answers)
        options += ["--scores", tmp_path / "answers.jsonl"]
        if shape == "by problem":
            options += ["--scores-option", "id={problem_id}"]
    write_rows(tmp_path / "rollouts.jsonl", rows)
    chosen, counts = measured("select", tmp_path / "rollouts.jsonl", *options, "--n", "2", "--out", tmp_path / "s")
    assert chosen["accuracy", "best_of_n/min", 2] == 1.0  # min 0.8 against 0.1
    weighed = [reason for reason in counts if " weighted by " in reason]
    assert [reason.partition(" weighted by ")[2] for reason in weighed] == [
        "raw: scores are probability, as their rows say"
    ]
    assert counts["scored by pooling" if shape == "column" else "scored by answers"] == 8
    found, _ = measured("evaluate", tmp_path / "rollouts.jsonl", *options, "--out", tmp_path / "e")
    assert found["processbench_f1", "threshold=split", None] == 1.0
    assert {json.loads(line)["scorer"] for line in (tmp_path / "e/predictions.jsonl").open()} == {"Qwen/PRM"}


def test_answers_of_classify_are_one_score_a_response(tmp_path: Path):
    rows = rollouts()
    write_rows(tmp_path / "rollouts.jsonl", rows)
    write_rows(tmp_path / "answers.jsonl", [classify(*[[0.3, 0.7] if row["correct"] else [0.6, 0.4] for row in rows])])
    given = [tmp_path / "rollouts.jsonl", "--scores", tmp_path / "answers.jsonl"]
    chosen, _ = measured("select", *given, "--scores-option", "good=1", "--n", "2", "--out", tmp_path / "s")
    assert chosen["accuracy", "best_of_n/score", 2] == 1.0
    turned, _ = measured("select", *given, "--scores-option", "good=0", "--n", "2", "--out", tmp_path / "t")
    assert turned["accuracy", "best_of_n/score", 2] == 0.0
    message = refused("select", *given, "--out", tmp_path / "u")
    assert "good: is None; expected the index of the class that means right, 0 to 1" in message
    areas, _ = measured("evaluate", *given, "--scores-option", "good=1", "--out", tmp_path / "v")
    assert areas["response_auc", "score", None] == areas["response_auc_within_problems", "score", None] == 1.0


def test_unbounded_rewards_are_taken_as_scores_when_it_is_said(tmp_path: Path):
    rows = rollouts()
    write_rows(tmp_path / "rollouts.jsonl", rows)
    write_rows(tmp_path / "answers.jsonl", [classify([13.6875] if row["correct"] else [-9.1875]) for row in rows])
    given = ["select", tmp_path / "rollouts.jsonl", "--scores", tmp_path / "answers.jsonl", "--n", "2"]
    assert "holds -9.1875, which are no probabilities" in refused(*given, "--out", tmp_path / "s")
    chosen, _ = measured(*given, "--scores-option", "values=scores", "--out", tmp_path / "s")
    assert chosen["accuracy", "best_of_n/score", 2] == 1.0


def test_failed_requests_are_shown_and_their_responses_have_no_score(tmp_path: Path):
    rows = rollouts()
    write_rows(tmp_path / "rollouts.jsonl", rows)
    error = {"message": "This model's maximum context length is 4096 tokens", "type": "BadRequestError", "code": 400}
    failed = {**in_batch("p0/0", pooling()), "error": {"error": error}}
    failed["response"] = {"status_code": 400, "request_id": "r", "body": None}
    write_rows(
        tmp_path / "answers.jsonl",
        [failed, *(in_batch(f"{row['problem_id']}/{row['sample_idx']}", pooling(judged(row))) for row in rows[1:])],
    )
    given = [tmp_path / "rollouts.jsonl", "--scores", tmp_path / "answers.jsonl", "--scores-option", "good=1"]
    _, counts = measured("select", *given, "--n", "2", "--out", tmp_path / "s")
    assert counts["failed request: This model's maximum context length is N tokens"] == 1
    assert counts["not scored by Qwen/PRM"] == 1
    _, counts = measured("evaluate", *given, "--threshold", "0.5", "--out", tmp_path / "e")
    assert (counts["without a score from elsewhere, left out"], counts["responses"]) == (1, 7)


def test_predictions_of_trl_s_trainer_are_evaluated_beside_their_data(tmp_path: Path):
    # huggingface/trl, trl/experimental/prm/prm_trainer.py, tokenize_row: a label at the last token of each step, -100
    # elsewhere; Trainer.predict gives logits for each token and the labels, both padded with -100.
    rows = []
    for problem in range(4):
        for right in (True, False):
            logits = [[0.0, 0.0], [-2.0, 2.0], [0.0, 0.0], [-1.0, 1.0] if right else [3.0, -3.0], [-100.0, -100.0]]
            rows.append({
                "prompt": f"{problem}?", "completions": ["a", f"b{right}"], "labels": [True, right],
                "predictions": logits, "label_ids": [-100, 1, -100, int(right), -100],
            })  # fmt: skip
    write_table(tmp_path / "predicted.parquet", rows)
    given = ["evaluate", tmp_path / "predicted.parquet", "--threshold", "0.5"]
    for option in ("column=predictions", "mask=label_ids", "good=1", "values=logits", "scorer=trl"):
        given += ["--scores-option", option]
    found, _ = measured(*given, "--out", tmp_path / "e")
    assert found["processbench_f1", "threshold=given", None] == 1.0


def test_labels_of_a_pipeline_are_evaluated(tmp_path: Path):
    rows = [
        {**row, "items": [{"entity": "LABEL_1", "score": 0.9, "word": "Ċ"},
                          {"entity": "LABEL_1" if row["correct"] else "LABEL_0", "score": 0.8, "word": "Ċ"}]}
        for row in rollouts()
    ]  # fmt: skip
    write_rows(tmp_path / "rows.jsonl", rows)
    given = ["--scores-option", "column=items", "--scores-option", "good=LABEL_1"]
    found, _ = measured("evaluate", tmp_path / "rows.jsonl", *given, "--threshold", "0.5", "--out", tmp_path / "e")
    assert found["processbench_f1", "threshold=given", None] == 1.0


def test_scores_for_other_steps_are_refused_by_name_or_skipped_and_counted(tmp_path: Path):
    rows = rollouts()
    answers = [pooling(judged(row)) for row in rows]
    answers[3] = pooling([[0.5, 0.5]])
    write_rows(tmp_path / "rollouts.jsonl", rows)
    write_rows(tmp_path / "answers.jsonl", answers)
    given = [tmp_path / "rollouts.jsonl", "--scores", tmp_path / "answers.jsonl", "--scores-option", "good=1"]
    message = refused("select", *given, "--out", tmp_path / "s")
    assert (
        "answers.jsonl:4, problem 'p1', sample 1: answers: has 1 step scores, but the response has 2 steps" in message
    )
    _, counts = measured("select", *given, "--skip-bad", "--n", "2", "--out", tmp_path / "s")
    assert counts["skipped: answers: has N step scores, but the response has N steps"] == 1


def test_convert_writes_the_scores_along(tmp_path: Path):
    rows = rollouts()
    write_rows(tmp_path / "rollouts.jsonl", rows)
    write_rows(tmp_path / "answers.jsonl", [pooling(judged(row)) for row in rows])
    code, _, err = run(
        "convert", tmp_path / "rollouts.jsonl", "--scores", tmp_path / "answers.jsonl", "--scores-option", "good=1",
        "--out", tmp_path / "scored.jsonl",
    )  # fmt: skip
    assert code == 0, err
    written = [row for _, row in read_rows(tmp_path / "scored.jsonl")]
    assert [row["step_scores"] for row in written if isinstance(row, dict)] == [
        [right for _, right in judged(row)] for row in rows
    ]
    found, _ = measured("evaluate", tmp_path / "scored.jsonl", "--out", tmp_path / "e")
    assert found["processbench_f1", "threshold=split", None] == 1.0


def test_other_answers_are_another_run(tmp_path: Path):
    rows = rollouts()
    write_rows(tmp_path / "rollouts.jsonl", rows)
    write_rows(tmp_path / "answers.jsonl", [pooling(judged(row)) for row in rows])
    given = [tmp_path / "rollouts.jsonl", "--scores", tmp_path / "answers.jsonl", "--scores-option", "good=1"]
    measured("select", *given, "--out", tmp_path / "s")
    write_rows(tmp_path / "answers.jsonl", [pooling([[0.5, 0.5]] * 2) for _ in rows])
    assert "RunFolderError" in refused("select", *given, "--out", tmp_path / "s")


def test_the_example_of_the_page_gives_what_it_promises(tmp_path: Path):
    page = (Path(__file__).parents[2] / "docs" / "elsewhere.md").read_text(encoding="utf-8")
    rollouts_shown, answers_shown = re.findall(r"^```json\n(.*?)^```$", page, re.M | re.S)
    (tmp_path / "rollouts.jsonl").write_text(rollouts_shown, encoding="utf-8")
    (tmp_path / "answers.jsonl").write_text(answers_shown, encoding="utf-8")
    given = [tmp_path / "rollouts.jsonl", "--scores", tmp_path / "answers.jsonl", "--scores-option", "good=1"]
    chosen, _ = measured("select", *given, "--n", "2", "--out", tmp_path / "s")
    assert chosen["accuracy", "best_of_n/min", 2] == 1.0
    found, _ = measured("evaluate", *given, "--threshold", "0.5", "--out", tmp_path / "e")
    assert found["processbench_f1", "threshold=given", None] == 1.0


def test_every_option_is_on_the_page():
    page = (Path(__file__).parents[2] / "docs" / "elsewhere.md").read_text(encoding="utf-8")
    for option in fields(ScoreOptions):
        assert f"| `{option.name}=" in page
