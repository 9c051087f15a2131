"""Prompts and replies as chat templates and other projects want them: as texts, or as messages."""

from freeprm.errors import DataError
from freeprm.types import Message, Prompt


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
