"""UltraFeedback's rows: an instruction and the completions of several models, each scored by GPT-4.

Each completion is a rollout; the chosen score is `score`, and its name `scorer`. The label follows from a threshold, if
set. Other fields of the completion and the row are carried along. A completion's system prompt is not part of the
prompt, since a problem has only one. The id is a hash of the instruction.

Source: Cui et al. 2023, arXiv:2310.01377; the columns are those of the READMEs of OpenBMB/UltraFeedback and
openbmb/UltraFeedback. Before December 2023 some overall scores of 10 stood for 1.
"""

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Annotated, Any

from pydantic import Field, TypeAdapter, ValidationError

from freeprm.errors import DataError
from freeprm.formats.base import Written, write_each
from freeprm.io.columns import Expected, Filled, ForeignRow, Number, Text, id_from
from freeprm.io.conversations import as_text
from freeprm.io.rows import Row, Source
from freeprm.types import Group, Rollout

_OF_ROW = ("source", "models", "correct_answers", "incorrect_answers")
_OF_COMPLETION = (
    "model", "principle", "custom_system_prompt", "annotations", "critique", "overall_score", "fine-grained_score",
)  # fmt: skip
_NUMBER: TypeAdapter[float | None] = TypeAdapter(Number | None)


class _Row(ForeignRow):
    instruction: Filled
    completions: Annotated[list[dict[str, Any]], Field(min_length=1), Expected("a list of objects, at least 1")]


class _Completion(ForeignRow):
    response: Text


@dataclass(frozen=True, kw_only=True)
class UltraFeedback:
    """UltraFeedback as released."""

    score: str = "overall_score"
    """The field of a completion that is its score: `overall_score` (1 to 10) or `fine-grained_score` (1 to 5)."""
    threshold: float | None = None
    """Responses with at least this score are right, others wrong; none for no labels."""

    def recognises(self, row: Row) -> bool:
        """Has `instruction` and `completions`."""
        return {"instruction", "completions"} <= row.keys()

    def read(self, row: Row, source: Source) -> Iterable[Rollout]:
        """A rollout of each completion."""
        parsed = _Row.of(row, source)
        problem_id, carried = id_from(parsed.instruction), parsed.others()
        for index, each in enumerate(parsed.completions):
            completion = _Completion.of(each, source, path=f"completions.{index}.")
            try:
                score = _NUMBER.validate_python(each.get(self.score))
            except ValidationError as error:
                raise completion.wrong(self.score, "a finite number, or null where there is none") from error
            others = {name: value for name, value in completion.others().items() if name != self.score}
            yield Rollout(
                problem_id=problem_id,
                sample_idx=index,
                prompt=parsed.instruction,
                response=completion.response,
                correct=None if self.threshold is None or score is None else score >= self.threshold,
                scorer=None if score is None else self.score,
                score=score,
                extra={**carried, **others},
            )

    def write(self, groups: Sequence[Group]) -> Written:
        """A row of each problem with scored responses; those without a score are counted."""
        return write_each(groups, self._row, needs="scores of responses (`score`); another column is mapped to it")

    def _row(self, group: Group, skipped: Counter[str]) -> Row:
        scored = [rollout for rollout in group.rollouts if rollout.score is not None]
        if not scored:
            raise DataError("problems without a scored response")
        instruction = as_text(group.prompt)
        skipped["responses without a score"] += len(group.rollouts) - len(scored)
        carried = {name: scored[0].extra[name] for name in _OF_ROW if name in scored[0].extra}
        return {"instruction": instruction, "completions": [self._completion(one) for one in scored], **carried}

    def _completion(self, rollout: Rollout) -> Row:
        carried = {name: rollout.extra[name] for name in _OF_COMPLETION if name in rollout.extra}
        return {**carried, "response": rollout.response, self.score: rollout.score}


PLUGIN = UltraFeedback
