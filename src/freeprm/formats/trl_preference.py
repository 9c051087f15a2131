"""TRL's preference rows: a prompt with a better and a worse reply, for DPO and its kin.

    {"prompt": P, "chosen": C, "rejected": R}      or, with the prompt at the head of both,      {"chosen", "rejected"}

P, C and R are texts, or lists of {"role", "content"}. A prompt that is implicit in two texts is what both begin with,
as TRL takes it (`extract_prompt`).

Read: each row is a problem of its own, so that exactly its pair is trained on; a `problem_id` is where its id begins.
The chosen reply is `correct`, the rejected one not. Every other column is carried along.

Written: the pairs of each group (`core.groups.pair`), with an explicit prompt. Lost are ids, gold answers, steps
and every other column. A text prompt becomes a user's message in a conversational row; in a row of texts TRL puts the
reply right behind the prompt, so chat models want conversations.

Source: huggingface/trl, docs/source/dataset_formats.md and trl/data_utils.py (1.16).
"""

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any

from freeprm.core.groups import Pair, Paired, pair
from freeprm.formats.base import Written, write_each
from freeprm.io.columns import Fields, id_from
from freeprm.io.conversations import Preference, as_messages, as_reply, as_text, read_preference
from freeprm.io.rows import Row, Source
from freeprm.types import Group, Prompt, Rollout

CUT_OFF = "responses cut off, which TRL would end"
_OTHERS = ("trajectory", "score_chosen", "score_rejected")
"""Columns of other formats with `chosen` and `rejected`."""


@dataclass(frozen=True, kw_only=True)
class TRLPreference:
    """Preferences as TRL's trainers read them."""

    pairing: str = "cartesian"
    """Which right responses are paired with which wrong ones: `cartesian` or `one_to_one`."""
    max_pairs: int | None = None
    """At most so many pairs of one problem; none for no limit."""
    seed: int = 0
    """Of the choice of pairs."""
    conversational: bool | None = None
    """Write messages, or texts; none for messages where any prompt is a conversation."""
    cut_off: bool = False
    """Write responses that were cut off, too: the trainers end them like finished ones."""

    def recognises(self, row: Row) -> bool:
        """Has `chosen` and `rejected`, one reply each, and no column by which other formats with these are told."""
        several = isinstance(row.get("chosen"), list) and all(isinstance(one, str) for one in row["chosen"])
        return {"chosen", "rejected"} <= row.keys() and not several and not any(name in row for name in _OTHERS)

    def read(self, row: Row, source: Source) -> Iterable[Rollout]:
        """The chosen and the rejected reply of a row.

        Raises:
            RecordError: see `io.conversations.read_preference`.
        """
        fields = Fields(row, source)
        preference = read_preference(fields)
        given = fields.identifier("problem_id")
        extra = fields.others("prompt", "chosen", "rejected", "problem_id")
        own = pair_id(preference, source)
        return both(preference, own if given is None else f"{given}/{own}", extra)

    def write(self, groups: Sequence[Group]) -> Written:
        """A row of each pair; groups without one are counted.

        Raises:
            DataError: no right or no wrong response in the whole data.
        """
        paired = pairs(groups, pairing=self.pairing, max_pairs=self.max_pairs, seed=self.seed, cut_off=self.cut_off)
        conversational = is_conversational(groups) if self.conversational is None else self.conversational

        def row_of(one: Pair, skipped: Counter[str]) -> Row:
            return {
                "prompt": prompt_for(one.chosen.prompt, conversational),
                "chosen": as_reply(one.chosen.response) if conversational else one.chosen.response,
                "rejected": as_reply(one.rejected.response) if conversational else one.rejected.response,
            }

        return write_pairs(paired, row_of)


def pair_id(preference: Preference, source: Source) -> str:
    """An id that no other row's pair has, whatever folder the file lies in."""
    return f"pair-{id_from(source.line, *preference)}"


def both(preference: Preference, problem_id: str, extra: Row) -> list[Rollout]:
    """The two rollouts of a preference."""
    chosen = Rollout(
        problem_id=problem_id,
        sample_idx=0,
        prompt=preference.prompt,
        response=preference.chosen,
        correct=True,
        extra=extra,
    )
    return [chosen, replace(chosen, sample_idx=1, response=preference.rejected, correct=False)]


def pairs(groups: Sequence[Group], *, pairing: str, max_pairs: int | None, seed: int, cut_off: bool) -> Paired:
    """The pairs of each group, without responses that were cut off unless they are asked for."""
    whole = groups if cut_off else [replace(group, rollouts=finished(group)) for group in groups]
    paired = pair(whole, pairing=pairing, max_pairs=max_pairs, seed=seed)
    n_cut = sum(len(group.rollouts) for group in groups) - sum(len(group.rollouts) for group in whole)
    paired.dropped[CUT_OFF] += n_cut
    return Paired(paired.pairs, +paired.dropped)


def write_pairs(paired: Paired, row_of: Callable[[Pair, Counter[str]], Row]) -> Written:
    """A row of each pair, with what gave none counted, too.

    Raises:
        DataError: there is no row.
    """
    written = write_each(paired.pairs, row_of, needs="problems with both a right and a wrong response (`correct`)")
    return Written(written.rows, paired.dropped + written.skipped)


def finished(group: Group) -> tuple[Rollout, ...]:
    """The responses that came to their end."""
    return tuple(rollout for rollout in group.rollouts if not rollout.truncated)


def is_conversational(groups: Sequence[Group]) -> bool:
    """Whether any prompt is a conversation; the rows of one data set are all of one kind."""
    return any(not isinstance(group.prompt, str) for group in groups)


def prompt_for(prompt: Prompt, conversational: bool) -> Any:
    """The prompt as rows of this kind have it.

    Raises:
        DataError: several messages, where the rows hold texts.
    """
    return as_messages(prompt) if conversational else as_text(prompt)


PLUGIN = TRLPreference
