import json
from pathlib import Path

import pytest

import tiny
from freeprm.core.curation import Recipe
from freeprm.errors import RecordError
from freeprm.io.formats import rollout_row
from freeprm.training.sources import read_graded, source_paths


def written(path: Path, rollouts, *more: str) -> Path:
    path.write_text("".join([json.dumps(rollout_row(rollout)) + "\n" for rollout in rollouts] + list(more)))
    return path


def test_sources_may_use_the_same_ids_and_what_is_skipped_says_where(tmp_path: Path):
    mine, other = (
        written(tmp_path / f"{name}.jsonl", tiny.rollouts(2, seed=seed), more)
        for name, seed, more in (("mine", 0, "{\n"), ("other", 1, "{\n"))
    )
    recipe = Recipe(mix={str(other): 0.5}, replace={str(other): 0.5})
    assert source_paths(recipe) == [other]
    read = read_graded([mine], recipe, columns=None, on_bad="skip")
    assert (read.name, [*read.sources]) == (str(mine), [str(other)])
    assert len(read.groups) == len(read.sources[str(other)]) == 2
    assert read.skipped == {"not valid JSON": 1, f"{other}: not valid JSON": 1}


def test_samples_that_two_scorers_scored_are_there_once(tmp_path: Path):
    rows = [{**rollout_row(rollout), "scorer": name} for name in "ab" for rollout in tiny.rollouts(1)]
    path = tmp_path / "rows.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    read = read_graded([path], Recipe(), columns=None, on_bad="raise")
    assert len(read.groups[0].rollouts) == 4
    assert read.skipped == {"again, with the scores of another scorer": 4}


def test_a_source_without_labels_is_refused(tmp_path: Path):
    mine = written(tmp_path / "mine.jsonl", tiny.rollouts(2))
    other = tmp_path / "other.jsonl"
    other.write_text('{"problem_id": "x", "prompt": "q", "response": "r"}\n')
    with pytest.raises(RecordError, match=r"other\.jsonl:1: correct: no such column"):
        read_graded([mine], Recipe(mix={str(other): 0.5}), columns=None, on_bad="raise")
