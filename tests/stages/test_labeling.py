"""Labels of steps as rows: in the embedded world, where the truth of each step is known."""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from freeprm.engines.base import Request, Sampled, SamplingParams
from freeprm.engines.hf.engine import HFEngine
from freeprm.errors import ConfigError, DataError, RunFolderError, SpanError
from freeprm.io.rows import Row, write_rows
from freeprm.io.runs import read_manifest
from freeprm.stages.base import RunResult
from freeprm.stages.grading import grade
from freeprm.stages.labeling import label
from freeprm.stages.sampling import sample
from scripted import Scripted

SCRIPTED = {"model": "m", "engine": f"{Scripted.__module__}:Scripted", "n": 4}
ROWS: list[Row] = [
    {"problem_id": "p", "prompt": "3+4?", "sample_idx": 0, "response": "a4.\n\na1.\n\na0.", "answer": "7",
     "correct": False, "step_labels": [True, False, False], "first_error": 1, "level": 3},
    {"problem_id": "p", "prompt": "3+4?", "sample_idx": 1, "response": "a4.\n\nx", "answer": "7", "correct": True,
     "step_labels": [True, True], "first_error": None},
    {"problem_id": "p", "prompt": "3+4?", "sample_idx": 2, "response": "", "answer": "7", "correct": False},
    {"problem_id": "q", "prompt": "3+4?", "sample_idx": 0, "response": "a2.\n\nx", "answer": "7", "first_error": 0},
]  # fmt: skip


@pytest.fixture
def graded(tmp_path: Path) -> Path:
    path = tmp_path / "graded.jsonl"
    write_rows(path, ROWS)
    return path


def rows_of(made: RunResult) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (made.folder / "rollouts.jsonl").read_text().splitlines()]


def test_rows_get_labels_and_keep_what_was_known_of_their_steps_as_the_truth(graded: Path, tmp_path: Path):
    made = label([graded], labeler="monte_carlo", options=SCRIPTED, out=tmp_path / "out")
    first, second, empty, ungraded = rows_of(made)
    assert first["steps"] == ["a4.", "a1.", "a0."]
    assert (first["step_labels"], first["step_values"], first["first_error"]) == ([True, True, False], [1, 0.25, 0], 2)
    assert (first["true_step_labels"], first["true_first_error"]) == ([True, False, False], 1)
    assert (first["step_labeler"], first["step_completions"], first["level"]) == ("monte_carlo", [4, 4, 0], 3)
    assert (second["step_labels"], second["first_error"], second["true_first_error"]) == ([True, True], None, None)
    for row in (empty, ungraded):
        assert not {"step_labels", "step_values", "step_labeler", "first_error"} & set(row)
    assert ungraded["true_first_error"] == 0
    assert {name: made.counts[name] for name in made.counts if "label" in name} == {
        "labelled": 2, "not labelled: empty": 1, "not labelled: without an outcome label": 1, "steps labelled": 5,
        "steps labelled wrong": 1,
    }  # fmt: skip
    found = {(metric.metric, metric.selector): (metric.value, metric.count) for metric in made.metrics}
    assert found["step_accuracy", "all steps"] == (4 / 5, 5)
    assert found["accuracy_erroneous", None] == (0.0, 1)  # said to be the third step, is the second
    assert (read_manifest(made.folder) or {})["cost"]["flops"] == made.cost.flops
    again = label([graded], labeler="monte_carlo", options=SCRIPTED, out=tmp_path / "out")
    assert again == made


def test_labels_of_a_labeler_are_no_truth_for_the_next(graded: Path, tmp_path: Path):
    first = label([graded], labeler="monte_carlo", options=SCRIPTED, out=tmp_path / "first")
    second = label([first.folder], labeler="monte_carlo", options={**SCRIPTED, "n": 2}, out=tmp_path / "second")
    row = rows_of(second)[0]
    assert row["true_step_labels"] == [True, False, False]
    assert (row["step_labels"], row["step_values"]) == ([True, True, False], [1.0, 0.5, 0.0])


def test_values_are_held_against_those_of_a_reference(graded: Path, tmp_path: Path):
    reference = label([graded], labeler="monte_carlo", options=SCRIPTED, out=tmp_path / "reference")
    made = label(
        [graded], labeler="monte_carlo", options={**SCRIPTED, "n": 1}, out=tmp_path / "out",
        reference=reference.folder,
    )  # fmt: skip
    assert rows_of(made)[0]["true_step_values"] == [1, 0.25, 0]
    found = {(metric.metric, metric.selector): (metric.value, metric.count) for metric in made.metrics}
    # n = 1: 1 and 1 against 1 and 0.25, 1 against 1
    assert found["step_value_mae", None] == (0.25, 3)
    assert found["step_accuracy", "reference above 0"] == (1.0, 3)
    other = tmp_path / "other.jsonl"
    write_rows(other, [{**row, "response": "else"} for row in rows_of(reference)])
    with pytest.raises(DataError, match=r"problem 'p', sample 0: is another response"):
        label([graded], labeler="monte_carlo", options=SCRIPTED, out=tmp_path / "b", reference=other)
    with pytest.raises(DataError, match="no response has `step_values`"):
        label([graded], labeler="monte_carlo", options=SCRIPTED, out=tmp_path / "c", reference=graded)


