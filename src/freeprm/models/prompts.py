"""The text around a response: what comes before it (prompt, chat template) and what ends it.

Sampling, training and scoring all take the text from here, so that a response is seen in the same
surroundings everywhere.
"""

from jinja2 import TemplateError
from transformers import PreTrainedTokenizerBase

from freeprm.errors import ModelError
from freeprm.types import Prompt

PLAIN_SEPARATOR = "\n"
"""Between prompt and response where the tokenizer has no chat template."""
_PROBE = "freeprm"


def render_prompt(tokenizer: PreTrainedTokenizerBase, prompt: Prompt) -> str:
    """The text that a response follows: the chat template's, up to and with the assistant's header.

    Without a chat template it is the prompt and a line break. A beginning-of-sequence token is part of
    the text only where the chat template writes it; see `encoding.encode` for the plain case.

    Raises:
        ModelError: a conversation for a tokenizer without a chat template, or one that its template refuses.
    """
    if not tokenizer.chat_template:
        if not isinstance(prompt, str):
            raise ModelError(
                "the prompt is a conversation, but the tokenizer has no chat template; give prompts as plain text, "
                "or a model folder whose tokenizer has a chat template"
            )
        return prompt + PLAIN_SEPARATOR
    messages = [{"role": "user", "content": prompt}] if isinstance(prompt, str) else [dict(m) for m in prompt]
    return _render(tokenizer, messages, add_generation_prompt=True)


def turn_end(tokenizer: PreTrainedTokenizerBase) -> str:
    """The text that ends a finished response: the template's end-of-turn token, else end-of-sequence, else nothing."""
    if tokenizer.chat_template:
        messages = [{"role": "user", "content": _PROBE}, {"role": "assistant", "content": _PROBE}]
        after = _render(tokenizer, messages, add_generation_prompt=False).rpartition(_PROBE)[2]
        first = min(
            (token for token in tokenizer.all_special_tokens if token in after), key=after.find, default=None
        ) or _added_token(tokenizer, after)
        if first:
            return first
    return str(tokenizer.eos_token or "")


def starts_with_bos(tokenizer: PreTrainedTokenizerBase) -> bool:
    """The tokenizer puts a beginning-of-sequence token before plain text of its own accord."""
    return tokenizer.bos_token_id is not None and tokenizer("a")["input_ids"][0] == tokenizer.bos_token_id


def _added_token(tokenizer: PreTrainedTokenizerBase, text: str) -> str | None:
    added = [str(token) for token in tokenizer.get_added_vocab() if str(token) in text]
    return min(added, key=text.find, default=None)


def _render(tokenizer: PreTrainedTokenizerBase, messages: list[dict[str, str]], *, add_generation_prompt: bool) -> str:
    try:
        text = tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=add_generation_prompt)
    except TemplateError as error:
        roles = ", ".join(str(message["role"]) for message in messages)
        raise ModelError(f"the chat template refuses a conversation of {roles}: {error}") from error
    return str(text)
