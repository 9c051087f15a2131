"""The output of Qwen2.5-Math's evaluation, and of ToRA's before it: a problem with its samples.

Each entry of `code`, the model's whole text or program, is a rollout, with its `pred`, its `score` (the outcome label),
its `report`, and as `score` its `pred_score` (by a reward model, as in Qwen's best-of-N files). The gold answer is
`gt`. The id is `idx`, else a hash of the question.

Source: QwenLM/Qwen2.5-Math, evaluation/math_eval.py; microsoft/ToRA, src/infer/inference_api.py.
"""

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Annotated, Any

from pydantic import BeforeValidator

from freeprm.errors import DataError
from freeprm.formats.base import Written, write_each
from freeprm.io.columns import Answer, Each, Expected, Filled, ForeignRow, Identifier, Labels, Numbers, Replies, id_from
from freeprm.io.conversations import as_text
from freeprm.io.rows import Row, Source
from freeprm.types import Group, Rollout


def _as_list(value: Any) -> Any:
    return value if isinstance(value, list) else [value]


_Scores = Annotated[Numbers, BeforeValidator(_as_list)]


class _Row(ForeignRow):
    idx: Identifier | None = None
    question: Filled
    gt: Answer | None = None
    code: Replies
    pred: Annotated[list[Any], Expected("a list of answers"), Each("sample")] | None = None
    report: Annotated[list[Any], Expected("a list of reports"), Each("sample")] | None = None
    score: Annotated[Labels, Each("sample")] | None = None
    pred_score: Annotated[list[_Scores], Expected("a list of numbers, or of lists of them"), Each("sample")] | None = (
        None
    )


@dataclass(frozen=True, kw_only=True)
class QwenMathEval:
    """Samples of an evaluation, graded or not."""

    def recognises(self, row: Row) -> bool:
        """Has `question`, `gt`, and lists `code` and `pred`."""
        lists = all(isinstance(row.get(name), list) for name in ("code", "pred"))
        return lists and {"question", "gt"} <= row.keys()

    def read(self, row: Row, source: Source) -> Iterable[Rollout]:
        """A rollout of each sample.

        Raises:
            RecordError: a list does not have one entry a sample.
        """
        parsed = _Row.of(row, source)
        none = [None] * len(parsed.code)
        parsed.check_each("sample", len(none))
        correct, preds, reports = parsed.score or none, parsed.pred or none, parsed.report or none
        scores: Sequence[tuple[float, ...]] = parsed.pred_score or [()] * len(none)
        problem_id, others = parsed.idx or id_from(parsed.question), parsed.others()
        for index, response in enumerate(parsed.code):
            pred, own = preds[index], scores[index]
            yield Rollout(
                problem_id=problem_id,
                sample_idx=index,
                prompt=parsed.question,
                response=response,
                answer=parsed.gt,
                correct=correct[index],
                pred=None if pred in (None, "") else str(pred),
                score=own[0] if len(own) == 1 else None,
                step_scores=own if len(own) > 1 else None,
                extra={**others, **({} if reports[index] is None else {"report": reports[index]})},
            )

    def write(self, groups: Sequence[Group]) -> Written:
        """A row of each problem that has a gold answer."""
        return write_each(groups, _row, needs="gold answers (`answer`)")


def _row(group: Group, skipped: Counter[str]) -> Row:
    rollouts = group.rollouts
    gold = rollouts[0].answer
    if gold is None:
        raise DataError("problems without a gold answer")
    row: Row = {
        "idx": group.problem_id,
        "question": as_text(group.prompt),
        "gt_cot": rollouts[0].extra.get("gt_cot"),
        "gt": gold,
        "code": [rollout.response for rollout in rollouts],
        "pred": [rollout.pred or "" for rollout in rollouts],
        "report": [rollout.extra.get("report") for rollout in rollouts],
    }
    scores = [one.step_scores or (None if one.score is None else (one.score,)) for one in rollouts]
    for name, values in (("score", [one.correct for one in rollouts]), ("pred_score", scores)):
        known = sum(value is not None for value in values)
        if known == len(values):
            row[name] = values
        elif known:
            skipped[f"{name} of problems where not every sample has one"] += known
    return row


PLUGIN = QwenMathEval
