"""The paper's training data (`ultrainteract_math_rollout`): a problem with all its responses and their labels.

A problem's id is a hash of its prompt; `reference` is the gold answer. Steps that occur literally in the response are
kept as `extra["steps"]`, so that they can be scored; steps that the source has rewritten, e.g. without line breaks, are
carried along as `extra["source_steps"]`.

Source: Yuan et al. 2024, arXiv:2412.01981, https://huggingface.co/datasets/Windy0822/ultrainteract_math_rollout.
"""

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Annotated, Any

from freeprm.core.step_labels import steps_of
from freeprm.core.steps import given_steps
from freeprm.errors import DataError, SpanError
from freeprm.formats.base import Written, write_each
from freeprm.io.columns import Answer, AnyPrompt, Each, Expected, ForeignRow, Labels, Replies, Text, id_from
from freeprm.io.conversations import as_text
from freeprm.io.rows import Row, Source
from freeprm.types import Group, Rollout


class _Row(ForeignRow):
    prompt: AnyPrompt
    reference: Answer | None = None
    completions: Replies
    correctness: Annotated[Labels, Each("completion")]
    steps: Annotated[list[list[Text]], Expected("lists of texts"), Each("completion")] | None = None


@dataclass(frozen=True, kw_only=True)
class UltraInteractRollout:
    """A problem a row, with a rollout for each completion."""

    dataset: str | None = None
    """The `dataset` to write for rollouts without one."""

    def recognises(self, row: Row) -> bool:
        """Whether there are completions with their correctness, of one prompt."""
        return row.keys() >= {"prompt", "completions", "correctness"}

    def read(self, row: Row, source: Source) -> Iterator[Rollout]:
        """A rollout for each completion.

        Raises:
            RecordError: labels or steps are not those of each completion.
        """
        parsed = _Row.of(row, source)
        parsed.check_each("completion", len(parsed.completions))
        problem_id, others = id_from(parsed.prompt), parsed.others()
        for index, completion in enumerate(parsed.completions):
            yield Rollout(
                problem_id=problem_id,
                sample_idx=index,
                prompt=parsed.prompt,
                response=completion,
                answer=parsed.reference,
                correct=parsed.correctness[index],
                extra={**_step_columns(completion, parsed.steps[index] if parsed.steps else ()), **others},
            )

    def write(self, groups: Sequence[Group]) -> Written:
        """A row for each problem, with its labelled responses; steps are the rollout's, or else those of `auto`."""
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
            "steps": [_steps_to_write(rollout) for rollout in graded],
        }


def _step_columns(response: str, steps: Sequence[str]) -> dict[str, Any]:
    """The column of the steps: `steps` if they can be scored unchanged, else `source_steps`."""
    if not steps:
        return {}
    try:
        given_steps(response, steps)
    except SpanError:
        return {"source_steps": list(steps)}
    return {"steps": list(steps)}


def _steps_to_write(rollout: Rollout) -> list[str]:
    """The source's own steps, if they differ from those that are scored."""
    if "source_steps" in rollout.extra:
        return list(rollout.extra["source_steps"])
    return steps_of(rollout) if rollout.response.strip() else []


PLUGIN = UltraInteractRollout
