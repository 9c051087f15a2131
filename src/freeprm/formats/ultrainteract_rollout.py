"""The paper's training data (`ultrainteract_math_rollout`): a problem with all its responses and their labels.

    {"prompt", "reference", "dataset", "completions": [text], "correctness": [bool], "steps": [[text]]}

A problem's id is a hash of its prompt; `reference` is the gold answer. A response's steps are kept as `extra["steps"]`
where they stand in the response as they are, so that they can be scored; steps that the source has rewritten (line
breaks gone, say) are carried along as `extra["source_steps"]`.

Source: Yuan et al. 2024, arXiv:2412.01981, https://huggingface.co/datasets/Windy0822/ultrainteract_math_rollout.
"""

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from freeprm.core.step_labels import steps_of
from freeprm.core.steps import given_steps
from freeprm.errors import DataError, SpanError
from freeprm.formats.base import Written, write_each
from freeprm.io.columns import Fields, id_from
from freeprm.io.conversations import as_text
from freeprm.io.rows import Row, Source
from freeprm.types import Group, Rollout

_COLUMNS = ("prompt", "reference", "completions", "correctness", "steps")


@dataclass(frozen=True, kw_only=True)
class UltraInteractRollout:
    """A problem a row, with a rollout for each completion."""

    dataset: str | None = None
    """What `dataset` says in writing where a rollout brings none."""

    def recognises(self, row: Row) -> bool:
        """Whether there are completions with their correctness, of one prompt."""
        return row.keys() >= {"prompt", "completions", "correctness"}

    def read(self, row: Row, source: Source) -> Iterator[Rollout]:
        """A rollout for each completion.

        Raises:
            RecordError: names the file, the line, the field, and what was expected.
        """
        fields = Fields(row, source)
        prompt = fields.prompt("prompt")
        completions = fields.get("completions", _texts, expected="a list of texts, at least one")
        labels = fields.labels("correctness", count=len(completions), of="completion")
        steps = _steps(fields, len(completions))
        answer = fields.answer("reference")
        for index, (completion, label) in enumerate(zip(completions, labels, strict=True)):
            yield Rollout(
                problem_id=id_from(prompt),
                sample_idx=index,
                prompt=prompt,
                response=completion,
                answer=answer,
                correct=label,
                extra={**_placed(completion, steps[index]), **fields.others(*_COLUMNS)},
            )

    def write(self, groups: Sequence[Group]) -> Written:
        """A row a problem, with its labelled responses; steps are the given ones, else as `auto` cuts the response.

        Raises:
            DataError: no response has a label, or no prompt is one text.
        """
        return write_each(groups, self._row, needs="labelled responses (`correct`), which `freeprm grade` makes")

    def _row(self, group: Group, skipped: Counter[str]) -> Row:
        graded = [rollout for rollout in group.rollouts if rollout.correct is not None]
        if not graded:
            raise DataError("problems without a labelled response")
        skipped["responses without label, to problems that have labelled ones"] += len(group.rollouts) - len(graded)
        return {
            "prompt": as_text(group.prompt),
            "reference": graded[0].answer,
            "dataset": graded[0].extra.get("dataset", self.dataset),
            "completions": [rollout.response for rollout in graded],
            "correctness": [rollout.correct for rollout in graded],
            "steps": [_said(rollout) for rollout in graded],
        }


PLUGIN = UltraInteractRollout


def _texts(value: Any) -> list[str]:
    """Completions; an empty one is a response all the same."""
    if not isinstance(value, list) or not value or not all(isinstance(item, str) for item in value):
        raise ValueError
    return value


def _steps(fields: Fields, count: int) -> list[list[str]]:
    if not fields.has("steps"):
        return [[]] * count
    expected = "{count} lists of texts, one for each completion"

    def convert(value: Any) -> list[list[str]]:
        if not isinstance(value, list) or len(value) != count:
            raise ValueError
        if not all(isinstance(steps, list) and all(isinstance(step, str) for step in steps) for steps in value):
            raise ValueError
        return value

    return fields.get("steps", convert, expected=expected, count=count)


def _placed(response: str, steps: Sequence[str]) -> dict[str, Any]:
    """The steps, under the name that says whether they can be scored as they are."""
    if not steps:
        return {}
    try:
        given_steps(response, steps)
    except SpanError:
        return {"source_steps": list(steps)}
    return {"steps": list(steps)}


def _said(rollout: Rollout) -> list[str]:
    """The steps to write: the source's own, where they are other than those that are scored."""
    if "source_steps" in rollout.extra:
        return list(rollout.extra["source_steps"])
    return steps_of(rollout) if rollout.response.strip() else []
