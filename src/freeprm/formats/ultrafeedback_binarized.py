"""UltraFeedback as pairs with scores, as the Zephyr models were trained on it.

The conversations' common beginning is the prompt; each row is its own problem, so that exactly its pair is trained on;
`chosen` is correct, `rejected` not, each with its `score`; `messages` repeats `chosen`.
trl-lib/ultrafeedback_binarized has only the two conversations and the two scores. Pairs with scores are written.

Source: HuggingFaceH4/ultrafeedback_binarized; the columns are those of its card.
"""

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any

from freeprm.core.groups import Pair
from freeprm.errors import DataError
from freeprm.formats._preferences import PairOptions, PreferenceRow, both, pair_id, read_preference
from freeprm.formats.base import Written
from freeprm.io.columns import Number, id_from
from freeprm.io.conversations import as_messages, as_reply
from freeprm.io.rows import Row, Source
from freeprm.types import Group, Rollout


class _Row(PreferenceRow):
    messages: Any = None
    score_chosen: Number | None = None
    score_rejected: Number | None = None


@dataclass(frozen=True, kw_only=True)
class UltraFeedbackBinarized(PairOptions):
    """Pairs of conversations with the scores of both."""

    def recognises(self, row: Row) -> bool:
        """Has `chosen` and `rejected` with `score_chosen` and `score_rejected`."""
        return {"chosen", "rejected", "score_chosen", "score_rejected"} <= row.keys() and "trajectory" not in row

    def read(self, row: Row, source: Source) -> Iterable[Rollout]:
        """The chosen and the rejected reply of a row."""
        parsed = _Row.of(row, source)
        preference = read_preference(parsed)
        chosen, rejected = both(preference, pair_id(preference, source), parsed.others())
        return [replace(chosen, score=parsed.score_chosen), replace(rejected, score=parsed.score_rejected)]

    def write(self, groups: Sequence[Group]) -> Written:
        """A row of each pair with scores; groups and pairs without are counted."""
        return self.write_pairs(groups, _row)


def _row(one: Pair, skipped: Counter[str]) -> Row:
    if one.chosen.score is None or one.rejected.score is None:
        raise DataError("pairs without scores (`score`)")
    prompt = as_messages(one.chosen.prompt)
    conversation = [*prompt, *as_reply(one.chosen.response)]
    return {
        "prompt": prompt[-1]["content"],
        "prompt_id": one.chosen.extra.get("prompt_id") or id_from(one.chosen.prompt),
        "chosen": conversation,
        "rejected": [*prompt, *as_reply(one.rejected.response)],
        "messages": conversation,
        "score_chosen": one.chosen.score,
        "score_rejected": one.rejected.score,
    }


PLUGIN = UltraFeedbackBinarized
