"""GSM8K in its published form: rows of `question` and `answer`, the answer ending in `#### 18`.

Source: Cobbe et al. 2021, arXiv:2110.14168, https://github.com/openai/grade-school-math.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from freeprm.datasets.base import BOXED, choose, read_problems, split_files, text_of
from freeprm.errors import RecordError
from freeprm.io.rows import OnBad, Row, Source
from freeprm.types import Problem

_MARKER = "####"


@dataclass(frozen=True, kw_only=True)
class GSM8K:
    """Grade-school word problems, from the hub or a local copy."""

    path: Path = Path("hf:openai/gsm8k:main")
    """A file of rows, a folder with one for each split, or a hub's data set."""
    instruction: str = BOXED
    """A line of its own behind each question; "" for none."""
    on_bad: OnBad = "raise"
    """Stop at a broken row, or leave it out with a warning."""

    def problems(self, split: str, *, limit: int | None, seed: int) -> Iterator[Problem]:
        """Problems with whole-number answers, thousands separators removed; ids are `gsm8k-<split>-<row>`.

        Raises:
            RecordError: a row without its question or its `####` answer.
        """

        def convert(row: Row, source: Source, index: int) -> Problem:
            _, marked, answer = text_of(row, "answer", source).rpartition(_MARKER)
            answer = answer.strip().replace(",", "")
            if not marked or not answer:
                raise RecordError(
                    f"{source}: answer: has no '{_MARKER} n' at its end; expected the published GSM8K format"
                )
            question = text_of(row, "question", source).strip()
            prompt = f"{question}\n{self.instruction}".rstrip()
            return Problem(problem_id=f"gsm8k-{split}-{index}", prompt=prompt, answer=answer)

        found = read_problems(split_files(self.path, split), convert, on_bad=self.on_bad)
        yield from choose(found, limit=limit, seed=seed)


PLUGIN = GSM8K
