"""Answers as vLLM gives them, shapes by vllm-project/vllm's vllm/entrypoints/pooling/*/protocol.py and run_batch.py."""

from pathlib import Path
from typing import Any

import pytest

from freeprm.errors import ConfigError, DataError, RecordError
from freeprm.formats._served import Answer, answer_of, by_id, failures, in_order
from freeprm.io.rows import Row, Source
from freeprm.types import Rollout

USAGE = {"prompt_tokens": 214, "total_tokens": 214, "completion_tokens": 0, "prompt_tokens_details": None}
STEPS = [[0.1, 0.9], [0.8, 0.2]]


def pooled(*items: Any, **changed: Any) -> Row:
    """PoolingResponse."""
    data = [{"index": index, "object": "pooling", "data": item} for index, item in enumerate(items)]
    return {"id": "pool-1", "object": "list", "created": 1, "model": "prm", "data": data, "usage": USAGE, **changed}


def classified(*probs: list[float]) -> Row:
    """ClassificationResponse."""
    data = [
        {"index": index, "label": "LABEL_1", "probs": item, "num_classes": len(item)}
        for index, item in enumerate(probs)
    ]
    return {"id": "classify-1", "object": "list", "created": 1, "model": "orm", "data": data, "usage": USAGE}


def batch(custom_id: Any, body: Row | None, *, error: Any = None, status: int = 200) -> Row:
    """BatchRequestOutput."""
    response = {"status_code": status, "request_id": "vllm-batch-1", "body": body}
    return {"id": "vllm-1", "custom_id": custom_id, "response": response, "error": error}


def samples(*keys: tuple[str, int], **extra: Any) -> list[Rollout]:
    return [
        Rollout(problem_id=problem, sample_idx=index, prompt="?", response=f"{index}", extra=extra)
        for problem, index in keys
    ]


PAIR = samples(("p", 0), ("p", 1))


def read(*rows: Row) -> list[Answer]:
    return [answer_of(row, Source(Path("answers.jsonl"), line)) for line, row in enumerate(rows, 1)]


def test_an_answer_has_an_item_for_each_text_and_names_its_model(here: Source):
    answer = answer_of(pooled(STEPS, [[0.5, 0.5]]), here)
    assert [item["data"] for item in answer.items] == [STEPS, [[0.5, 0.5]]]
    assert (answer.model, answer.custom_id, answer.error) == ("prm", None, None)
    assert answer_of(classified([0.3, 0.7]), here).items[0]["probs"] == [0.3, 0.7]


def test_items_are_taken_by_their_index_and_not_by_their_place(here: Source):
    body = pooled(STEPS, [[0.5, 0.5]])
    turned = {**body, "data": body["data"][::-1]}
    assert answer_of(turned, here) == answer_of(body, here)
    body["data"][1]["index"] = 0
    with pytest.raises(RecordError, match=r"rows\.jsonl:3: data: its items have the indices \[0, 0\]; expected 0 to 1"):
        answer_of(body, here)


def test_a_batch_row_is_its_body_under_an_id(here: Source):
    answer = answer_of(batch("p/0", pooled(STEPS)), here)
    assert (answer.custom_id, answer.model, len(answer.items)) == ("p/0", "prm", 1)
    assert answer_of(batch(7, pooled(STEPS)), here).custom_id == "7"
    assert answer_of({"custom_id": "p/0", **pooled(STEPS)}, here) == answer


@pytest.mark.parametrize(
    "row",
    [
        {"error": {"message": "too long: 5012 tokens", "type": "BadRequestError", "param": None, "code": 400}},
        {"object": "error", "message": "too long: 5012 tokens", "type": "BadRequestError", "code": 400},
        batch("p/0", None, error={"error": {"message": "too long: 7 tokens", "code": 400}}, status=400),
        batch("p/0", None, error="too long: 7 tokens", status=400),
        batch("p/0", {"error": {"message": "too long: 7 tokens"}}, status=400),
    ],
)
def test_a_failed_request_is_known_as_such_and_counted_by_what_the_server_said(row: Row, here: Source):
    answer = answer_of(row, here)
    assert (list(answer.items), answer.error) == ([], "too long: N tokens")
    assert failures([answer, answer]) == {"failed request: too long: N tokens": 2}


def test_a_status_without_a_message_is_a_failure_too(here: Source):
    assert answer_of(batch("p/0", None, status=500), here).error == "status N"


