"""TRL's unpaired preference rows: a prompt, a reply and its label, for KTO and the like.

Rows with the same prompt are responses to one problem, whose id is a hash of the prompt, unless they have a
`problem_id`. As with preferences, chat models need conversations (see `trl_preference`).

Source: huggingface/trl, docs/source/dataset_formats.md (1.16).
"""

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Annotated

from freeprm.errors import DataError
from freeprm.formats._preferences import CUT_OFF, REPLY, is_conversational, only_reply, prompt_for
from freeprm.formats.base import Written, rollouts_of, write_each
from freeprm.io.columns import AnyPrompt, Expected, ForeignRow, Identifier, Label, Text, id_from
from freeprm.io.conversations import as_reply
from freeprm.io.rows import Row, Source
from freeprm.types import Group, Rollout


class _Row(ForeignRow):
    problem_id: Identifier | None = None
    prompt: AnyPrompt
    completion: Annotated[Text | AnyPrompt, Expected(REPLY)]
    label: Label


@dataclass(frozen=True, kw_only=True)
class TRLUnpaired:
    """Replies with labels as TRL's trainers read them."""

    conversational: bool | None = None
    """Write messages, or texts; by default messages if any prompt is a conversation."""
    cut_off: bool = False
    """Write truncated responses too: the trainers end them like finished ones."""

    def recognises(self, row: Row) -> bool:
        """Has `prompt`, `completion` and `label`."""
        return {"prompt", "completion", "label"} <= row.keys()

    def read(self, row: Row, source: Source) -> Iterable[Rollout]:
        """The one rollout of a row.

        Raises:
            RecordError: the completion is not one reply.
        """
        parsed = _Row.of(row, source)
        reply = parsed.completion
        yield Rollout(
            problem_id=parsed.problem_id or id_from(parsed.prompt),
            sample_idx=0,
            prompt=parsed.prompt,
            response=reply if isinstance(reply, str) else only_reply(parsed, "completion", reply),
            correct=parsed.label,
            extra=parsed.others(),
        )

    def write(self, groups: Sequence[Group]) -> Written:
        """A row of each graded rollout."""
        conversational = is_conversational(groups) if self.conversational is None else self.conversational

        def row_of(rollout: Rollout, skipped: Counter[str]) -> Row:
            if rollout.correct is None:
                raise DataError("ungraded responses")
            if rollout.truncated and not self.cut_off:
                raise DataError(CUT_OFF)
            return {
                "prompt": prompt_for(rollout.prompt, conversational),
                "completion": as_reply(rollout.response) if conversational else rollout.response,
                "label": rollout.correct,
            }

        return write_each(rollouts_of(groups), row_of, needs="outcome labels (`correct`), which `freeprm grade` makes")


PLUGIN = TRLUnpaired
