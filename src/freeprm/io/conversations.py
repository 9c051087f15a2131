"""Prompts and replies as other projects write them: texts or messages, the prompt by itself or at the head of both.

The shapes are TRL's (dataset formats, `extract_prompt`): a preference is {"prompt", "chosen", "rejected"}, or only
{"chosen", "rejected"} that begin alike; each is a text or a list of {"role", "content"}.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

from freeprm.errors import DataError
from freeprm.io.columns import Fields
from freeprm.types import Message, Prompt

_REPLY = "text, or one message of the assistant"


class Preference(NamedTuple):
    """A prompt with a better and a worse reply."""

    prompt: Prompt
    chosen: str
    rejected: str


def read_preference(fields: Fields) -> Preference:
    """The prompt and the two replies of a row, whichever way it says them.

    An explicit prompt that is text beside replies that are conversations is left aside: the conversations hold it.

    Raises:
        RecordError: a field is absent or of the wrong kind, or what follows the shared beginning is not one reply.
    """
    chosen, rejected = fields.prompt("chosen"), fields.prompt("rejected")
    prompt = fields.prompt("prompt") if fields.has("prompt") else None
    if isinstance(chosen, str) and isinstance(rejected, str):
        if isinstance(prompt, tuple):
            raise fields.wrong("prompt", "text, as `chosen` and `rejected` are")
        return Preference(prompt, chosen, rejected) if prompt else _split_texts(fields, chosen, rejected)
    if isinstance(chosen, str) or isinstance(rejected, str):
        raise fields.wrong("rejected", "text where `chosen` is text, messages where it is messages")
    n_shared = _shared(chosen, rejected)
    before = (*(prompt if isinstance(prompt, tuple) else ()), *chosen[:n_shared])
    if not before:
        raise fields.wrong("rejected", "messages that begin as those of `chosen`, or a prompt of messages")
    replies = [
        _only_reply(fields, name, side[n_shared:]) for name, side in (("chosen", chosen), ("rejected", rejected))
    ]
    return Preference(before, *replies)


def read_reply(fields: Fields, name: str) -> str:
    """A reply given as text or as one message of the assistant.

    Raises:
        RecordError: it is neither.
    """
    if not isinstance(fields.row.get(name), list):
        return fields.text(name, blank=True)
    reply = fields.prompt(name)
    assert isinstance(reply, tuple)
    return _only_reply(fields, name, reply)


def as_messages(prompt: Prompt) -> list[Message]:
    """The prompt as a conversation; a text is what the user says."""
    return [{"role": "user", "content": prompt}] if isinstance(prompt, str) else [dict(turn) for turn in prompt]


def split_turn(prompt: Prompt) -> tuple[list[Message], str | None]:
    """The prompt as a conversation, and what the assistant says at its end, where a response goes on; None for nothing.

    A conversation that ends in the assistant's words does not end its turn: transformers and TRL go on from there too
    (`continue_final_message`).
    """
    messages = as_messages(prompt)
    if messages and messages[-1].get("role") == "assistant":
        return messages[:-1], messages[-1]["content"]
    return messages, None


def as_text(prompt: Prompt) -> str:
    """The prompt as text; a conversation only where it is one message of the user.

    Raises:
        DataError: it is more than that.
    """
    if isinstance(prompt, str):
        return prompt
    if [turn["role"] for turn in prompt] != ["user"]:
        raise DataError("a prompt of several messages, where the format takes one text")
    return prompt[0]["content"]


def as_reply(response: str) -> list[Message]:
    """The response as what the assistant says."""
    return [{"role": "assistant", "content": response}]


def _split_texts(fields: Fields, chosen: str, rejected: str) -> Preference:
    n_shared = _shared(chosen, rejected)
    if n_shared > 0 and chosen[n_shared - 1] == " ":  # the space goes with the reply, as in TRL
        n_shared -= 1
    if n_shared <= 0:
        raise fields.wrong("rejected", "a text that begins as `chosen` does, or a column `prompt`")
    return Preference(chosen[:n_shared], chosen[n_shared:], rejected[n_shared:])


def _shared(chosen: Sequence[Any], rejected: Sequence[Any]) -> int:
    """How many characters or messages both begin with; all but the last of the shorter where one begins the other."""
    both = zip(chosen, rejected, strict=False)
    shorter = min(len(chosen), len(rejected))
    return next((index for index, (one, other) in enumerate(both) if one != other), shorter - 1)


def _only_reply(fields: Fields, name: str, messages: Sequence[Message]) -> str:
    if len(messages) != 1 or messages[0]["role"] != "assistant":
        roles = ", ".join(message["role"] for message in messages) or "nothing"
        raise fields.wrong(name, f"{_REPLY}, after what both share", found=f"goes on with messages of {roles}")
    return messages[0]["content"]
