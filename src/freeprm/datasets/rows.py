"""Anyone's problems: rows with a `prompt` and, where there are, a `problem_id` and an `answer`."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from freeprm.datasets.base import choose, read_problems, text_of
from freeprm.errors import RecordError
from freeprm.io.rollouts import OnBad
from freeprm.io.rows import Row, Source
from freeprm.types import Problem, Prompt, Rollout


@dataclass(frozen=True, kw_only=True)
class Rows:
    """Problems from a local file."""

    path: Path
    """A file of rows, a folder of them, or a hub's data set: `hf:owner/name#split`."""
    on_bad: OnBad = "raise"
    """Stop at a broken row, or leave it out with a warning."""

    def problems(self, split: str, *, limit: int | None, seed: int) -> Iterator[Problem]:
        """All rows, whatever the split; ids default to `<file>-<row>`, and answers may be missing.

        Columns that belong to a rollout (a response, its label, its scores) are not taken along; all others are.

        Raises:
            RecordError: a row without a prompt, or with one that is none.
        """
        yield from choose(read_problems([self.path], _problem, on_bad=self.on_bad), limit=limit, seed=seed)


def _problem(row: Row, source: Source, index: int) -> Problem:
    problem_id = row.get("problem_id", f"{source.path.stem}-{index}")
    answer = row.get("answer")
    if isinstance(problem_id, bool) or not isinstance(problem_id, str | int):
        raise RecordError(f"{source}: problem_id: is {problem_id!r}; expected text or a whole number")
    if isinstance(answer, bool) or not (answer is None or isinstance(answer, str | int | float)):
        raise RecordError(f"{source}: answer: is {answer!r}; expected text or a number")
    return Problem(
        problem_id=str(problem_id),
        prompt=_prompt(row, source),
        answer=None if answer is None else str(answer),
        extra={name: value for name, value in row.items() if name not in Rollout.__slots__},
    )


def _prompt(row: Row, source: Source) -> Prompt:
    turns = row.get("prompt")
    if not isinstance(turns, list):
        return text_of(row, "prompt", source)
    if not turns or not all(isinstance(turn, dict) and {"role", "content"} <= turn.keys() for turn in turns):
        raise RecordError(f'{source}: prompt: is {str(turns)[:80]}; expected text or a list of {{"role", "content"}}')
    return tuple(turns)


PLUGIN = Rows
