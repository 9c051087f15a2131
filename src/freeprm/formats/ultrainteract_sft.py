"""UltraInteract's rows for supervised fine-tuning: an instruction and an action that is right.

`correct` is true throughout, since the card takes only right actions and those that lead to them. Rows with the same
instruction are responses to one problem, whose id is a hash of the instruction. Written are the right responses.

Source: Yuan et al. 2024, arXiv:2404.02078; the columns are those of the card of openbmb/UltraInteract_sft.
"""

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from freeprm.errors import DataError
from freeprm.formats.base import Written, rollouts_of, write_each
from freeprm.io.columns import Filled, ForeignRow, id_from
from freeprm.io.conversations import as_text
from freeprm.io.rows import Row, Source
from freeprm.types import Group, Rollout


class _Row(ForeignRow):
    instruction: Filled
    response: Filled


@dataclass(frozen=True, kw_only=True)
class UltraInteractSFT:
    """Right actions in UltraInteract's preference trees."""

    def recognises(self, row: Row) -> bool:
        """Has `instruction`, `response`, `task` and `parent_id`."""
        return {"instruction", "response", "task", "parent_id"} <= row.keys()

    def read(self, row: Row, source: Source) -> Iterable[Rollout]:
        """The one rollout of a row."""
        parsed = _Row.of(row, source)
        yield Rollout(
            problem_id=id_from(parsed.instruction),
            sample_idx=0,
            prompt=parsed.instruction,
            response=parsed.response,
            correct=True,
            extra=parsed.others(),
        )

    def write(self, groups: Sequence[Group]) -> Written:
        """A row of each right response."""
        return write_each(rollouts_of(groups), _row, needs="responses that are right (`correct`)")


def _row(rollout: Rollout, skipped: Counter[str]) -> Row:
    if not rollout.correct:
        raise DataError("ungraded responses" if rollout.correct is None else "wrong responses")
    carried = rollout.extra
    return {
        "task": carried.get("task"), "dataset": carried.get("dataset"), "instruction": as_text(rollout.prompt),
        "response": rollout.response, "id": carried.get("id"), "parent_id": carried.get("parent_id"),
    }  # fmt: skip


PLUGIN = UltraInteractSFT
