"""Any problems: rows with a `prompt` and possibly a `problem_id` and an `answer`."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from pydantic import AfterValidator

from freeprm.datasets.base import choose, read_problems
from freeprm.io.columns import Answer, AnyPrompt, ForeignRow, Identifier
from freeprm.io.rows import OnBad, Row, Source
from freeprm.types import Problem, Prompt, Rollout


def _not_blank(prompt: Prompt) -> Prompt:
    if isinstance(prompt, str) and not prompt.strip():
        raise ValueError
    return prompt


class _Row(ForeignRow):
    problem_id: Identifier = ""
    prompt: Annotated[AnyPrompt, AfterValidator(_not_blank)]
    answer: Answer | None = None


@dataclass(frozen=True, kw_only=True)
class RowsDataset:
    """Problems from a local file."""

    path: Path
    """A file of rows, a folder of them, or a hub's data set: `hf:owner/name#split`."""
    on_bad: OnBad = "raise"
    """Stop at a broken row, or leave it out with a warning."""

    def problems(self, split: str, *, limit: int | None, seed: int) -> Iterator[Problem]:
        """All rows, whatever the split; ids default to `<file>-<row>`, and answers may be missing.

        Columns of a rollout (a response, its label, its scores) are dropped; all others are kept.

        Raises:
            RecordError: a row without a valid prompt.
        """
        yield from choose(read_problems([self.path], _problem, on_bad=self.on_bad), limit=limit, seed=seed)


def _problem(row: Row, source: Source, index: int) -> Problem:
    parsed = _Row.of(row, source)
    return Problem(
        problem_id=parsed.problem_id or f"{source.path.stem}-{index}",
        prompt=parsed.prompt,
        answer=parsed.answer,
        extra={name: value for name, value in row.items() if name not in Rollout.__slots__},
    )


PLUGIN = RowsDataset
