"""TRL's rows of stepwise supervision: a prompt and steps, each with its label.

    {"prompt": P, "completions": ["step", ...], "labels": [true, ...]}

P is a text or a list of {"role", "content"}.

Read: the completions are `steps`, the labels `step_labels`; the response is the steps with `separator` between them.
Of the outcome the row says nothing. Rows with the same prompt are responses to one problem, whose id is a hash of the
prompt. Every other column is carried along.

Written: each rollout with step labels. Lost are the outcome, gold answers, whitespace between steps, steps from the
first without a label on, and every other column.

Source: huggingface/trl, docs/source/dataset_formats.md ("Stepwise supervision"); trl-lib/prm800k,
trl-lib/math_shepherd.
"""

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from freeprm.core.step_labels import first_error, labelled_steps
from freeprm.errors import ConfigError, DataError
from freeprm.formats.base import Written, rollouts_of, write_each
from freeprm.formats.trl_preference import is_conversational, prompt_for
from freeprm.io.columns import Fields, id_from
from freeprm.io.rows import Row, Source
from freeprm.types import Group, Rollout


@dataclass(frozen=True, kw_only=True)
class TRLStepwise:
    """Steps with labels as TRL's PRM trainer reads them."""

    separator: str = "\n"
    """Between two steps of a response; whitespace. TRL's `step_separator` is a line break, too."""

    def __post_init__(self) -> None:
        if not self.separator.isspace():
            raise ConfigError(f"separator: is {self.separator!r}; expected whitespace, such as '\\n'")

    def recognises(self, row: Row) -> bool:
        """Has `prompt`, `completions` and `labels`."""
        return {"prompt", "completions", "labels"} <= row.keys()

    def read(self, row: Row, source: Source) -> Iterable[Rollout]:
        """The one rollout of a row.

        Raises:
            RecordError: a field is absent or of the wrong kind, or the labels are not one a step.
        """
        fields = Fields(row, source)
        prompt, steps = fields.prompt("prompt"), fields.texts("completions")
        labels = fields.labels("labels", count=len(steps), of="step")
        yield Rollout(
            problem_id=id_from(prompt),
            sample_idx=0,
            prompt=prompt,
            response=self.separator.join(step.strip() for step in steps),
            extra={
                "steps": steps,
                "step_labels": labels,
                "first_error": first_error(labels),
                **fields.others("prompt", "completions", "labels"),
            },
        )

    def write(self, groups: Sequence[Group]) -> Written:
        """A row of each rollout with step labels.

        Raises:
            DataError: none has them.
        """
        conversational = is_conversational(groups)

        def row_of(rollout: Rollout, skipped: Counter[str]) -> Row:
            labelled = labelled_steps(rollout)
            steps, labels = labelled.known()
            if not steps:
                raise DataError("responses whose first step has no label")
            skipped["steps from the first without a label on"] += len(labelled.steps) - len(steps)
            return {"prompt": prompt_for(rollout.prompt, conversational), "completions": steps, "labels": labels}

        return write_each(rollouts_of(groups), row_of, needs="step labels (`step_labels` or `first_error`)")


PLUGIN = TRLStepwise
