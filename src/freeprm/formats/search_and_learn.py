"""The result rows of huggingface/search-and-learn: a problem, its completions, and a reward model's score of each step.

    {"problem": text, "solution", "answer", "subject", "level", "unique_id", "completions": [text],
     "scores": [[number]], "pred", "completion_tokens": [int], "agg_scores": [number], "pred_weighted@4", ...}

Read: each completion is a rollout; its scores are `step_scores`, those of the pieces between blank lines. `agg_scores`
and `completion_tokens` become `agg_score` and `completion_tokens` of each; every other column is carried along by each
rollout, the chosen response `pred` as `source_pred`. The id is `unique_id`, else a hash of the problem.

Written: a row of each problem whose responses all have step scores, with what is carried along. Lost are labels, the
scorer's name and every other column. What was chosen (`pred`, `pred_*@n`) is what the rows said; the rows of a
selection that is made anew have none.

Source: huggingface/search-and-learn, scripts/test_time_compute.py and src/sal/utils/score.py.
"""

import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from freeprm.errors import DataError
from freeprm.formats.base import Written, write_each
from freeprm.io.columns import Fields, id_from
from freeprm.io.conversations import as_text
from freeprm.io.rows import Row, Source
from freeprm.types import Group, Rollout

_OF_EACH = {"agg_scores": "agg_score", "completion_tokens": "completion_tokens"}
"""Columns with one entry a completion, and what each rollout calls its own."""
_CARRIED = re.compile(r"solution|subject|level|llm_gen_time|prm_score_time|timing_\w+|pred_\w+@\d+")


@dataclass(frozen=True, kw_only=True)
class SearchAndLearn:
    """Best-of-N results with step scores."""

    def recognises(self, row: Row) -> bool:
        """Has `problem`, `completions` and `scores`."""
        return {"problem", "completions", "scores"} <= row.keys()

    def read(self, row: Row, source: Source) -> Iterable[Rollout]:
        """A rollout of each completion.

        Raises:
            RecordError: a field is absent or of the wrong kind, or scores are not one list a completion.
        """
        fields = Fields(row, source)
        problem = fields.text("problem")
        completions = fields.replies("completions")
        scores = fields.step_scores("scores", count=len(completions), of="completion")
        per_completion = {name: row[name] for name in _OF_EACH if _is_list(row.get(name), len(completions))}
        used = ("problem", "answer", "unique_id", "completions", "scores", *per_completion)
        carried = fields.others(*used)
        for index, (completion, step_scores) in enumerate(zip(completions, scores, strict=True)):
            yield Rollout(
                problem_id=fields.identifier("unique_id") or id_from(problem),
                sample_idx=index,
                prompt=problem,
                response=completion,
                answer=fields.answer("answer"),
                step_scores=step_scores,
                extra={**carried, **{_OF_EACH[name]: values[index] for name, values in per_completion.items()}},
            )

    def write(self, groups: Sequence[Group]) -> Written:
        """A row of each problem whose responses all have step scores; others are counted.

        Raises:
            DataError: there is no such problem.
        """
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
