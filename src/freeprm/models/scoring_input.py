"""A response as a released reward model reads it: token ids, and the positions at which it is asked for a score.

The text is tokenised once, as a whole; positions come from the characters that a marker stands on, never from a search
for its id, so that a marker's letters inside an ordinary word are no step's end.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from jinja2 import TemplateError
from numpy.typing import NDArray
from transformers import PreTrainedTokenizerBase

from freeprm.errors import DataError, ModelError
from freeprm.types import Message, Rollout, Span

Ints = NDArray[np.int32]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class ScoringInput:
    """What a model is given for one response, and where it is read."""

    name: str
    """The response, for messages: `problem 'p7', sample 3`."""
    text: str
    """What the ids are of; without the beginning-of-sequence token that the tokenizer puts before it."""
    ids: Ints
    """(L,)"""
    positions: tuple[int, ...]
    """Where the hidden states are read, in order."""
    steps: tuple[Span, ...] = ()
    """K character spans of the response, one a step score; none where there is one score for the response."""

    def cut(self, n_tokens: int) -> None:
        """Nothing of it can be read without its end; see `encoding.Fitting`."""


class Tokens(NamedTuple):
    """A text as tokens."""

    ids: Ints
    """(L,)"""
    offsets: Ints
    """(L, 2) first character that each token covers, and the one after its last; equal for what is added."""


def response_name(rollout: Rollout) -> str:
    """A response as messages call it."""
    return f"problem {rollout.problem_id!r}, sample {rollout.sample_idx}"


def question(rollout: Rollout) -> str:
    """The question alone, for a recipe that writes everything around it itself.

    Raises:
        DataError: the prompt is a conversation of more than one user turn, which the recipe has no place for.
    """
    if isinstance(rollout.prompt, str):
        return rollout.prompt
    if len(rollout.prompt) == 1 and rollout.prompt[0].get("role") == "user":
        return rollout.prompt[0]["content"]
    roles = ", ".join(message.get("role", "?") for message in rollout.prompt)
    raise DataError(
        f"{response_name(rollout)}: its prompt is a conversation of {roles}, but the recipe takes one question; give "
        "the question as text"
    )


def tokenise(tokenizer: PreTrainedTokenizerBase, text: str, *, special: bool) -> Tokens:
    """A text as ids with the characters they cover.

    Args:
        tokenizer: one with offsets.
        text: the whole text.
        special: let the tokenizer add what it adds of its own accord, i.e. a beginning-of-sequence token; False where
            a chat template has written it already.
    """
    done = tokenizer(
        text, add_special_tokens=special, return_offsets_mapping=True, return_attention_mask=False, verbose=False
    )
    return Tokens(np.array(done["input_ids"], np.int32), np.array(done["offset_mapping"], np.int32).reshape(-1, 2))


def render(tokenizer: PreTrainedTokenizerBase, messages: Sequence[Message], *, date: str | None) -> str:
    """A finished conversation under the model's chat template.

    Args:
        tokenizer: one with a chat template.
        messages: in turn.
        date: what a template that writes today's date is to write instead, so that scores do not change overnight.

    Raises:
        ModelError: there is no chat template, or it refuses the conversation.
    """
    if not tokenizer.chat_template:
        raise ModelError(f"{tokenizer.name_or_path}: no chat template, which the recipe needs; restore its files")
    options: dict[str, Any] = {} if date is None else {"date_string": date}
    try:
        text = tokenizer.apply_chat_template(
            [dict(message) for message in messages], tokenize=False, add_generation_prompt=False, **options
        )
    except TemplateError as error:
        roles = ", ".join(message["role"] for message in messages)
        raise ModelError(f"the chat template refuses a conversation of {roles}: {error}") from error
    return str(text)


def position_of(tokens: Tokens, marker: Span, *, expected: int, name: str) -> int:
    """The one token that a marker became.

    Args:
        tokens: of the whole text.
        marker: the marker's characters.
        expected: the id that it must have.
        name: the response, for the message.

    Raises:
        ModelError: the marker was split, merged with its neighbours into another token, or has another id.
    """
    starts, stops = tokens.offsets[:, 0], tokens.offsets[:, 1]
    over = np.flatnonzero((starts < marker.stop) & (stops > marker.start))
    if len(over) != 1 or tokens.ids[over[0]] != expected:
        found = tokens.ids[over].tolist()
        raise ModelError(
            f"{name}: the marker at character {marker.start} of the scored text became tokens {found}, but the model "
            f"is read at token {expected}; use the tokenizer that was released with it"
        )
    return int(over[0])


def check_tokens(tokenizer: PreTrainedTokenizerBase, expected: Mapping[str, int], *, recipe: str) -> None:
    """Refuse a tokenizer whose special tokens are not the recipe's.

    Args:
        tokenizer: the model's.
        expected: text -> the id that it must become, alone.
        recipe: for the message.

    Raises:
        ModelError: no offsets, or a token splits or has another id; names the first.
    """
    if not tokenizer.is_fast:
        raise ModelError(f"{tokenizer.name_or_path}: a tokenizer without offsets; expected a fast one (tokenizer.json)")
    for text, token in expected.items():
        found = list(tokenizer(text, add_special_tokens=False)["input_ids"])
        if found != [token]:
            how = f"splits into {found}" if len(found) != 1 else f"is token {found[0]}"
            raise ModelError(
                f"{tokenizer.name_or_path}: {text!r} {how}, but {recipe} is read by token {token}; use the tokenizer "
                "that was released with the model"
            )
