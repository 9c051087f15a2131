"""The text around a response: what comes before it (prompt, chat template) and what ends it.

Sampling, training and scoring all take the text from here, so that a response is seen in the same
surroundings everywhere.
"""

import re
import warnings
from collections.abc import Sequence
from datetime import date
from typing import NamedTuple

from jinja2 import TemplateError
from transformers import PreTrainedTokenizerBase

from freeprm.errors import ConfigError, DataError, ModelError, RewardMismatchError
from freeprm.io.conversations import split_turn
from freeprm.types import RENDERED, Message, Prompt

PLAIN_SEPARATOR = "\n"
"""Between prompt and response where the tokenizer has no chat template."""
CLOCK_DATE = "2024-07-26"
"""What a chat template that asks the clock is told, unless another day is chosen: Llama 3's own default."""
_ASKED, _ANSWERED = "freeprm-asked", "freeprm-answered"  # found again in what a template makes of them
_TAG = r"[<\[][^<>\[\]\s/]*(?i:think|thought|reason)[^<>\[\]\s/]*[>\]]"  # <think>, [THINK], <|START_THINKING|>
_OPENS = re.compile(rf"\s*{_TAG}")
_OPENED = re.compile(rf"({_TAG})\s*\Z")
_CALL = r"\bstrftime_now\s*\("
_CLOCK = re.compile(rf"""{_CALL}\s*(["'])(.*?)\1\s*\)""")
_TOLD = re.compile(r"\{# today is (\d{4}-\d\d-\d\d) \+#\}")


class Around(NamedTuple):
    """What stands around a response."""

    head: str
    """Before it."""
    n_opened: int
    """Characters of the response that end the head already: the tag of its reasoning, opened by the template."""
    end: str
    """Behind it; empty where it is truncated, or brings its end itself."""


class Apart(NamedTuple):
    """A rendered conversation, taken apart."""

    prompt: Prompt
    """Rendered."""
    response: str
    """The last thing that the assistant says."""
    truncated: bool
    """Its end-of-turn token is missing."""


def render_prompt(tokenizer: PreTrainedTokenizerBase, prompt: Prompt) -> str:
    """The text that a response follows: the chat template's, up to and with the assistant's header.

    A rendered prompt is that text already. Without a chat template it is the prompt and a line break. A
    beginning-of-sequence token is part of the text only where the chat template writes it; see `encoding.encode` for
    the plain case. Where the assistant has the last word in a conversation, the response goes on from there: the text
    ends with these words, as they stand.

    Raises:
        ModelError: a conversation for a tokenizer without a chat template, or one that its template refuses.
    """
    if (rendered := rendered_text(prompt)) is not None:
        return rendered
    if not tokenizer.chat_template:
        if not isinstance(prompt, str):
            raise ModelError(
                "the prompt is a conversation, but the tokenizer has no chat template; give prompts as plain text, "
                "or a model folder whose tokenizer has a chat template"
            )
        return prompt + PLAIN_SEPARATOR
    past, begun = split_turn(prompt)
    if begun is None:
        return _render(tokenizer, past, add_generation_prompt=True)
    if _OPENS.match(begun):  # a template would take its reasoning out, and write it anew
        return _joined(_render(tokenizer, past, add_generation_prompt=True), begun)
    answered = [*past, {"role": "assistant", "content": _ANSWERED}]
    head, found, _ = _render(tokenizer, answered, add_generation_prompt=False).rpartition(_ANSWERED)
    if not found:
        raise ModelError(
            "the prompt ends with words of the assistant, but the chat template does not write what the assistant "
            "says; end the prompt with what the user says"
        )
    return head + begun


def rendered_text(prompt: Prompt) -> str | None:
    """What a rendered prompt holds; None of any other."""
    if isinstance(prompt, str) or len(prompt) != 1 or prompt[0].get("role") != RENDERED:
        return None
    return prompt[0]["content"]


