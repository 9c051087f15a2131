"""Graded rollouts as our own stages write them: of the embedded world, with the truth of each step."""

import random
from itertools import islice
from pathlib import Path

import pytest

from freeprm.io.rollouts import problem_row, read_rollouts
from freeprm.io.rows import Source, write_rows
from freeprm.stages.grading import grade
from freeprm.types import Group, Problem, group_rollouts
from freeprm.world.problems import generate
from freeprm.world.solutions import answer, draw_student, solve_as

HERE = Source(Path("rows.jsonl"), 3)
"""Where rows that are no file's stand."""


@pytest.fixture(scope="session")
def graded(tmp_path_factory: pytest.TempPathFactory) -> list[Group]:
    """Eight problems with six responses each, right and wrong ones among them."""
    rng, folder, rows = random.Random(0), tmp_path_factory.mktemp("world"), []
    for index, problem in enumerate(islice(generate("train", seed=0), 8)):
        row = problem_row(Problem(problem_id=f"w{index}", prompt=problem.text, answer=str(answer(problem))))
        rows += [{**row, "response": solve_as(draw_student(rng), problem, rng)} for _ in range(6)]
    write_rows(folder / "sampled.jsonl", rows)
    result = grade([folder / "sampled.jsonl"], out=folder / "graded")
    groups = group_rollouts(read_rollouts([result.folder]).rollouts)
    labels = [rollout.correct for group in groups for rollout in group.rollouts]
    assert {True, False} == set(labels)
    return groups


@pytest.fixture
def here() -> Source:
    """A place for rows that are no file's."""
    return HERE
