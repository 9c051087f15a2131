from collections import Counter
from dataclasses import replace
from math import isnan

import numpy as np
import pytest

import stepped
import tiny
from freeprm.errors import RecordError
from freeprm.models.encoding import encode, fit
from freeprm.training.steps import StepReader, TextSteps, in_tokens
from freeprm.types import Rollout, Span

HARD, SOFT = (StepReader(splitter="lines", labels=kind) for kind in ("hard", "soft"))
UNLABELLED = StepReader(splitter="lines", labels=None)
THREE = "one\ntwo\nthree"


def rollout(response: str = THREE, **columns: object) -> Rollout:
    return Rollout(problem_id="p", sample_idx=3, prompt="q", response=response, correct=True, extra=columns)


def shown(labels) -> list[float | None]:
    return [None if isnan(label) else float(label) for label in labels]


def test_steps_are_the_rows_own_or_those_that_the_splitter_cuts():
    assert UNLABELLED.in_text(rollout()).spans == [Span(0, 4), Span(4, 8), Span(8, 13)]
    assert UNLABELLED.in_text(rollout(steps=["one\ntwo", "three"])).spans == [Span(0, 8), Span(8, 13)]
    assert shown(UNLABELLED.in_text(rollout(step_labels=[True, True, False])).labels) == [None] * 3


def test_labels_are_hard_or_soft_and_each_may_be_unknown():
    row = rollout(step_labels=[True, None, False], step_values=[0.75, 1, None])
    assert shown(HARD.in_text(row).labels) == [1.0, None, 0.0]
    assert shown(SOFT.in_text(row).labels) == [0.75, 1.0, None]


@pytest.mark.parametrize(
    ("labels", "outcome"), [([True, False], False), ([False, True, None], True), ([None, False, None], False)]
)
def test_labels_of_steps_imply_the_outcome_of_the_last_that_is_known(labels, outcome):
    assert HARD.in_text(rollout("\n".join("abc"[: len(labels)]), step_labels=labels)).outcome is outcome


@pytest.mark.parametrize("columns", [{}, {"step_labels": None}, {"step_labels": [None, None, None]}])
def test_a_response_without_any_label_has_none(columns):
    assert HARD.in_text(rollout(**columns)) is None


@pytest.mark.parametrize(
    ("reader", "columns", "message"),
    [
        (
            HARD,
            {"step_labels": [True]},
            r"step_labels: has 1 labels; .* each of the 3 steps that splitter 'lines' finds",
        ),
        (HARD, {"step_labels": [True], "steps": ["one two", "three"]}, "steps: step 0, 'one two', is not at character"),
        (SOFT, {"step_values": [1], "steps": ["one", "two\nthree"]}, "step_values: has 1 labels; .* 2 steps of column"),
        (HARD, {"step_labels": [1, 0, 1]}, "step_labels: has 1 for step 0; expected true, false or null for each step"),
        (SOFT, {"step_values": [0.5, 1.5, 0]}, "step_values: has 1.5 for step 1; expected a number from 0 to 1"),
        (SOFT, {"step_values": [True, 0, 0]}, "step_values: has True for step 0; expected a number"),
        (SOFT, {"step_values": [float("nan"), 0, 0]}, "step_values: has nan for step 0; expected a number"),
        (HARD, {"step_labels": "+-+"}, r"step_labels: is '\+-\+'; expected a list"),
        (HARD, {"step_labels": [True] * 3, "steps": 3}, "steps: is 3; expected a list of texts"),
    ],
)
def test_what_does_not_fit_is_refused_by_problem_and_sample(reader, columns, message):
    with pytest.raises(RecordError, match=rf"^problem 'p', sample 3: {message}") as caught:
        reader.in_text(rollout(**columns))
    assert "'p'" not in caught.value.reason


def test_steps_end_at_their_last_tokens_and_the_last_of_them_at_the_end_of_turn():
    made = stepped.rollouts(1)
    for one, item in zip(made, encode(tiny.tokenizer(), made), strict=True):
        counts = Counter()
        tokens = in_tokens(HARD.in_text(one), item, one.response, counts)
        texts = [one.response[item.offsets[a, 0] : item.offsets[b - 1, 1]]
                 for a, b in zip([0, *(tokens.ends[:-1] + 1)], tokens.ends + 1, strict=True)]  # fmt: skip
        assert "".join(texts) == one.response
        assert [text.strip() for text in texts] == [step.strip() for step in one.extra["steps"]]
        assert tokens.ends[-1] == item.n_response - 1
        assert item.ids[-1] == tiny.tokenizer().eos_token_id
        assert tokens.labels.tolist() == [float(label) for label in one.extra["step_labels"]]
        assert not +counts


@pytest.mark.parametrize("kept", range(1, 13))
def test_a_label_is_kept_just_where_its_whole_step_is(kept):
    # Bytes: `one\n`, `two\n`, `three`; without the newline a step is whole already.
    one = rollout(step_labels=[True, False, True])
    item = encode(tiny.tokenizer(), [one])[0]
    assert item.n_response == 14  # a byte a token, and the end of turn
    cut = fit([item], max_length=item.n_prompt + kept, too_long="truncate").encoded[0]
    counts = Counter()
    tokens = in_tokens(HARD.in_text(one), cut, one.response, counts)
    begun = sum(kept > start for start in (0, 4, 8))
    whole = sum(kept >= stop for stop in (3, 7, 13))
    assert shown(tokens.labels) == [*[1.0, 0.0, 1.0][:whole], *[None] * (begun - whole)]
    assert tokens.ends.tolist() == [*[3, 7][: begun - 1], kept - 1]
    assert counts["step labels cut off by the context"] == 3 - whole


def test_a_step_inside_a_token_of_the_one_before_is_dropped_with_its_label():
    response = "a.b"
    item = encode(tiny.tokenizer(), [rollout(response)])[0]
    joined = replace(item, ids=item.ids[:-2], offsets=np.array([[0, 1], [1, 3]], dtype=np.int32))  # `a` and `.b`
    steps = TextSteps([Span(0, 2), Span(2, 3)], [1.0, 0.0])
    counts = Counter()
    tokens = in_tokens(steps, joined, response, counts)
    assert tokens.ends.tolist() == [1]
    assert tokens.labels.tolist() == [1.0]
    assert counts == {"step labels of steps without a token of their own": 1}
