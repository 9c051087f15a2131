"""Prompts and responses as requests give them."""

from typing import Annotated, Any

from pydantic import AfterValidator, BaseModel, ConfigDict, Field

from freeprm.errors import DataError
from freeprm.types import Prompt, Rollout


def _whole(text: str) -> str:
    """The text; a ValueError for half a surrogate pair, which JSON can spell (`"\\ud83d"`) and no tokenizer reads."""
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise ValueError(f"character {error.start} is half of a surrogate pair; send the whole character") from error
    return text


Text = Annotated[str, AfterValidator(_whole)]


class Turn(BaseModel):
    """One message of a conversation."""

    model_config = ConfigDict(extra="ignore")

    role: Text
    content: Text


class Response(BaseModel):
    """One response, with what is known of it."""

    model_config = ConfigDict(extra="forbid")

    text: Text
    steps: list[Text] | None = None
    """Texts of its steps, which make it up; a splitter finds them otherwise."""
    truncated: bool = False
    """Cut off before its end."""


class Asked(BaseModel):
    """Responses to one prompt."""

    model_config = ConfigDict(extra="forbid")

    prompt: Text | None = None
    """The question; or `messages`."""
    messages: list[Turn] | None = None
    """The conversation before the responses; or `prompt`."""
    responses: list[Text | Response] = Field(min_length=1)

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
