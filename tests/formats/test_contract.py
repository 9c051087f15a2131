"""What every format must do; a new file in `formats/` is tested here unasked."""

import json
from collections import Counter
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from freeprm.core.steps import given_steps
from freeprm.errors import DataError, RecordError
from freeprm.formats._reading import load_format, read_records, recognise
from freeprm.io import plugins
from freeprm.io.rows import Source, write_rows
from freeprm.types import Group, Prompt, Rollout, group_rollouts

NAMES = plugins.names("formats", installed=False)
every_format = pytest.mark.parametrize("name", NAMES)


@pytest.fixture(scope="session")
def said(graded: list[Group]) -> list[Group]:
    """Rollouts of which everything is known: labels, step labels, scores, gold answers."""
    return [replace(group, rollouts=tuple(map(scored, group.rollouts))) for group in graded]


def scored(rollout: Rollout) -> Rollout:
    labels = rollout.extra["step_labels"]
    return replace(rollout, scorer="s", step_scores=tuple(map(float, labels)), score=float(sum(labels)))


def written(name: str, groups: list[Group]) -> list[dict[str, Any]]:
    """Rows as they come back from a file."""
    rows: list[dict[str, Any]] = json.loads(json.dumps(load_format(name).write(groups).rows))
    assert rows
    return rows


def text_of(prompt: Prompt) -> str:
    return prompt if isinstance(prompt, str) else prompt[-1]["content"]


def squeezed(text: str) -> str:
    """The text without whitespace, which formats of steps may not keep between them."""
    return "".join(text.split())


def originals(rollout: Rollout, groups: list[Group]) -> list[Rollout]:
    """The responses that a rollout is one of, or the beginning of one of."""
    prompt, response = squeezed(text_of(rollout.prompt)), squeezed(rollout.response)
    return [
        item
        for group in groups
        for item in group.rollouts
        if squeezed(text_of(group.prompt)) == prompt and squeezed(item.response).startswith(response)
    ]


@every_format
def test_a_row_is_recognised_by_its_format_alone(name: str, said: list[Group]):
    for row in written(name, said)[:5]:
        assert recognise(row) == [name]
    assert not load_format(name).recognises({})
    assert not load_format(name).recognises({"question": "2 + 2?", "answer": "#### 4"})


@every_format
def test_what_is_written_is_read_back_with_the_labels_that_it_says(name: str, said: list[Group], here: Source):
    format_ = load_format(name)
    back = [rollout for row in written(name, said) for rollout in format_.read(row, here)]
    assert back
    for rollout in back:
        known = originals(rollout, said)
        assert known, "a response that nobody gave, or to another problem"
        whole = [item for item in known if squeezed(item.response) == squeezed(rollout.response)]
        assert not whole or rollout.correct in (None, *(item.correct for item in whole))
        assert rollout.answer in (None, known[0].answer)
        if (labels := rollout.extra.get("step_labels")) is not None:
            truth = known[0].extra["step_labels"][: len(labels)]
            assert all(label in (None, true) for label, true in zip(labels, truth, strict=True))
        if (steps := rollout.extra.get("steps")) is not None:
            assert len(given_steps(rollout.response, steps)) == len(steps)


@every_format
def test_writing_what_was_read_gives_the_same_rollouts_again(name: str, said: list[Group], tmp_path: Path):
    write_rows(tmp_path / "once.jsonl", written(name, said))
    once = read_records([tmp_path / "once.jsonl"])
    assert once.formats == {tmp_path / "once.jsonl": name}
    try:
        rows = load_format(name).write(group_rollouts(once.rollouts)).rows
    except DataError:
        pytest.skip("what is read says less than what is needed to write")
    write_rows(tmp_path / "again.jsonl", rows)
    again = read_records([tmp_path / "again.jsonl"])
    assert {(item.prompt, item.response, item.correct) for item in map(_hashable, again.rollouts)} == {
        (item.prompt, item.response, item.correct) for item in map(_hashable, once.rollouts)
    }


def _hashable(rollout: Rollout) -> Rollout:
    return replace(rollout, prompt=text_of(rollout.prompt))


@every_format
def test_a_row_is_read_the_same_twice_and_left_as_it_was(name: str, said: list[Group], here: Source):
    row = written(name, said)[0]
    before = json.dumps(row)
    format_ = load_format(name)
    assert list(format_.read(row, here)) == list(format_.read(row, here))
    assert json.dumps(row) == before


@every_format
def test_ids_are_text_and_samples_are_numbered_inside_the_row(name: str, said: list[Group], here: Source):
    for row in written(name, said):
        made = list(load_format(name).read(row, here))
        keys = [(item.problem_id, item.sample_idx, item.scorer) for item in made]
        assert len(set(keys)) == len(keys)
        assert all(isinstance(item.problem_id, str) and item.problem_id for item in made)
        assert all(not isinstance(item.prompt, list) for item in made)


@every_format
def test_a_row_without_a_column_is_refused_by_place_and_name_or_is_fine_without(
    name: str, said: list[Group], here: Source
):
    row = written(name, said)[0]
    errors = {
        column: refusal(name, {key: value for key, value in row.items() if key != column}, here) for column in row
    }
    refused = {column: error for column, error in errors.items() if error}
    for column, error in refused.items():
        assert str(error).startswith(f"{here}: ")
        assert column in str(error)
        assert str(here) not in error.reason
    assert refused, "nothing is needed"


broken = st.one_of(
    st.none(), st.booleans(), st.integers(), st.floats(allow_nan=False), st.text(), st.lists(st.integers(), max_size=2),
    st.dictionaries(st.text(max_size=3), st.none(), max_size=2), st.just([{"role": "user"}]), st.just([[]]),
)  # fmt: skip


_FIRST: dict[str, dict[str, Any]] = {}
"""A row of each format."""
_loaded = cache(load_format)


@every_format
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_no_value_makes_reading_fail_otherwise_than_by_place(
    name: str, said: list[Group], here: Source, data: st.DataObject
):
    row = _FIRST[name] if name in _FIRST else _FIRST.setdefault(name, written(name, said)[0])
    column = data.draw(st.sampled_from(sorted(row)))
    error = refusal(name, {**row, column: data.draw(broken)}, here)
    assert error is None or str(error).startswith(f"{here}: ")


def refusal(name: str, row: dict[str, Any], here: Source) -> RecordError | None:
    """How a format refuses a row, if it does; no other error may come out of it."""
    try:
        list(_loaded(name).read(row, here))
    except RecordError as error:
        return error
    return None


@every_format
def test_rollouts_that_say_nothing_are_refused_or_counted(name: str, here: Source):
    bare = Rollout(problem_id="p", sample_idx=0, prompt="2 + 2?", response="4")
    groups = [Group(problem_id="p", prompt=bare.prompt, rollouts=(bare, replace(bare, sample_idx=1)))]
    try:
        made = load_format(name).write(groups)
    except DataError:
        return
    assert made.rows
    assert isinstance(made.skipped, Counter)
    assert all(count > 0 for count in made.skipped.values())
