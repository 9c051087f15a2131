from typing import Any

import pytest

from freeprm.errors import ConfigError, DataError, RecordError
from freeprm.formats._preferences import CUT_OFF
from freeprm.formats._reading import read_records
from freeprm.formats.trl_preference import PLUGIN
from freeprm.io.rows import Source, write_rows
from freeprm.types import Group, Rollout, group_rollouts

USER = {"role": "user", "content": "2 + 3?"}
TEXTS = {"prompt": "2 + 3?", "chosen": "It is 5.", "rejected": "It is 6."}
MESSAGES: dict[str, Any] = {
    "prompt": [USER],
    "chosen": [{"role": "assistant", "content": "It is 5."}],
    "rejected": [{"role": "assistant", "content": "It is 6."}],
}
FORMAT = PLUGIN()


def read(row: dict[str, Any], here: Source) -> list[Rollout]:
    return list(FORMAT.read(row, here))


@pytest.mark.parametrize("row", [TEXTS, MESSAGES], ids=["texts", "messages"])
def test_the_chosen_reply_is_right_and_the_rejected_one_wrong(row: dict[str, Any], here: Source):
    chosen, rejected = read({**row, "margin": 2}, here)
    assert [(one.response, one.correct, one.sample_idx) for one in (chosen, rejected)] == [
        ("It is 5.", True, 0), ("It is 6.", False, 1),
    ]  # fmt: skip
    assert chosen.extra == rejected.extra == {"margin": 2}
    assert FORMAT.write(group_rollouts([chosen, rejected])).rows == [row]


def test_each_row_is_a_problem_of_its_own(tmp_path):  # type: ignore[no-untyped-def]
    rows = [TEXTS, {**TEXTS, "rejected": "It is 7."}, TEXTS]
    write_rows(tmp_path / "rows.jsonl", rows)
    groups = group_rollouts(read_records([tmp_path / "rows.jsonl"]).rollouts)
    assert [len(group.rollouts) for group in groups] == [2, 2, 2]
    assert FORMAT.write(groups).rows == rows  # and no pair across rows


def test_a_problem_id_begins_the_id_of_each_of_its_pairs(here: Source):
    one = {rollout.problem_id for rollout in read({**TEXTS, "problem_id": 7}, here)}
    other = {rollout.problem_id for rollout in read({**TEXTS, "problem_id": 7, "rejected": "five"}, here)}
    assert len(one) == len(other) == 1
    assert one != other
    assert all(problem_id.startswith("7/pair-") for problem_id in one | other)


def test_rows_of_other_formats_with_these_columns_are_left_to_them():
    assert FORMAT.recognises(TEXTS)
    assert FORMAT.recognises({"chosen": "a", "rejected": "b"})
    assert not FORMAT.recognises({**TEXTS, "trajectory": []})
    assert not FORMAT.recognises({**TEXTS, "score_chosen": 1, "score_rejected": 0})
    assert not FORMAT.recognises({"prompt": "a", "chosen": "b"})


def test_a_broken_row_is_refused_with_its_place_and_field(here: Source):
    with pytest.raises(RecordError, match=r"^rows\.jsonl:3: rejected: is None; expected text or a list") as error:
        read({**TEXTS, "rejected": None}, here)
    assert error.value.reason == 'rejected is not text or a list of {"role", "content"}'


def rollout(response: str, correct: bool | None, **changes: Any) -> Rollout:
    number = {"a": 0, "b": 1, "c": 2, "d": 3}[response]
    fields = {"problem_id": "p", "sample_idx": number, "prompt": "Q?", "response": response, "correct": correct}
    return Rollout(**{**fields, **changes})


def test_pairs_are_made_as_asked():
    groups = group_rollouts([rollout("a", True), rollout("b", True), rollout("c", False), rollout("d", False)])
    pairs = [(row["chosen"], row["rejected"]) for row in FORMAT.write(groups).rows]
    assert pairs == [("a", "c"), ("a", "d"), ("b", "c"), ("b", "d")]
    assert len(PLUGIN(pairing="one_to_one").write(groups).rows) == 2
    capped = PLUGIN(max_pairs=1).write(groups)
    assert (len(capped.rows), capped.skipped) == (
        1,
        {"pairs above max_pairs": 3, "responses only in pairs above max_pairs": 2},
    )
    with pytest.raises(ConfigError, match="pairing"):
        PLUGIN(pairing="one_to_two").write(groups)


def test_what_gives_no_pair_is_counted():
    rollouts = [rollout("a", True), rollout("b", False), rollout("c", None), rollout("d", True, problem_id="q")]
    written = FORMAT.write(group_rollouts(rollouts))
    assert len(written.rows) == 1
    assert written.skipped["groups without a wrong response"] == 1


def test_a_response_that_was_cut_off_is_left_out_unless_asked_for():
    groups = group_rollouts([rollout("a", True), rollout("b", False), rollout("c", False, truncated=True)])
    written = FORMAT.write(groups)
    assert [row["rejected"] for row in written.rows] == ["b"]
    assert written.skipped == {CUT_OFF: 1}
    assert [row["rejected"] for row in PLUGIN(cut_off=True).write(groups).rows] == ["b", "c"]


def test_rows_are_all_of_one_kind():
    mixed = group_rollouts([
        rollout("a", True), rollout("b", False),
        rollout("a", True, problem_id="q", prompt=(USER,)), rollout("b", False, problem_id="q", prompt=(USER,)),
    ])  # fmt: skip
    as_messages, as_texts = FORMAT.write(mixed).rows, PLUGIN(conversational=False).write(mixed).rows
    assert [row["prompt"] for row in as_messages] == [[{"role": "user", "content": "Q?"}], [USER]]
    assert [row["chosen"] for row in as_messages] == [[{"role": "assistant", "content": "a"}]] * 2
    assert [row["prompt"] for row in as_texts] == ["Q?", "2 + 3?"]


def test_conversations_that_are_no_text_are_counted():
    turns = (USER, {"role": "assistant", "content": "5"}, USER)
    long = [rollout("a", True, problem_id="q", prompt=turns), rollout("b", False, problem_id="q", prompt=turns)]
    written = PLUGIN(conversational=False).write(group_rollouts([rollout("a", True), rollout("b", False), *long]))
    assert len(written.rows) == 1
    assert written.skipped == {"a prompt of several messages, where the format takes one text": 1}


def test_rollouts_without_a_wrong_response_throughout_are_refused():
    with pytest.raises(DataError, match="1 right and 0 wrong"):
        FORMAT.write(group_rollouts([rollout("a", True)]))
    with pytest.raises(DataError, match="needs problems with both a right and a wrong response"):
        FORMAT.write(group_rollouts([rollout("a", True), rollout("b", False, problem_id="q")]))


def test_pairs_of_our_own_graded_rollouts_come_back_the_same(graded: list[Group], here: Source):
    rows = FORMAT.write(graded).rows
    back = group_rollouts([rollout for row in rows for rollout in read(row, here)])
    expected = [
        (right.response, wrong.response)
        for group in graded
        for right in group.rollouts
        for wrong in group.rollouts
        if right.correct is True and wrong.correct is False
    ]
    assert {(group.rollouts[0].response, group.rollouts[1].response) for group in back} == set(expected)
    assert [(row["chosen"], row["rejected"]) for row in rows] == expected