def take_apart(tokenizer: PreTrainedTokenizerBase, text: str, *, asked: str | None = None) -> Apart:
    """Prompt and response of a rendered conversation, such as a trainer's decoded sequence.

    Padding behind the response is dropped. A beginning-of-sequence token is added where the model expects one and the
    text has none.

    Args:
        tokenizer: the model's.
        text: with special tokens.
        asked: the rendered prompt, where it is known; else the response begins behind the last header of the assistant.

    Raises:
        DataError: no response is found.
    """
    plain = not tokenizer.chat_template
    header = "" if plain else _head(tokenizer).partition(_ASKED)[2]
    opened = _OPENED.search(header)
    headers = [header, *([header[: opened.start()]] if opened else [])]
    ends = [at + len(asked)] if asked and (at := text.find(asked)) >= 0 else []
    ends += [text.rfind(one) + len(one) for one in headers if one and one in text]
    if not ends or ends[0] == len(text):
        expected = "the prompt that it begins with" if plain else f"the header {header!r} before it"
        raise DataError(f"no response in {text[-80:]!r}; expected {expected}")
    head, response = text[: ends[0]], text[ends[0] :]
    prompt = rendered(tokenizer, head)
    turn_ends = [one for one in ends_of(tokenizer) if one]
    special = _any_of([*tokenizer.all_special_tokens, *turn_ends])
    end = re.search(rf"({_any_of(turn_ends)})(?:{special}|\s)*\Z", response) if turn_ends else None
    if end is not None:  # the one that is written behind every response stands for itself
        return Apart(prompt, response[: end.start() if end[1] == turn_ends[0] else end.end(1)], False)
    padding = re.search(rf"(?:{re.escape(tokenizer.pad_token)})+\Z", response) if tokenizer.pad_token else None
    return Apart(prompt, response[: padding.start()] if padding else response, True)


def rendered(tokenizer: PreTrainedTokenizerBase, text: str) -> Prompt:
    """A rendered prompt, with a beginning-of-sequence token where the model expects one and the text has none."""
    bos = str(tokenizer.bos_token)
    begins = _head(tokenizer).startswith(bos) if tokenizer.chat_template else starts_with_bos(tokenizer)
    return ({"role": RENDERED, "content": bos + text if begins and not text.startswith(bos) else text},)


def _head(tokenizer: PreTrainedTokenizerBase) -> str:
    """What the chat template makes of a question."""
    return _render(tokenizer, [{"role": "user", "content": _ASKED}], add_generation_prompt=True)


def _any_of(texts: Sequence[str]) -> str:
    return "|".join(map(re.escape, sorted(set(texts), key=len, reverse=True)))


def warn_of_plain_prompts(tokenizer: PreTrainedTokenizerBase, *, model: str) -> None:
    """Say that a model is asked in plain text, where its tokenizer has no chat template; see `render_prompt`."""
    if not tokenizer.chat_template:
        warnings.warn(
            f"{model}: its tokenizer has no chat template, so each prompt is given as it stands, with a line break "
            "behind it. That is right for a base model; of a chat model a file is missing (chat_template.jinja)",
            stacklevel=3,
        )


def around(head: str, response: str, *, truncated: bool, ends: Sequence[str]) -> Around:
    """What stands around a response: nothing twice that both it and the template write.

    A template may open the reasoning (`<think>`) in the assistant's header, and a response bring that tag too, where a
    server put it back; or a response may bring its end-of-turn token as text.

    Args:
        head: as `render_prompt` gives it.
        response: the response, which is taken as it stands.
        truncated: cut off before its end.
        ends: as `ends_of` gives them.
    """
    end = "" if truncated or response.rstrip().endswith(tuple(ends)) else ends[0]
    opened = _OPENED.search(head)
    if opened is None:
        return Around(head, 0, end)
    tag = opened[1]
    repeated = re.match(rf"\s*{re.escape(tag)}", response)
    if repeated is None:
        return Around(head, 0, end)
    behind = head[opened.end(1) :]
    if response.startswith(behind, repeated.end()):
        n_opened = repeated.end() + len(behind)
    else:  # the response goes on in another way than the template does
        head, n_opened = head[: opened.end(1)], repeated.end()
    if n_opened == len(response):
        return Around(head[: opened.start()], 0, end)  # else it would have no tokens
    return Around(head, n_opened, end)


def turn_end(tokenizer: PreTrainedTokenizerBase) -> str:
    """The text that ends a finished response: the first token that the template writes behind it, else end-of-sequence.

    Raises:
        ModelError: the chat template does not write what the user says.
    """
    if tokenizer.chat_template:
        messages: list[Message] = [{"role": "user", "content": _ASKED}, {"role": "assistant", "content": _ANSWERED}]
        text = _render(tokenizer, messages, add_generation_prompt=False)
        if _ASKED not in text:
            raise ModelError(
                f"{tokenizer.name_or_path}: its chat template does not write what the user says where that is text; "
                "it may be of a model that takes images, and want lists of parts. Give the tokenizer a template for "
                "texts"
            )
        _, _, after = text.partition(_ANSWERED)
        tokens = {str(token) for token in (*tokenizer.all_special_tokens, *tokenizer.get_added_vocab())}
        behind = [token for token in tokens if token in after and not token.isspace()]
        if behind:
            return min(behind, key=lambda token: (after.find(token), -len(token)))
    return str(tokenizer.eos_token or "")


