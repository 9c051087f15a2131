"""TRL's rows of stepwise supervision: a prompt and steps (`completions`), each with its label.

The response is the steps with `separator` between them; of the outcome the row says nothing. Rows with the same prompt
are responses to one problem, whose id is a hash of the prompt.

Source: huggingface/trl, docs/source/dataset_formats.md ("Stepwise supervision"); trl-lib/prm800k,
trl-lib/math_shepherd.
"""

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Annotated

from freeprm.core.step_labels import labelled_steps
from freeprm.errors import ConfigError, DataError
from freeprm.formats._preferences import is_conversational, prompt_for
from freeprm.formats.base import STEP_LABELS, Written, rollouts_of, step_columns, write_each
from freeprm.io.columns import AnyPrompt, Each, ForeignRow, Labels, Texts, id_from
from freeprm.io.rows import Row, Source
from freeprm.types import Group, Rollout


class _Row(ForeignRow):
    prompt: AnyPrompt
    completions: Texts
    labels: Annotated[Labels, Each("step")]


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
            RecordError: the labels are not one a step.
        """
        parsed = _Row.of(row, source)
        parsed.check_each("step", len(parsed.completions))
        yield Rollout(
            problem_id=id_from(parsed.prompt),
            sample_idx=0,
            prompt=parsed.prompt,
            response=self.separator.join(step.strip() for step in parsed.completions),
            extra={**step_columns(parsed.completions, parsed.labels), **parsed.others()},
        )

    def write(self, groups: Sequence[Group]) -> Written:
        """A row of each rollout with step labels."""
        conversational = is_conversational(groups)

        def row_of(rollout: Rollout, skipped: Counter[str]) -> Row:
            labelled = labelled_steps(rollout)
            steps, labels = labelled.known()
            if not steps:
                raise DataError("responses whose first step has no label")
            skipped["steps from the first without a label on"] += len(labelled.steps) - len(steps)
            return {"prompt": prompt_for(rollout.prompt, conversational), "completions": steps, "labels": labels}

        return write_each(rollouts_of(groups), row_of, needs=STEP_LABELS)


PLUGIN = TRLStepwise
