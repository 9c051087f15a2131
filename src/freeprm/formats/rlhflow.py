"""RLHFlow's best-of-N rows: a prompt, several answers, and which of them are right.

`labels` is read for `label`, too: the README says the one, the code reads the other. Each answer is a rollout, as it
stands (answers of RLHFlow's Mistral end each step with the tag ки, on which its evaluation splits them). Rows with the
same prompt are responses to one problem, whose id is a hash of the prompt.

Source: RLHFlow/RLHF-Reward-Modeling, math-rm/README.md and prm_evaluate.py; RLHFlow/Deepseek-MATH500-Test and others.
"""

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Annotated

from freeprm.errors import DataError
from freeprm.formats.base import Written, write_each
from freeprm.io.columns import AnyPrompt, Each, ForeignRow, Labels, ManyNumbers, Replies, id_from
from freeprm.io.conversations import as_text
from freeprm.io.rows import Row, Source
from freeprm.types import Group, Rollout


class _Row(ForeignRow):
    prompt: AnyPrompt
    answers: Replies
    label: Annotated[Labels, Each("answer")] | None = None
    labels: Annotated[Labels, Each("answer")] | None = None
    step_scores: Annotated[ManyNumbers, Each("answer")] | None = None


@dataclass(frozen=True, kw_only=True)
class RLHFlow:
    """Answers with outcome labels, and possibly step scores."""

    def recognises(self, row: Row) -> bool:
        """Has `prompt`, `answers` and `label` or `labels`."""
        return {"prompt", "answers"} <= row.keys() and ("label" in row or "labels" in row)

    def read(self, row: Row, source: Source) -> Iterable[Rollout]:
        """A rollout of each answer.

        Raises:
            RecordError: labels or scores are not one an answer.
        """
        parsed = _Row.of(row, source)
        parsed.check_each("answer", len(parsed.answers))
        name, labels = ("labels", parsed.labels) if parsed.label is None else ("label", parsed.label)
        if labels is None:
            raise parsed.wrong("label")
        extra = parsed.others("labels" if name == "label" else "label")
        problem_id = id_from(parsed.prompt)
        for index, (answer, label) in enumerate(zip(parsed.answers, labels, strict=True)):
            yield Rollout(
                problem_id=problem_id, sample_idx=index, prompt=parsed.prompt, response=answer,
                correct=label, step_scores=parsed.step_scores[index] if parsed.step_scores else None,
                extra=extra,
            )  # fmt: skip

    def write(self, groups: Sequence[Group]) -> Written:
        """A row of each problem with graded responses; those without a label are counted."""
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
