"""PRM800K's raw rows: a problem and, for each step, the completions that a labeler rated and the one that was taken.

The steps taken are `steps`. A labeler's own step is right (labelers wrote "their own +1 step"); a pre-generated
solution with an error (`found_error`) ends with its wrong step. A trajectory that reached the right answer (`solution`)
is `correct`; all others are `truncated`, with unknown outcome. The id is a hash of the problem. The row itself is
carried along, and written back.

Source: Lightman et al. 2023, arXiv:2305.20050; openai/prm800k, README.md.
"""

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, NamedTuple

from pydantic import BaseModel, Field

from freeprm.core.step_labels import labelled_steps
from freeprm.formats._ratings import Rating, label_of, rating_of
from freeprm.formats.base import STEP_LABELS, Written, joined, rollouts_of, step_columns, write_each
from freeprm.io.columns import Answer, Filled, ForeignRow, Index, Texts, id_from
from freeprm.io.conversations import as_text
from freeprm.io.rows import Row, Source
from freeprm.types import Group, Rollout

ANSWER = "# Answer"
"""Heads the answer at the end of a solution that came to one."""
_COLUMNS = (
    "labeler", "timestamp", "generation", "is_quality_control_question", "is_initial_screening_question", "question",
    "label",
)  # fmt: skip


class _Completion(BaseModel):
    text: Filled
    rating: Rating = None


class _Human(BaseModel):
    text: Filled


class _Choice(BaseModel):
    completions: list[_Completion] | None = None
    human_completion: _Human | None = None
    chosen_completion: Index | None = None


class _Labelling(BaseModel):
    steps: Annotated[list[_Choice], Field(min_length=1)]
    finish_reason: Any = None


class _Question(BaseModel):
    problem: Filled
    ground_truth_answer: Answer | None = None
    pre_generated_steps: Texts | None = None


class _Row(ForeignRow):
    question: _Question
    label: _Labelling


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
    """Also read every other rated completion as a rollout that ends with it. Rows are then not carried along, since a
    rollout is only a part of its row."""

    def recognises(self, row: Row) -> bool:
        """Has `question` with `problem`, and `label` with `steps`."""
        question, label = row.get("question"), row.get("label")
        return isinstance(question, dict) and "problem" in question and isinstance(label, dict) and "steps" in label

    def read(self, row: Row, source: Source) -> Iterable[Rollout]:
        """The trajectory of a row, and with `alternatives` those to its steps.

        Raises:
            RecordError: no step was taken, or a missing one.
        """
        parsed = _Row.of(row, source)
        candidates = [[self._step(one) for one in choice.completions or ()] for choice in parsed.label.steps]
        for index, (choice, steps) in enumerate(zip(parsed.label.steps, candidates, strict=True)):
            if choice.chosen_completion is not None and choice.chosen_completion >= len(steps):
                raise parsed.wrong(
                    f"label.steps.{index}.chosen_completion", "an index below {count}, from 0",
                    found=f"is {choice.chosen_completion}", count=len(steps),
                )  # fmt: skip
        taken = list(_taken(parsed, candidates))
        if not taken:
            raise parsed.wrong("label.steps", "a step that was taken", found="has none")
        whole = parsed.label.finish_reason == "solution"
        carried = parsed.others(*(() if self.alternatives else ("question", "label")))
        yield _rollout(parsed.question, taken, 0, correct=whole or None, truncated=not whole, extra=carried)
        if self.alternatives:
            for index, steps_to in enumerate(_alternatives(taken, candidates), 1):
                cut = ANSWER not in steps_to[-1].text
                yield _rollout(parsed.question, steps_to, index, correct=None, truncated=cut, extra=carried)

    def write(self, groups: Sequence[Group]) -> Written:
        """The row carried along, or else a row with a rating for each step."""
        return write_each(rollouts_of(groups), _row, needs=STEP_LABELS)

    def _step(self, completion: _Completion) -> _Step:
        return _Step(completion.text, label_of(completion.rating, neutral=self.neutral))


def _taken(parsed: _Row, candidates: Sequence[Sequence[_Step]]) -> Iterator[_Step]:
    """The steps taken, up to the last one or the first wrong one."""
    for index, (choice, steps) in enumerate(zip(parsed.label.steps, candidates, strict=True)):
        if choice.chosen_completion is not None:
            yield steps[choice.chosen_completion]
        elif choice.human_completion is not None:
            yield _Step(choice.human_completion.text, True)
        else:
            if parsed.label.finish_reason == "found_error":
                made = parsed.question.pre_generated_steps or []
                wrong = [step for step in steps if step.label is False]
                yield from ([step for step in wrong if step.text in made[index : index + 1]] or wrong)[:1]
            return


def _alternatives(taken: Sequence[_Step], candidates: Sequence[Sequence[_Step]]) -> Iterator[list[_Step]]:
    """For each rated completion that was not taken, the steps taken before it and itself."""
    for index, choices in enumerate(candidates[: len(taken) + 1]):
        others = [one for one in choices if one.label is not None and one not in taken[index : index + 1]]
        yield from ([*taken[:index], one] for one in others)


def _rollout(
    question: _Question, taken: Sequence[_Step], index: int, *, correct: bool | None, truncated: bool, extra: Row
) -> Rollout:
    texts = [step.text for step in taken]
    return Rollout(
        problem_id=id_from(question.problem),
        sample_idx=index,
        prompt=question.problem,
        response=joined(texts),
        answer=question.ground_truth_answer,
        correct=correct,
        truncated=truncated,
        extra={**extra, **step_columns(texts, [step.label for step in taken])},
    )


def _row(rollout: Rollout, skipped: Counter[str]) -> Row:
    carried = {name: value for name, value in rollout.extra.items() if name in _COLUMNS}
    if {"question", "label"} <= carried.keys():
        return carried
    labelled = labelled_steps(rollout)
    steps = [_rated(text, label) for text, label in zip(labelled.steps, labelled.labels, strict=True)]
    finish = "solution" if rollout.correct else "give_up" if labelled.first_error is None else "found_error"
    question = {"problem": as_text(rollout.prompt), "ground_truth_answer": rollout.answer}
    label = {"steps": steps, "finish_reason": finish}
    return {**dict.fromkeys(_COLUMNS), **carried, "question": question, "label": label}


def _rated(text: str, label: bool | None) -> dict[str, Any]:
    completion = {"text": text, "rating": rating_of(label), "flagged": None}
    return {"completions": [completion], "human_completion": None, "chosen_completion": 0}


PLUGIN = PRM800K
