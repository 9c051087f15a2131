"""UltraFeedback as pairs with scores, as the Zephyr models were trained on it.

    {"prompt": text, "prompt_id": text, "chosen": [user, assistant], "rejected": [user, assistant], "messages": [...],
     "score_chosen": number, "score_rejected": number}

Messages are {"role", "content"}; `messages` is `chosen` again. trl-lib/ultrafeedback_binarized has only the two
conversations and the two scores.

Read: the conversations' shared beginning is the prompt; each row is a problem of its own, so that exactly its pair is
trained on; `chosen` is correct, `rejected` not, each with its `score`. `prompt_id` is carried along.

Written: the pairs of each group (`core.groups.pair`) that have scores. Lost are ids, gold answers, steps and
every other column.

Source: HuggingFaceH4/ultrafeedback_binarized; the columns are those of its card.
"""

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

from freeprm.core.groups import Pair
from freeprm.errors import DataError
from freeprm.formats.base import Written
from freeprm.formats.trl_preference import both, pair_id, pairs, write_pairs
from freeprm.io.columns import Fields, id_from
from freeprm.io.conversations import as_messages, as_reply, read_preference
from freeprm.io.rows import Row, Source
from freeprm.types import Group, Rollout

_SCORES = ("score_chosen", "score_rejected")


@dataclass(frozen=True, kw_only=True)
class UltraFeedbackBinarized:
    """Pairs of conversations with the scores of both."""

    pairing: str = "cartesian"
    """Which right responses are paired with which wrong ones: `cartesian` or `one_to_one`."""
    max_pairs: int | None = None
    """At most so many pairs of one problem; none for no limit."""
    seed: int = 0
    """Of the choice of pairs."""
    cut_off: bool = False
    """Write responses that were cut off, too: the format cannot say that they were."""

    def recognises(self, row: Row) -> bool:
        """Has `chosen` and `rejected` with `score_chosen` and `score_rejected`."""
        return {"chosen", "rejected", *_SCORES} <= row.keys() and "trajectory" not in row

    def read(self, row: Row, source: Source) -> Iterable[Rollout]:
        """The chosen and the rejected reply of a row.

        Raises:
            RecordError: a field is absent or of the wrong kind.
        """
        fields = Fields(row, source)
        preference = read_preference(fields)
        extra = fields.others("prompt", "chosen", "rejected", "messages", *_SCORES)
        scores = [fields.number(name) for name in _SCORES]
        rollouts = both(preference, pair_id(preference, source), extra)
        return [replace(rollout, score=score) for rollout, score in zip(rollouts, scores, strict=True)]

    def write(self, groups: Sequence[Group]) -> Written:
        """A row of each pair with scores; groups and pairs without are counted.

        Raises:
            DataError: no right or no wrong response in the whole data, or none has a score.
        """
        paired = pairs(groups, pairing=self.pairing, max_pairs=self.max_pairs, seed=self.seed, cut_off=self.cut_off)
        return write_pairs(paired, _row)


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
