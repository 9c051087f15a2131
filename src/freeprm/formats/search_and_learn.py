"""The result rows of huggingface/search-and-learn: a problem, its completions, and a reward model's score of each step.

Each completion is a rollout; its scores are of the parts between blank lines. `agg_scores` and `completion_tokens`
become `agg_score` and `completion_tokens` of each; the chosen response `pred` is carried along as `source_pred`. The id
is `unique_id`, else a hash of the problem. The choices (`pred`, `pred_*@n`) are written as they were read; rows of a
new selection have none.

Source: huggingface/search-and-learn, scripts/test_time_compute.py and src/sal/utils/score.py.
"""

import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any

from freeprm.errors import DataError
from freeprm.formats.base import Written, write_each
from freeprm.io.columns import Answer, Each, Filled, ForeignRow, Identifier, ManyNumbers, Replies, id_from
from freeprm.io.conversations import as_text
from freeprm.io.rows import Row, Source
from freeprm.types import Group, Rollout

_OF_EACH = {"agg_scores": "agg_score", "completion_tokens": "completion_tokens"}
"""Columns with one entry for each completion -> the column of a rollout."""
_CARRIED = re.compile(r"solution|subject|level|llm_gen_time|prm_score_time|timing_\w+|pred_\w+@\d+")


class _Row(ForeignRow):
    problem: Filled
    answer: Answer | None = None
    unique_id: Identifier | None = None
    completions: Replies
    scores: Annotated[ManyNumbers, Each("completion")]


@dataclass(frozen=True, kw_only=True)
class SearchAndLearn:
    """Best-of-N results with step scores."""

    def recognises(self, row: Row) -> bool:
        """Has `problem`, `completions` and `scores`."""
        return {"problem", "completions", "scores"} <= row.keys()

    def read(self, row: Row, source: Source) -> Iterable[Rollout]:
        """A rollout of each completion.

        Raises:
            RecordError: scores are not one list a completion.
        """
        parsed = _Row.of(row, source)
        count = len(parsed.completions)
        parsed.check_each("completion", count)
        of_each = {name: row[name] for name in _OF_EACH if _is_list(row.get(name), count)}
        carried = {name: value for name, value in parsed.others().items() if name not in of_each}
        problem_id = parsed.unique_id or id_from(parsed.problem)
        for index, (completion, step_scores) in enumerate(zip(parsed.completions, parsed.scores, strict=True)):
            yield Rollout(
                problem_id=problem_id,
                sample_idx=index,
                prompt=parsed.problem,
                response=completion,
                answer=parsed.answer,
                step_scores=step_scores,
                extra={**carried, **{_OF_EACH[name]: values[index] for name, values in of_each.items()}},
            )

    def write(self, groups: Sequence[Group]) -> Written:
        """A row of each problem whose responses all have step scores; others are counted."""
        return write_each(groups, _row, needs="step scores (`step_scores`), which `freeprm score` makes")


def _is_list(value: Any, count: int) -> bool:
    return isinstance(value, list) and len(value) == count


def _row(group: Group, skipped: Counter[str]) -> Row:
    rollouts = group.rollouts
    scores = [list(rollout.step_scores) for rollout in rollouts if rollout.step_scores is not None]
    if len(scores) < len(rollouts):
        raise DataError("problems where not every response has step scores")
    carried = rollouts[0].extra
    return {
        "problem": as_text(group.prompt),
        **{name: value for name, value in carried.items() if _CARRIED.fullmatch(name)},
        "answer": rollouts[0].answer,
        "unique_id": group.problem_id,
        "completions": [rollout.response for rollout in rollouts],
        "scores": scores,
        **({"pred": carried["source_pred"]} if "source_pred" in carried else {}),
        **_of_each([rollout.extra for rollout in rollouts]),
    }


def _of_each(extras: Sequence[Mapping[str, Any]]) -> Row:
    return {
        name: [extra[own] for extra in extras]
        for name, own in _OF_EACH.items()
        if all(own in extra for extra in extras)
    }


PLUGIN = SearchAndLearn
