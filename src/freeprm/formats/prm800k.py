"""PRM800K's raw rows: a problem and, step by step, the completions that a labeler rated and the one that was taken.

    {"labeler", "timestamp", "generation", "is_quality_control_question", "is_initial_screening_question",
     "question": {"problem": text, "ground_truth_answer": text, "pre_generated_steps": [text], ...},
     "label": {"steps": [{"completions": [{"text", "rating": -1|0|1|null, "flagged"}],
                          "human_completion": {"text", ...}, "chosen_completion": index}],
               "finish_reason": "solution"|"found_error"|"give_up"|"bad_problem"}}

Read: the steps taken are `steps`. Where a labeler's own step was taken, it is right (labelers wrote "their own +1
step"); where a solution made beforehand goes wrong (`found_error`), the step taken is its wrong one, with which the
trajectory ends. Ratings are `step_labels`: 1 true, -1 false, 0 as `neutral` says. The response is the steps, a line
break between two. One that reached the right answer (`solution`) is `correct`; of all others the outcome is not known,
and they are `truncated`. The id is a hash of the problem. The row itself is carried along.

Written: the row carried along where there is one, else one with a rating for each step. Lost are then the outcome of
wrong responses, ids, and every other column.

Source: Lightman et al. 2023, arXiv:2305.20050; openai/prm800k, README.md.
"""

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from freeprm.core.step_labels import first_error, labelled_steps
from freeprm.formats.base import Written, rollouts_of, write_each
from freeprm.io.columns import Fields, id_from
from freeprm.io.conversations import as_text
from freeprm.io.rows import Row, Source
from freeprm.types import Group, Rollout

ANSWER = "# Answer"
"""Heads the answer at the end of a solution that came to one."""
_RATINGS: Mapping[bool | None, int | None] = {True: 1, False: -1, None: None}


class _Step(NamedTuple):
    """A candidate for one step."""

    text: str
    label: bool | None


@dataclass(frozen=True, kw_only=True)
class PRM800K:
    """PRM800K as OpenAI released it."""

    neutral: bool | None = True
    """The label of a step rated 0: true, as the paper's PRM counts it; false, or none for no label."""
    alternatives: bool = False
    """Take every other rated completion, too, as a rollout of its own that ends with it. Rows are then not carried
    along, since each rollout is only a part of its row."""

    def recognises(self, row: Row) -> bool:
        """Has `question` with `problem`, and `label` with `steps`."""
        question, label = row.get("question"), row.get("label")
        return isinstance(question, dict) and "problem" in question and isinstance(label, dict) and "steps" in label

    def read(self, row: Row, source: Source) -> Iterable[Rollout]:
        """The trajectory of a row, and the alternatives to its steps where they are asked for.

        Raises:
            RecordError: a field is absent or of the wrong kind, or no step was taken.
        """
        fields = Fields(row, source)
        question, label = fields.inside("question"), fields.inside("label")
        steps = label.each("steps")
        candidates = [[self._candidate(item) for item in _completions(step)] for step in steps]
        taken = list(_taken(question, label, steps, candidates))
        if not taken:
            raise label.wrong("steps", "a step that was taken", found="has none")
        whole = label.row.get("finish_reason") == "solution"
        carried = fields.others(*(["question", "label"] if self.alternatives else []))
        yield _rollout(question, taken, 0, correct=whole or None, truncated=not whole, extra=carried)
        if self.alternatives:
            for index, steps_to in enumerate(_alternatives(taken, candidates), 1):
                cut = ANSWER not in steps_to[-1].text
                yield _rollout(question, steps_to, index, correct=None, truncated=cut, extra=carried)

    def write(self, groups: Sequence[Group]) -> Written:
        """A row of each rollout with step labels.

        Raises:
            DataError: none has them.
        """
        return write_each(rollouts_of(groups), _row, needs="step labels (`step_labels` or `first_error`)")

    def _candidate(self, completion: Fields) -> _Step:
        rating = completion.row.get("rating")
        if rating not in (-1, 0, 1, None) or isinstance(rating, bool):
            raise completion.wrong("rating", "-1, 0, 1 or null")
        labels: dict[int | None, bool | None] = {1: True, -1: False, 0: self.neutral, None: None}
        return _Step(completion.text("text"), labels[rating])


def _completions(step: Fields) -> list[Fields]:
    return step.each("completions", at_least=0) if step.has("completions") else []


def _taken(
    question: Fields, label: Fields, steps: Sequence[Fields], candidates: Sequence[Sequence[_Step]]
) -> Iterator[_Step]:
    """The steps taken, up to the last one or, with it, the one that was found wrong."""
    for index, (step, choices) in enumerate(zip(steps, candidates, strict=True)):
        if step.has("chosen_completion"):
            yield choices[step.index("chosen_completion", count=len(choices))]
        elif step.has("human_completion"):
            yield _Step(step.inside("human_completion").text("text"), True)
        else:
            if label.row.get("finish_reason") == "found_error":
                made = question.texts("pre_generated_steps") if question.has("pre_generated_steps") else []
                wrong = [choice for choice in choices if choice.label is False]
                yield from ([choice for choice in wrong if choice.text in made[index : index + 1]] or wrong)[:1]
            return


def _alternatives(taken: Sequence[_Step], candidates: Sequence[Sequence[_Step]]) -> Iterator[list[_Step]]:
    """For each rated completion that was not taken, the steps taken before it, and it."""
    for index, choices in enumerate(candidates[: len(taken) + 1]):
        others = [one for one in choices if one.label is not None and one not in taken[index : index + 1]]
        yield from ([*taken[:index], one] for one in others)


def _rollout(
    question: Fields, taken: Sequence[_Step], index: int, *, correct: bool | None, truncated: bool, extra: Row
) -> Rollout:
    problem, labels = question.text("problem"), [step.label for step in taken]
    return Rollout(
        problem_id=id_from(problem),
        sample_idx=index,
        prompt=problem,
        response="\n".join(step.text.strip() for step in taken),
        answer=question.answer("ground_truth_answer"),
        correct=correct,
        truncated=truncated,
        extra={
            **extra,
            "steps": [step.text for step in taken],
            "step_labels": labels,
            "first_error": first_error(labels),
        },
    )


def _row(rollout: Rollout, skipped: Counter[str]) -> Row:
    carried = {name: value for name, value in rollout.extra.items() if name in _COLUMNS}
    if {"question", "label"} <= carried.keys():
        return carried
    labelled = labelled_steps(rollout)
    steps = [_rated(text, label) for text, label in zip(labelled.steps, labelled.labels, strict=True)]
    finish = "solution" if rollout.correct else "give_up" if labelled.first_error is None else "found_error"
    question = {"problem": as_text(rollout.prompt), "ground_truth_answer": rollout.answer}
    return {
        **dict.fromkeys(_COLUMNS),
        **carried,
        "question": question,
        "label": {"steps": steps, "finish_reason": finish},
    }


_COLUMNS = (
    "labeler", "timestamp", "generation", "is_quality_control_question", "is_initial_screening_question", "question",
    "label",
)  # fmt: skip


def _rated(text: str, label: bool | None) -> dict[str, Any]:
    completion = {"text": text, "rating": _RATINGS[label], "flagged": None}
    return {"completions": [completion], "human_completion": None, "chosen_completion": 0}


PLUGIN = PRM800K