@pytest.mark.parametrize(
    ("row", "message"),
    [
        (
            {"problem_id": "p", "response": "x"},
            "has problem_id, response; expected an answer of /pooling, /classify or",
        ),
        (batch("p/0", None), "has no body; expected an answer"),
        (pooled(STEPS) | {"data": "AAAA"}, "expected an answer"),
        (pooled(STEPS) | {"data": [STEPS]}, r"indices \[None\]"),
    ],
)
def test_a_row_that_is_no_answer_is_refused_with_its_place(row: Row, message: str, here: Source):
    with pytest.raises(RecordError, match=rf"^rows\.jsonl:3: .*{message}"):
        answer_of(row, here)


def test_numbers_for_each_token_are_no_step_scores(here: Source):
    # pooling_type ALL, which is the default for what vLLM turns into a classifier: as many lists as prompt_tokens
    usage = {**USAGE, "prompt_tokens": 5}
    with pytest.raises(RecordError, match=r"numbers for each of 5 tokens, not for each step; .* pooling_type STEP"):
        answer_of(pooled([[0.5, 0.5]] * 5, usage=usage), here)
    with pytest.raises(RecordError, match="numbers for each of 5 tokens"):
        answer_of(pooled([[0.5, 0.5]] * 2, [[0.5, 0.5]] * 3, usage=usage), here)
    assert answer_of(pooled([[0.5, 0.5]] * 4, usage=usage), here).items


def test_an_id_leads_to_its_response_whatever_the_order():
    matched, flaws = by_id(
        read(batch("p/1", pooled([[0.5, 0.5]])), batch("p/0", pooled(STEPS))),
        PAIR,
        template="{problem_id}/{sample_idx}",
    )
    assert [(item.rollout.sample_idx, item.outputs["data"]) for item in matched] == [(1, [[0.5, 0.5]]), (0, STEPS)]
    assert not flaws


def test_an_id_of_a_problem_is_for_all_its_responses():
    rows = read(batch("p", pooled(STEPS, [[0.5, 0.5]])))
    matched, flaws = by_id(rows, PAIR[::-1], template="{problem_id}")
    assert [item.rollout.sample_idx for item in matched] == [0, 1]
    assert not flaws
    _, (flaw,) = by_id(read(batch("p", pooled(STEPS))), PAIR, template="{problem_id}")
    assert str(flaw) == "answers.jsonl:1: custom_id: 'p' is the id of 2 responses, but has 1 items"


def test_an_id_may_be_made_of_any_column():
    rollouts = samples(("p", 0), uid="u-7")
    matched, _ = by_id(read(batch("req-u-7", pooled(STEPS))), rollouts, template="req-{uid}")
    assert matched[0].rollout is rollouts[0]
    with pytest.raises(
        ConfigError, match=r"id: '\{uuid\}' cannot be made of problem 'p', sample 0 .*; expected columns"
    ):
        by_id([], rollouts, template="{uuid}")
    with pytest.raises(ConfigError, match="makes the same id of problem 'p', sample 0 and problem 'q', sample 0"):
        by_id([], samples(("p", 0), ("q", 0)), template="{sample_idx}")


def test_ids_that_are_nobody_s_or_there_twice_are_named():
    rows = read(batch("p/0", pooled(STEPS)), batch("p/0", pooled(STEPS)), batch("p-1", pooled(STEPS)))
    matched, flaws = by_id(rows, PAIR, template="{problem_id}/{sample_idx}")
    assert len(matched) == 1
    assert str(flaws[0]) == (
        "answers.jsonl:2: custom_id: 'p/0' is already at answers.jsonl:1; expected one answer a request"
    )
    assert "answers.jsonl:3: custom_id: 'p-1' is no response's; ids are made like 'p/0'" in str(flaws[1])


def test_a_request_that_failed_may_have_been_repeated():
    rows = read(batch("p/0", None, error="busy", status=503), batch("p/0", pooled(STEPS)))
    matched, flaws = by_id(rows, PAIR, template="{problem_id}/{sample_idx}")
    assert (len(matched), flaws) == (1, [])


def test_answers_without_ids_are_in_the_order_of_the_responses():
    for rows in ([pooled(STEPS), pooled([[0.5, 0.5]])], [pooled(STEPS, [[0.5, 0.5]])]):
        matched = in_order(read(*rows), PAIR)
        assert [(item.rollout.sample_idx, item.outputs["data"]) for item in matched] == [(0, STEPS), (1, [[0.5, 0.5]])]
    with pytest.raises(DataError, match=r"answers\.jsonl:1: 1 answers for 2 responses; .* one for each"):
        in_order(read(pooled(STEPS)), PAIR)


def test_a_failed_request_keeps_its_place_in_the_order():
    failed = {"error": {"message": "busy"}}
    (only,) = in_order(read(failed, pooled(STEPS)), PAIR)
    assert only.rollout.sample_idx == 1
    with pytest.raises(DataError, match="it cannot be told which response an answer is for; give requests a custom_id"):
        in_order(read(failed, pooled(STEPS, STEPS)), PAIR)
