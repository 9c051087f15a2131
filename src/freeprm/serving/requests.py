"""Prompts and responses as requests give them."""

from typing import Any

from pydantic import BaseModel, ConfigDict, Field

from freeprm.errors import DataError
from freeprm.types import Prompt, Rollout


class Turn(BaseModel):
    """One message of a conversation."""

    model_config = ConfigDict(extra="ignore")

    role: str
    content: str


class Response(BaseModel):
    """One response, with what is known of it."""

    model_config = ConfigDict(extra="forbid")

    text: str
    steps: list[str] | None = None
    """Texts of its steps, which make it up; a splitter finds them otherwise."""
    truncated: bool = False
    """Cut off before its end."""


class Asked(BaseModel):
    """Responses to one prompt."""

    model_config = ConfigDict(extra="forbid")

    prompt: str | None = None
    """The question; or `messages`."""
    messages: list[Turn] | None = None
    """The conversation before the responses; or `prompt`."""
    responses: list[str | Response] = Field(min_length=1)

    def rollouts(self) -> list[Rollout]:
        """As rollouts; a DataError unless one of prompt and messages is given."""
        prompt: Prompt
        if (self.prompt is None) == (self.messages is None):
            raise DataError("expected one of `prompt` (text) and `messages` (a conversation)")
        prompt = self.prompt if self.prompt is not None else as_prompt(self.messages or [])
        return [_rollout(prompt, index, response) for index, response in enumerate(self.responses)]


def as_prompt(messages: list[Turn]) -> Prompt:
    """A conversation; a DataError for an empty one."""
    if not messages:
        raise DataError("messages: is empty; expected one or more")
    return tuple({"role": turn.role, "content": turn.content} for turn in messages)


def _rollout(prompt: Prompt, index: int, response: str | Response) -> Rollout:
    given = Response(text=response) if isinstance(response, str) else response
    extra: dict[str, Any] = {} if given.steps is None else {"steps": given.steps}
    return Rollout(
        problem_id="prompt", sample_idx=index, prompt=prompt, response=given.text, truncated=given.truncated,
        extra=extra,
    )  # fmt: skip
