"""What Qwen2.5-Math's evaluation saves, and ToRA's before it: a problem with the samples drawn for it.

    {"idx": 0, "question": text, "gt_cot": text, "gt": text, "code": [text], "pred": [text], "report": [...],
     "score": [true, false, ...]}

and "pred_score": [[number]], what a reward model says of each sample, as Qwen's best-of-N files have it.

Read: each entry of `code`, the model's whole text or program, is a rollout; its `pred` and its `score` (was it graded
right) stand beside it, and so do its `report` and its `pred_score`, as `score`. The gold answer is `gt`. Every other
column is carried along, those that bear our names as `source_answer` and so on. The id is `idx`, else a hash of the
question.

Written: a row of each problem with a gold answer. Lost are steps and every column that was not read from
such a row.

Source: QwenLM/Qwen2.5-Math, evaluation/math_eval.py; microsoft/ToRA, src/infer/inference_api.py.
"""

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from freeprm.errors import DataError
from freeprm.formats.base import Written, write_each
from freeprm.io.columns import COLUMNS, Fields, id_from
from freeprm.io.conversations import as_text
from freeprm.io.rows import Row, Source
from freeprm.types import Group, Rollout


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
            RecordError: a field is absent or of the wrong kind, or a list does not have one entry a sample.
        """
        fields = Fields(row, source)
        question, samples = fields.text("question"), fields.replies("code")
        count = len(samples)
        correct = fields.labels("score", count=count, of="sample") if fields.has("score") else [None] * count
        scores = _scores(fields, count)
        preds, reports = _of_each(fields, "pred", count), _of_each(fields, "report", count)
        extra = fields.others("idx", "question", "gt", "code", "pred", "report", "score", "pred_score")
        for index, response in enumerate(samples):
            pred, own = preds[index], scores[index]
            yield Rollout(
                problem_id=fields.identifier("idx") or id_from(question),
                sample_idx=index,
                prompt=question,
                response=response,
                answer=fields.answer("gt"),
                correct=correct[index],
                pred=None if pred in (None, "") else str(pred),
                score=own[0] if len(own) == 1 else None,
                step_scores=own if len(own) > 1 else None,
                extra={**extra, **({} if reports[index] is None else {"report": reports[index]})},
            )

    def write(self, groups: Sequence[Group]) -> Written:
        """A row of each problem that has a gold answer.

        Raises:
            DataError: none has one.
        """
        return write_each(groups, _row, needs="gold answers (`answer`)")


def _scores(fields: Fields, count: int) -> list[tuple[float, ...]]:
    """What a reward model says of each sample; nothing where the column is absent."""
    expected = "a number, or a list of them, for each of the {count} samples"

    def convert(value: Any) -> list[tuple[float, ...]]:
        if not isinstance(value, list) or len(value) != count:
            raise ValueError
        return [COLUMNS["step_scores"].convert(one if isinstance(one, list) else [one]) for one in value]

    if not fields.has("pred_score"):
        return [()] * count
    return fields.get("pred_score", convert, expected=expected, count=count)


def _of_each(fields: Fields, name: str, count: int) -> Sequence[Any]:
    """What each sample has in a column; None where the column is absent."""
    if not fields.has(name):
        return [None] * count
    value = fields.row[name]
    if not isinstance(value, list) or len(value) != count:
        raise fields.wrong(name, "a list with an entry for each of the {count} samples", count=count)
    return value


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
    said = [one.step_scores or (None if one.score is None else (one.score,)) for one in rollouts]
    for name, values in (("score", [one.correct for one in rollouts]), ("pred_score", said)):
        known = sum(value is not None for value in values)
        if known == len(values):
            row[name] = values
        elif known:
            skipped[f"{name} of problems where not every sample has one"] += known
    return row


PLUGIN = QwenMathEval