def test_steps_are_the_rows_own_or_as_many_as_are_labelled_or_those_of_a_splitter(tmp_path: Path):
    base = {"problem_id": "p", "prompt": "3+4?", "answer": "7", "correct": True}
    rows = [
        {**base, "sample_idx": 0, "response": "a4. a1.\n\nx", "steps": ["a4.", "a1.", "x"]},
        {**base, "sample_idx": 1, "response": "a4.\na1.\n\nx", "step_labels": [True, True, False]},
        {**base, "sample_idx": 2, "response": "a4.\na1.\n\nx"},
        {**base, "sample_idx": 3, "response": "a4.\na1.", "step_labels": [True] * 9},
    ]
    write_rows(tmp_path / "rows.jsonl", rows)
    made = label([tmp_path / "rows.jsonl"], labeler="monte_carlo", options=SCRIPTED, out=tmp_path / "out")
    assert [row["steps"] for row in rows_of(made)] == [
        ["a4.", "a1.", "x"], ["a4.", "a1.", "x"], ["a4.\na1.", "x"], ["a4.", "a1."],
    ]  # fmt: skip
    assert made.counts["responses whose true labels are of other steps"] == 1
    cut = label(
        [tmp_path / "rows.jsonl"], labeler="monte_carlo", options=SCRIPTED, out=tmp_path / "lines", splitter="lines"
    )
    assert [len(row["steps"]) for row in rows_of(cut)] == [3, 3, 3, 2]
    write_rows(tmp_path / "bad.jsonl", [{**rows[0], "steps": ["a4.", "else"]}])
    with pytest.raises(SpanError, match="problem 'p', sample 0: step 1"):
        label([tmp_path / "bad.jsonl"], labeler="monte_carlo", options=SCRIPTED, out=tmp_path / "bad")


def test_other_settings_are_another_run_and_unknown_ones_are_refused(graded: Path, tmp_path: Path):
    label([graded], labeler="monte_carlo", options=SCRIPTED, out=tmp_path / "out")
    with pytest.raises(RunFolderError, match="n: "):
        label([graded], labeler="monte_carlo", options={**SCRIPTED, "n": 5}, out=tmp_path / "out")
    with pytest.raises(ConfigError, match="completions: no such setting"):
        label([graded], labeler="monte_carlo", options={"completions": 3}, out=tmp_path / "new")
    with pytest.raises(ConfigError, match="splitter"):
        label([graded], labeler="monte_carlo", options=SCRIPTED, out=tmp_path / "new", splitter="nowhere")


@dataclass(frozen=True, kw_only=True)
class Interrupted:
    """The hf engine, until it has given so many samples."""

    model: str

    def sample(self, requests: Sequence[Request], *, params: SamplingParams) -> Iterator[Sampled]:
        engine = HFEngine(model=self.model, workers=1, max_rows=16)
        for count, sampled in enumerate(engine.sample(requests, params=params)):
            if LIMIT and count == LIMIT[0]:
                raise KeyboardInterrupt
            yield sampled

    def identity(self) -> Mapping[str, Any]:
        return HFEngine(model=self.model).identity()

    def shape(self) -> Any:
        return HFEngine(model=self.model).shape()


LIMIT: list[int] = []


@pytest.fixture(scope="module")
def solved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Graded rollouts of the embedded world: 4 problems, 4 responses each."""
    folder = tmp_path_factory.mktemp("solved")
    sample("arithmetic", model="solver:small", out=folder / "drawn", n_problems=4, n=4, workers=1)
    return grade([folder / "drawn"], out=folder / "graded", workers=1).folder


def test_a_run_that_was_interrupted_ends_in_the_same_bytes(
    solved: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr("freeprm.labelers.monte_carlo._NOTE_ROWS", 5)
    options = {"model": "solver:small", "engine": f"{__name__}:Interrupted", "n": 3}
    whole = label([solved], labeler="monte_carlo", options=options, out=tmp_path / "whole")
    for limit in (23, 31):
        LIMIT[:] = [limit]
        with pytest.raises(KeyboardInterrupt):
            label([solved], labeler="monte_carlo", options=options, out=tmp_path / "parts")
    LIMIT.clear()
    resumed = label([solved], labeler="monte_carlo", options=options, out=tmp_path / "parts")
    assert (resumed.folder / "rollouts.jsonl").read_bytes() == (whole.folder / "rollouts.jsonl").read_bytes()
    assert (resumed.counts, resumed.metrics) == (whole.counts, whole.metrics)
    assert resumed.cost.charges == whole.cost.charges
    assert not (resumed.folder / "parts.log").exists()


def test_a_human_labelers_own_column_does_not_make_human_labels_estimates(tmp_path: Path):
    write_rows(tmp_path / "prm800k.jsonl", [{**ROWS[0], "labeler": "e90a38f3"}])
    made = label([tmp_path / "prm800k.jsonl"], labeler="monte_carlo", options=SCRIPTED, out=tmp_path / "out")
    [row] = rows_of(made)
    assert (row["labeler"], row["step_labeler"]) == ("e90a38f3", "monte_carlo")
    assert row["true_step_labels"] == [True, False, False]


def test_labels_of_the_embedded_world_come_with_their_error(solved: Path, tmp_path: Path):
    made = label([solved], labeler="monte_carlo", options={"model": "solver:small", "n": 4}, out=tmp_path / "out")
    rows = rows_of(made)
    assert all(len(row["steps"]) == len(row["step_labels"]) == len(row["true_step_labels"]) for row in rows)
    assert all(row["step_labels"][-1] == row["correct"] for row in rows if "step_labeler" in row)
    assert {metric.metric for metric in made.metrics} >= {"step_accuracy", "step_precision", "step_recall"}
    assert made.counts["completions"] == 4 * made.counts["prefixes completed"]
    read, drawn = made.cost.charges
    assert read.tokens < made.counts["tokens of the prefixes"]
    assert drawn.tokens == made.cost.generated_tokens > 0
