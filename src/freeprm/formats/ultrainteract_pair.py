"""UltraInteract's preference rows: a conversation so far, and a right and a wrong next action.

    {"task", "dataset", "trajectory": [{"from": "user", "value": text}, ...], "chosen": text, "rejected": text, "id",
     "parent_id"}

Read: the trajectory is the prompt, as a conversation; each row is a problem of its own, so that exactly its pair is
trained on; `chosen` is correct, `rejected` not. `task`, `dataset`, `id` and `parent_id` are carried along.

Written: the pairs of each group (`core.groups.pair`); what is not carried along is null. Lost are gold answers,
steps and every other column.

Source: Yuan et al. 2024, arXiv:2404.02078; the columns are those of the card of openbmb/UltraInteract_pair, the roles
`user` and `assistant` those of its example.
"""

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from freeprm.core.groups import Pair
from freeprm.formats.base import Written
from freeprm.formats.trl_preference import both, pair_id, pairs, write_pairs
from freeprm.io.columns import Fields
from freeprm.io.conversations import Preference, as_messages
from freeprm.io.rows import Row, Source
from freeprm.types import Group, Message, Rollout

_ROLES = ("user", "assistant")


@dataclass(frozen=True, kw_only=True)
class UltraInteractPair:
    """Pairs of actions in UltraInteract's preference trees."""

    pairing: str = "cartesian"
    """Which right responses are paired with which wrong ones: `cartesian` or `one_to_one`."""
    max_pairs: int | None = None
    """At most so many pairs of one problem; none for no limit."""
    seed: int = 0
    """Of the choice of pairs."""
    cut_off: bool = False
    """Write responses that were cut off, too: the format cannot say that they were."""

    def recognises(self, row: Row) -> bool:
        """Has `trajectory`, `chosen` and `rejected`."""
        return {"trajectory", "chosen", "rejected"} <= row.keys()

    def read(self, row: Row, source: Source) -> Iterable[Rollout]:
        """The chosen and the rejected action of a row.

        Raises:
            RecordError: a field is absent or of the wrong kind, or a turn has another role than user and assistant.
        """
        fields = Fields(row, source)
        turns = tuple(_message(turn) for turn in fields.each("trajectory"))
        preference = Preference(turns, fields.text("chosen", blank=True), fields.text("rejected", blank=True))
        return both(preference, pair_id(preference, source), fields.others("trajectory", "chosen", "rejected"))

    def write(self, groups: Sequence[Group]) -> Written:
        """A row of each pair; groups without one are counted.

        Raises:
            DataError: no right or no wrong response in the whole data.
        """
        paired = pairs(groups, pairing=self.pairing, max_pairs=self.max_pairs, seed=self.seed, cut_off=self.cut_off)
        return write_pairs(paired, _row)


def _message(turn: Fields) -> Message:
    role = turn.text("from")
    if role not in _ROLES:
        raise turn.wrong("from", f"one of {', '.join(_ROLES)}")
    return {"role": role, "content": turn.text("value", blank=True)}


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
