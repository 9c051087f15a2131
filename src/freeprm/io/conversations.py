"""Prompts and replies as texts or as messages."""

from freeprm.errors import DataError
from freeprm.types import RENDERED, Message, Prompt


def as_messages(prompt: Prompt) -> list[Message]:
    """The prompt as a conversation; a text is the user's message. A DataError for a rendered one."""
    if isinstance(prompt, str):
        return [{"role": "user", "content": prompt}]
    if any(turn.get("role") == RENDERED for turn in prompt):
        raise DataError(
            f"the prompt has a message of the role {RENDERED!r}, a text as the model reads it; expected that message "
            "alone, and a way of reading that takes such a text (engine hf, freeprm train, freeprm score)"
        )
    return [dict(turn) for turn in prompt]


def split_turn(prompt: Prompt) -> tuple[list[Message], str | None]:
    """The prompt as a conversation without a final assistant message, and that message's text or None.

    Such a message is an unfinished turn, which the response continues, as with `continue_final_message` in transformers
    and TRL.
    """
    messages = as_messages(prompt)
    if messages and messages[-1].get("role") == "assistant":
        return messages[:-1], messages[-1]["content"]
    return messages, None


def as_text(prompt: Prompt) -> str:
    """The prompt as text; a DataError for a conversation of more than one user message."""
    if isinstance(prompt, str):
        return prompt
    if [turn["role"] for turn in prompt] != ["user"]:
        raise DataError("a prompt of several messages, where the format takes one text")
    return prompt[0]["content"]


def as_reply(response: str) -> list[Message]:
    """The response as an assistant message."""
    return [{"role": "assistant", "content": response}]