def ends_of(tokenizer: PreTrainedTokenizerBase) -> tuple[str, ...]:
    """Texts that end a turn, the one of `turn_end` first."""
    return (turn_end(tokenizer), *([str(tokenizer.eos_token)] if tokenizer.eos_token else []))


def starts_with_bos(tokenizer: PreTrainedTokenizerBase) -> bool:
    """The tokenizer puts a beginning-of-sequence token before plain text of its own accord."""
    return tokenizer.bos_token_id is not None and tokenizer("a")["input_ids"][0] == tokenizer.bos_token_id


def pin_date(tokenizer: PreTrainedTokenizerBase, day: str | None) -> None:
    """Have the chat template tell one day for good, where it would tell the day on which it is used.

    What comes of `strftime_now` is written into the template, so that its hash covers the day, and whoever else reads
    the saved tokenizer renders the same. A template that takes the day as `date_string`, with a default of its own,
    is left as it is, unless a day is chosen. The day that was told is noted at the template's head, and stays.

    Args:
        tokenizer: changed in place.
        day: YYYY-MM-DD; by default the one that is noted, else `CLOCK_DATE`.

    Raises:
        ConfigError: not a day.
        RewardMismatchError: another one is noted.
        ModelError: the template asks for the day in a form that is only known when it is used.
    """
    try:
        chosen = None if day is None else date.fromisoformat(day)
    except ValueError as error:
        raise ConfigError(f"template_date: is {day!r}; expected a day as YYYY-MM-DD") from error
    name, template = tokenizer.name_or_path, tokenizer.chat_template
    if isinstance(template, dict):
        tokenizer.chat_template = {key: _pinned(one, chosen, name=name) for key, one in template.items()}
    elif template:
        tokenizer.chat_template = _pinned(template, chosen, name=name)


def told_date(tokenizer: PreTrainedTokenizerBase) -> str | None:
    """The day that the chat template tells, as noted by `pin_date`; None where it does not tell the day of its use."""
    found = _TOLD.search(str(tokenizer.chat_template or ""))
    return found[1] if found else None


def _pinned(template: str, chosen: date | None, *, name: str) -> str:
    noted = _TOLD.match(template)
    if noted:
        if chosen is not None and chosen.isoformat() != noted[1]:
            raise RewardMismatchError(
                f"{name}: its chat template tells the day {noted[1]}, as it did in training, not {chosen}; leave "
                "template_date out"
            )
        return template
    asks_clock = re.search(_CALL, template) is not None
    if not asks_clock and (chosen is None or "date_string" not in template):
        return template
    day = chosen or date.fromisoformat(CLOCK_DATE)
    note = f"{{# today is {day.isoformat()} +#}}"
    if not asks_clock:
        return f"{note}{{% set date_string = {day.strftime('%d %b %Y')!r} +%}}{template}"
    pinned = _CLOCK.sub(lambda call: call[1] + day.strftime(call[2]) + call[1], template)
    if re.search(_CALL, pinned):
        raise ModelError(
            f"{name}: its chat template calls strftime_now with a format that is not written out, so its day cannot "
            "be held; write the format into the call"
        )
    return note + pinned


def _joined(head: str, response: str) -> str:
    """A response behind its head, the tag of its reasoning once."""
    placed = around(head, response, truncated=True, ends=("",))
    return placed.head + response[placed.n_opened :]


def _render(tokenizer: PreTrainedTokenizerBase, messages: Sequence[Message], *, add_generation_prompt: bool) -> str:
    plain = [dict(message) for message in messages]
    try:
        text = tokenizer.apply_chat_template(plain, tokenize=False, add_generation_prompt=add_generation_prompt)
    except TemplateError as error:
        roles = ", ".join(str(message["role"]) for message in messages)
        raise ModelError(f"the chat template refuses a conversation of {roles}: {error}") from error
    return str(text)
