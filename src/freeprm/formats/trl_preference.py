"""TRL's preference rows: a prompt with a better and a worse reply, for DPO and the like.

An implicit prompt is the common beginning of two texts, as in TRL (`extract_prompt`). Each row is its own problem, so
that exactly its pair is trained on; a `problem_id` is the beginning of its id. Pairs are written with an explicit
prompt: a text becomes a user message in a conversational row; in a row of texts TRL puts the reply directly behind the
prompt, so chat models need conversations.

Source: huggingface/trl, docs/source/dataset_formats.md and trl/data_utils.py (1.16).
"""

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from freeprm.core.groups import Pair
from freeprm.formats._preferences import (
    PairOptions,
    PreferenceRow,
    both,
    is_conversational,
    pair_id,
    prompt_for,
    read_preference,
)
from freeprm.formats.base import Written
from freeprm.io.columns import Identifier
from freeprm.io.conversations import as_reply
from freeprm.io.rows import Row, Source
from freeprm.types import Group, Rollout

_OTHERS = ("trajectory", "score_chosen", "score_rejected")
"""Columns of other formats with `chosen` and `rejected`."""


class _Row(PreferenceRow):
    problem_id: Identifier | None = None


@dataclass(frozen=True, kw_only=True)
class TRLPreference(PairOptions):
    """Preferences as TRL's trainers read them."""

    conversational: bool | None = None
    """Write messages, or texts; by default messages if any prompt is a conversation."""

    def recognises(self, row: Row) -> bool:
        """Has `chosen` and `rejected`, one reply each, and no column of other formats with these."""
        several = isinstance(row.get("chosen"), list) and all(isinstance(one, str) for one in row["chosen"])
        return {"chosen", "rejected"} <= row.keys() and not several and not any(name in row for name in _OTHERS)

    def read(self, row: Row, source: Source) -> Iterable[Rollout]:
        """The chosen and the rejected reply of a row; see `read_preference`."""
        parsed = _Row.of(row, source)
        preference = read_preference(parsed)
        own = pair_id(preference, source)
        return both(preference, own if parsed.problem_id is None else f"{parsed.problem_id}/{own}", parsed.others())

    def write(self, groups: Sequence[Group]) -> Written:
        """A row of each pair; groups without one are counted."""
        conversational = is_conversational(groups) if self.conversational is None else self.conversational

        def row_of(one: Pair, skipped: Counter[str]) -> Row:
            return {
                "prompt": prompt_for(one.chosen.prompt, conversational),
                "chosen": as_reply(one.chosen.response) if conversational else one.chosen.response,
                "rejected": as_reply(one.rejected.response) if conversational else one.rejected.response,
            }

        return self.write_pairs(groups, row_of)


PLUGIN = TRLPreference
