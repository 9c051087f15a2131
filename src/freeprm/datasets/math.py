r"""MATH and MATH-500 in their published forms: rows of `problem`, `solution`, `level`, `type` or `subject`.

The gold answer is the `answer` column where there is one, else the last `\boxed{}` of the solution.

Source: Hendrycks et al. 2021, arXiv:2103.03874; MATH-500: Lightman et al. 2023, arXiv:2305.20050.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from freeprm.core.answers import boxed
from freeprm.datasets.base import BOXED, choose, read_problems, split_files, text_of
from freeprm.errors import RecordError
from freeprm.io.rows import OnBad, Row, Source
from freeprm.types import Problem

_LEVEL = re.compile(r"(?:Level )?([1-5])")
_UNKNOWN_LEVEL = "Level ?"


@dataclass(frozen=True, kw_only=True)
class MathDataset:
    """Competition problems from a local copy."""

    path: Path
    """A file of rows, a folder with one for each split, or a hub's data set: `hf:HuggingFaceH4/MATH-500`."""
    instruction: str = BOXED
    """A line of its own behind each problem; "" for none."""
    on_bad: OnBad = "raise"
    """Stop at a broken row, or leave it out with a warning; two rows of MATH's training split have no answer."""

    def problems(self, split: str, *, limit: int | None, seed: int) -> Iterator[Problem]:
        """Problems with `extra` of `subject` and `level` (1 to 5, None for MATH's own `Level ?`).

        Ids are the rows' `unique_id`, else `math-<split>-<row>`.

        Raises:
            RecordError: a row without its problem or answer, or with a level that is none.
        """

        def convert(row: Row, source: Source, index: int) -> Problem:
            extra = {"subject": row.get("subject", row.get("type")), "level": _level(row.get("level"), source)}
            return Problem(
                problem_id=str(row.get("unique_id", f"math-{split}-{index}")),
                prompt=f"{text_of(row, 'problem', source).strip()}\n{self.instruction}".rstrip(),
                answer=_answer(row, source),
                extra={name: value for name, value in extra.items() if name == "level" or value is not None},
            )

        found = read_problems(split_files(self.path, split), convert, on_bad=self.on_bad)
        yield from choose(found, limit=limit, seed=seed)


def _answer(row: Row, source: Source) -> str:
    if "answer" in row:
        return text_of(row, "answer", source).strip()
    answer = boxed(text_of(row, "solution", source))
    if answer is None:
        raise RecordError(
            rf"{source}: solution: has no \boxed{{}} answer, and there is no answer column; expected one of them"
        )
    return answer


def _level(value: Any, source: Source) -> int | None:
    if value is None or value == _UNKNOWN_LEVEL:
        return None
    found = _LEVEL.fullmatch(str(value))
    if not found:
        raise RecordError(f"{source}: level: is {value!r}; expected 1 to 5 or 'Level 1' to 'Level 5'")
    return int(found[1])


PLUGIN = MathDataset
