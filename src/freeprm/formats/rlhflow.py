"""RLHFlow's best-of-N rows: a prompt, several answers, and which of them are right.

    {"prompt": text, "answers": [text], "label": [1, 0, ...]}, and "step_scores": [[number]] as its evaluation saves

`labels` is read for `label`, too: the README says the one, the code reads the other.

Read: each answer is a rollout, as it stands (answers of RLHFlow's Mistral end each step with the tag ки, on which its
evaluation splits them); its label is `correct`, its scores `step_scores`. Rows with the same prompt are responses to
one problem, whose id is a hash of the prompt. Every other column is carried along by each rollout.

Written: a row of each problem with its graded responses. Lost are ids, gold answers, steps and every other column.

Source: RLHFlow/RLHF-Reward-Modeling, math-rm/README.md and prm_evaluate.py; RLHFlow/Deepseek-MATH500-Test and others.
"""

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from freeprm.errors import DataError
from freeprm.formats.base import Written, write_each
from freeprm.io.columns import Fields, id_from
from freeprm.io.conversations import as_text
from freeprm.io.rows import Row, Source
from freeprm.types import Group, Rollout


@dataclass(frozen=True, kw_only=True)
class RLHFlow:
    """Answers with outcome labels, and step scores where there are any."""

    def recognises(self, row: Row) -> bool:
        """Has `prompt`, `answers` and `label` or `labels`."""
        return {"prompt", "answers"} <= row.keys() and ("label" in row or "labels" in row)

    def read(self, row: Row, source: Source) -> Iterable[Rollout]:
        """A rollout of each answer.

        Raises:
            RecordError: a field is absent or of the wrong kind, or labels or scores are not one an answer.
        """
        fields = Fields(row, source)
        prompt, answers = fields.prompt("prompt"), fields.replies("answers")
        name = "label" if "label" in row else "labels"
        labels = fields.labels(name, count=len(answers), of="answer")
        scores = self._scores(fields, count=len(answers))
        extra = fields.others("prompt", "answers", name, "step_scores")
        for index, (answer, label, step_scores) in enumerate(zip(answers, labels, scores, strict=True)):
            yield Rollout(
                problem_id=id_from(prompt), sample_idx=index, prompt=prompt, response=answer, correct=label,
                step_scores=step_scores, extra=extra,
            )  # fmt: skip

    @staticmethod
    def _scores(fields: Fields, *, count: int) -> Sequence[tuple[float, ...] | None]:
        if not fields.has("step_scores"):
            return [None] * count
        return fields.step_scores("step_scores", count=count, of="answer")

    def write(self, groups: Sequence[Group]) -> Written:
        """A row of each problem with graded responses; those without a label are counted.

        Raises:
            DataError: no response is graded.
        """
        return write_each(groups, _row, needs="outcome labels (`correct`), which `freeprm grade` makes")


def _row(group: Group, skipped: Counter[str]) -> Row:
    graded = [rollout for rollout in group.rollouts if rollout.correct is not None]
    if not graded:
        raise DataError("problems without a graded response")
    row: Row = {
        "prompt": as_text(group.prompt),
        "answers": [rollout.response for rollout in graded],
        "label": [int(bool(rollout.correct)) for rollout in graded],
    }
    scores = [rollout.step_scores for rollout in graded if rollout.step_scores is not None]
    skipped["ungraded responses"] += len(group.rollouts) - len(graded)
    if len(scores) < len(graded):
        skipped["step scores of problems where not every response has them"] += len(scores)
        return row
    return {**row, "step_scores": [list(one) for one in scores]}


PLUGIN = RLHFlow
