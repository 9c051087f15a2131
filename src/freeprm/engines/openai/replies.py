"""A server's answers, read as samples."""

import math
import warnings
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from freeprm.engines.base import Sampled, StopReason
from freeprm.engines.openai.calls import Call, Form, Reasoning
from freeprm.errors import ModelError

_REASONING = ("reasoning", "reasoning_content")  # vLLM since 0.16; DeepSeek, llama.cpp, transformers, older vLLM
_STOPPED_BY = ("stop_reason", "matched_stop")  # vLLM; SGLang
# Finish reasons, in lower case: of OpenAI and vLLM; text-generation-inference; Anthropic and Gemini behind gateways;
# Mistral.
_ENDED = frozenset({"stop", "eos", "eos_token", "end_turn", "stop_sequence", "complete", "completed"})
_FULL = frozenset({"length", "max_tokens", "max_length", "max_output_tokens", "max_new_tokens", "model_length"})
_WITHHELD = frozenset({"content_filter", "safety", "recitation", "blocklist", "prohibited_content"})
_BROKEN_OFF = frozenset({"abort", "cancelled", "error", "insufficient_system_resource"})


class AttemptError(Exception):
    """An attempt that may succeed later."""

    def __init__(self, reason: str, *, detail: str = "", wait_seconds: float = 0.0, timed_out: bool = False):
        super().__init__(f"{reason}: {detail}" if detail else reason)
        self.reason = reason
        """The kind of failure, without details, so that equal ones are counted together."""
        self.wait_seconds = wait_seconds
        """Requested by the server, or 0."""
        self.timed_out = timed_out


class WithheldError(Exception):
    """A response that the server withheld; another draw may pass."""


class ServerReply(NamedTuple):
    """A server's answer to a call."""

    samples: list[Sampled]
    """For the first indices of the call, one for each choice that was not withheld."""
    n_choices: int
    n_tokens: int | None
    """Prompts included; None if the server does not say."""


def read(answer: Any, call: Call, form: Form, *, limit: int | None) -> ServerReply:
    """The samples of an answer.

    Args:
        answer: decoded JSON.
        call, form: of the request.
        limit: maximal tokens of a response, if known.

    Raises:
        AttemptError: not the shape of an answer, or one that the server aborted.
        WithheldError: all choices were withheld.
        ModelError: the answer is no text, e.g. a tool call, or does not say why a response ended.
    """
    choices = answer.get("choices") if isinstance(answer, dict) else None
    if not isinstance(choices, list) or not choices or not all(isinstance(choice, dict) for choice in choices):
        raise AttemptError("an answer without choices")
    usage = answer.get("usage") if isinstance(answer.get("usage"), dict) else {}
    passed = [choice for choice in choices if _finish(choice) not in _WITHHELD]
    if not passed:
        raise WithheldError
    passed.sort(key=lambda choice: _count(choice.get("index")) or 0)
    tokens = _Tokens(
        n_prompt=_count(usage.get("prompt_tokens")), limit=limit,
        n_generated=_count(usage.get("completion_tokens")) if len(choices) == 1 else None,
    )  # fmt: skip
    samples = [
        _sample(choice, call, index, form, tokens)
        for index, choice in zip(call.sample_idxs, passed, strict=False)
    ]  # fmt: skip
    return ServerReply(samples, len(choices), _count(usage.get("total_tokens")))


class _Tokens(NamedTuple):
    """Token counts of one response; None if unknown."""

    n_prompt: int | None
    n_generated: int | None
    limit: int | None


def _sample(choice: Mapping[str, Any], call: Call, sample_idx: int, form: Form, tokens: _Tokens) -> Sampled:
    text = _text(choice, call, form.reasoning)
    stop = form.params.stop
    cut = min((found for one in stop if (found := text.find(one)) >= 0), default=None)
    token_ids, logprobs = _token_ids(choice), _logprobs(choice)
    if tokens.n_generated is None:
        tokens = tokens._replace(n_generated=len(token_ids or logprobs or ()) or None)
    return Sampled(
        problem_id=call.problem_id, sample_idx=sample_idx, text=call.prefix + text[:cut],
        stop_reason="stop" if cut is not None else _reason(choice, call, stop, tokens),
        token_ids=token_ids, n_prompt_tokens=tokens.n_prompt, n_generated_tokens=tokens.n_generated,
        token_logprobs=logprobs if token_ids and logprobs and len(token_ids) == len(logprobs) else None,
    )  # fmt: skip


