"""The common part of formats of preferences: a prompt with a better and a worse reply, and writing pairs.

The shapes are TRL's (dataset formats, `extract_prompt`): a preference is {"prompt", "chosen", "rejected"}, or only
{"chosen", "rejected"} that begin alike; each is a text or a list of {"role", "content"}.
"""

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

from freeprm.core.groups import Pair, pair
from freeprm.formats.base import Written, write_each
from freeprm.io.columns import AnyPrompt, ForeignRow, id_from
from freeprm.io.conversations import as_messages, as_text
from freeprm.io.rows import Row, Source
from freeprm.types import Group, Message, Prompt, Rollout

CUT_OFF = "responses cut off, which TRL would end"
REPLY = "text, or one message of the assistant"


class PreferenceRow(ForeignRow):
    """A row with a preference in one of TRL's shapes."""

    prompt: AnyPrompt | None = None
    chosen: AnyPrompt
    rejected: AnyPrompt


class Preference(NamedTuple):
    """A prompt with a better and a worse reply."""

    prompt: Prompt
    chosen: str
    rejected: str


def read_preference(row: PreferenceRow) -> Preference:
    """The prompt and the two replies of a row of any shape.

    An explicit text prompt beside conversations is ignored: the conversations contain it.

    Raises:
        RecordError: text beside messages, or the shared beginning is not followed by one reply.
    """
    chosen, rejected, prompt = row.chosen, row.rejected, row.prompt
    if isinstance(chosen, str) and isinstance(rejected, str):
        if isinstance(prompt, tuple):
            raise row.wrong("prompt", "text, as `chosen` and `rejected` are")
        return Preference(prompt, chosen, rejected) if prompt else _split_texts(row, chosen, rejected)
    if isinstance(chosen, str) or isinstance(rejected, str):
        raise row.wrong("rejected", "text where `chosen` is text, messages where it is messages")
    n_shared = _shared(chosen, rejected)
    before = (*(prompt if isinstance(prompt, tuple) else ()), *chosen[:n_shared])
    if not before:
        raise row.wrong("rejected", "messages that begin as those of `chosen`, or a prompt of messages")
    replies = [only_reply(row, name, side[n_shared:]) for name, side in (("chosen", chosen), ("rejected", rejected))]
    return Preference(before, *replies)


def only_reply(row: ForeignRow, name: str, messages: Sequence[Message]) -> str:
    """The text of a single assistant message; a RecordError for any other messages."""
    if len(messages) != 1 or messages[0]["role"] != "assistant":
        roles = ", ".join(message["role"] for message in messages) or "nothing"
        raise row.wrong(name, f"{REPLY}, after what both share", found=f"goes on with messages of {roles}")
    return messages[0]["content"]


def both(preference: Preference, problem_id: str, extra: Row) -> list[Rollout]:
    """The two rollouts of a preference."""
    prompt, chosen, rejected = preference
    right = Rollout(problem_id=problem_id, sample_idx=0, prompt=prompt, response=chosen, correct=True, extra=extra)
    return [right, replace(right, sample_idx=1, response=rejected, correct=False)]


def pair_id(preference: Preference, source: Source) -> str:
    """A unique id of a row's pair, whatever the file's folder."""
    return f"pair-{id_from(source.line, *preference)}"


@dataclass(frozen=True, kw_only=True)
class PairOptions:
    """How pairs are made in writing."""

    pairing: str = "cartesian"
    """`cartesian` or `one_to_one`."""
    max_pairs: int | None = None
    """Maximum of pairs of one problem; none for no limit."""
    seed: int = 0
    """Of the choice of pairs."""
    cut_off: bool = False
    """Write truncated responses too: the format cannot mark them, and TRL ends them like finished ones."""

    def write_pairs(self, groups: Sequence[Group], row_of: Callable[[Pair, Counter[str]], Row]) -> Written:
        """A row for each pair, and counts of responses without one.

        Raises:
            DataError: no right or no wrong response in the whole data, or there is no row.
        """
        whole = groups if self.cut_off else [replace(group, rollouts=_finished(group)) for group in groups]
        paired = pair(whole, pairing=self.pairing, max_pairs=self.max_pairs, seed=self.seed)
        n_cut = sum(len(group.rollouts) for group in groups) - sum(len(group.rollouts) for group in whole)
        needs = "problems with both a right and a wrong response (`correct`)"
        written = write_each(paired.pairs, row_of, needs=needs)
        return Written(written.rows, +(paired.dropped + Counter({CUT_OFF: n_cut}) + written.skipped))


def is_conversational(groups: Sequence[Group]) -> bool:
    """Whether any prompt is a conversation; all rows of a data set have the same shape."""
    return any(not isinstance(group.prompt, str) for group in groups)


def prompt_for(prompt: Prompt, conversational: bool) -> Any:
    """The prompt in rows of this shape; a DataError for several messages in rows of texts."""
    return as_messages(prompt) if conversational else as_text(prompt)


def _finished(group: Group) -> tuple[Rollout, ...]:
    """The responses that are not truncated."""
    return tuple(rollout for rollout in group.rollouts if not rollout.truncated)


def _split_texts(row: PreferenceRow, chosen: str, rejected: str) -> Preference:
    n_shared = _shared(chosen, rejected)
    if n_shared > 0 and chosen[n_shared - 1] == " ":  # the space goes with the reply, as in TRL
        n_shared -= 1
    if n_shared <= 0:
        raise row.wrong("rejected", "a text that begins as `chosen` does, or a column `prompt`")
    return Preference(chosen[:n_shared], chosen[n_shared:], rejected[n_shared:])


def _shared(chosen: Sequence[Any], rejected: Sequence[Any]) -> int:
    """Number of common characters or messages; if one begins the other, all but its last."""
    both = zip(chosen, rejected, strict=False)
    shorter = min(len(chosen), len(rejected))
    return next((index for index, (one, other) in enumerate(both) if one != other), shorter - 1)
