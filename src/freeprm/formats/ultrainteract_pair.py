"""UltraInteract's preference rows: a conversation so far (`trajectory`), and a right and a wrong next action.

The trajectory is the prompt, as a conversation; each row is its own problem, so that exactly its pair is trained on.

Source: Yuan et al. 2024, arXiv:2404.02078; the columns are those of the card of openbmb/UltraInteract_pair, the roles
`user` and `assistant` those of its example.
"""

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Annotated, Literal

from pydantic import BaseModel, Field

from freeprm.core.groups import Pair
from freeprm.formats._preferences import PairOptions, Preference, both, pair_id
from freeprm.formats.base import Written
from freeprm.io.columns import Expected, ForeignRow, Text
from freeprm.io.conversations import as_messages
from freeprm.io.rows import Row, Source
from freeprm.types import Group, Rollout


class _Turn(BaseModel):
    role: Annotated[Literal["user", "assistant"], Expected("one of user, assistant")] = Field(alias="from")
    value: Text


class _Row(ForeignRow):
    trajectory: Annotated[list[_Turn], Field(min_length=1)]
    chosen: Text
    rejected: Text


@dataclass(frozen=True, kw_only=True)
class UltraInteractPair(PairOptions):
    """Pairs of actions in UltraInteract's preference trees."""

    def recognises(self, row: Row) -> bool:
        """Has `trajectory`, `chosen` and `rejected`."""
        return {"trajectory", "chosen", "rejected"} <= row.keys()

    def read(self, row: Row, source: Source) -> Iterable[Rollout]:
        """The chosen and the rejected action of a row."""
        parsed = _Row.of(row, source)
        prompt = tuple({"role": turn.role, "content": turn.value} for turn in parsed.trajectory)
        preference = Preference(prompt, parsed.chosen, parsed.rejected)
        return both(preference, pair_id(preference, source), parsed.others())

    def write(self, groups: Sequence[Group]) -> Written:
        """A row of each pair; groups without one are counted."""
        return self.write_pairs(groups, _row)


def _row(one: Pair, skipped: Counter[str]) -> Row:
    carried = one.chosen.extra
    turns = [{"from": turn["role"], "value": turn["content"]} for turn in as_messages(one.chosen.prompt)]
    return {
        "task": carried.get("task"),
        "dataset": carried.get("dataset"),
        "trajectory": turns,
        "chosen": one.chosen.response,
        "rejected": one.rejected.response,
        "id": carried.get("id"),
        "parent_id": carried.get("parent_id"),
    }


PLUGIN = UltraInteractPair