def _text(choice: Mapping[str, Any], call: Call, reasoning: Reasoning | None) -> str:
    """The response's text; a refusal counts as text."""
    message = choice.get("message", choice)
    if not isinstance(message, dict):
        raise AttemptError("an answer without a message")
    if message.get("tool_calls") or message.get("function_call"):
        raise ModelError(
            f"problem {call.problem_id!r}: the server answers with a tool call; expected text. Start it without "
            "tools, or leave the problem out"
        )
    text = message.get("text") if "text" in message else message.get("content")
    thoughts = next((found for name in _REASONING if (found := message.get(name))), None)
    if isinstance(text, list):  # of parts, as from Mistral and gateways to Anthropic's models
        thoughts = thoughts or "".join(_texts(part.get("thinking")) for part in text if isinstance(part, dict))
        text = _texts(text)
    text = message.get("refusal") or "" if text is None else text
    if not isinstance(text, str):
        raise ModelError(f"problem {call.problem_id!r}: the server's answer is a {type(text).__name__}; expected text")
    if thoughts and reasoning is None:
        raise ModelError(
            f"problem {call.problem_id!r}: the server gives reasoning apart from the text. Choose what becomes of "
            "it by --engine-option: reasoning=join writes it before the text as <think>...</think>, reasoning=drop "
            "leaves it out"
        )
    if thoughts and reasoning == "join":
        if not isinstance(thoughts, str):
            raise ModelError(
                f"problem {call.problem_id!r}: the server's reasoning is a {type(thoughts).__name__}; expected text. "
                "Leave it out by --engine-option reasoning=drop"
            )
        end = f"\n</think>\n\n{text}" if text else ""  # cut off while it was thinking
        text = f"<think>\n{thoughts.strip()}{end}"
    # Half of a surrogate pair, which no file can hold, becomes U+FFFD; pairs are joined.
    return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")


def _texts(parts: Any) -> str:
    """The joined text of a message's parts."""
    if isinstance(parts, str):
        return parts
    found = [part.get("text") for part in parts if isinstance(part, dict)] if isinstance(parts, list) else []
    return "".join(text for text in found if isinstance(text, str))


def _reason(choice: Mapping[str, Any], call: Call, stop: Sequence[str], tokens: _Tokens) -> StopReason:
    finish = _finish(choice)
    n_generated, limit = tokens.n_generated, tokens.limit
    has_room = None if n_generated is None or limit is None else n_generated < limit
    if finish is None and has_room is not None:
        warnings.warn(
            "the server does not say why responses end: those with fewer tokens than allowed count as whole",
            stacklevel=2,
        )
        finish = "stop" if has_room else "length"
    if finish in _FULL:
        return "context" if has_room else "length"
    if finish in _ENDED:
        stopped = finish == "stop_sequence" or any(choice.get(name) in stop for name in _STOPPED_BY)
        return "stop" if stopped and stop else "end"
    if finish in _BROKEN_OFF:
        raise AttemptError(f"a response that ended by {choice['finish_reason']!r}")
    ending = "does not say why the response ended" if finish is None else f"ended it by {choice['finish_reason']!r}"
    raise ModelError(
        f"problem {call.problem_id!r}: the server {ending}; expected finish_reason 'stop' or 'length', or a count of "
        "tokens (usage.completion_tokens), which tells a whole response from one that was cut off. Use a server "
        "that says it, or leave the problem out"
    )


def _finish(choice: Mapping[str, Any]) -> str | None:
    """The finish reason in lower case, or None."""
    finish = choice.get("finish_reason")
    return str(finish).lower() if finish is not None else None


def _token_ids(choice: Mapping[str, Any]) -> tuple[int, ...] | None:
    """As vLLM returns them with `return_token_ids`."""
    ids = choice.get("token_ids")
    return tuple(ids) if isinstance(ids, list) and ids and all(_count(item) is not None for item in ids) else None


def _logprobs(choice: Mapping[str, Any]) -> tuple[float, ...] | None:
    found = choice.get("logprobs")
    if not isinstance(found, dict):
        return None
    values: Sequence[Any] = found.get("token_logprobs") or [
        item.get("logprob") for item in found.get("content") or () if isinstance(item, dict)
    ]
    if not values or not all(isinstance(value, int | float) and math.isfinite(value) for value in values):
        return None
    return tuple(float(value) for value in values)


def _count(value: Any) -> int | None:
    value = int(value) if isinstance(value, float) and value.is_integer() else value
    return value if isinstance(value, int) and not isinstance(value, bool) and value >= 0 else None
