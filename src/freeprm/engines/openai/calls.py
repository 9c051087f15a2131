"""Requests to a server: which samples share one, and its fields."""

import json
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from hashlib import blake2b
from typing import Any, Literal

from freeprm.engines.base import Request, SamplingParams
from freeprm.io.conversations import split_turn
from freeprm.types import Prompt

Api = Literal["chat", "completions"]
Reasoning = Literal["join", "drop"]
PATHS: Mapping[Api, str] = {"chat": "/chat/completions", "completions": "/completions"}
PROMPT = "{prompt}"
"""Placeholder of the prompt in a template."""
FIXED = ("model", "messages", "prompt", "n", "stream", "stop")
"""Fields of a request that `extra_body` cannot change."""
_SEED_BITS = 31  # some servers keep seeds as signed 32-bit numbers


@dataclass(frozen=True, slots=True, kw_only=True)
class Call:
    """Samples of one problem for one request."""

    problem_id: str
    prompt: Prompt
    sample_idxs: tuple[int, ...]
    prefix: str = ""
    """The beginning of a response to continue, as sent."""

    @property
    def continues(self) -> bool:
        """Whether a response has begun already, in the prompt or with a prefix."""
        return bool(self.prefix) or split_turn(self.prompt)[1] is not None

    def split(self, size: int) -> tuple["Call", "Call | None"]:
        """A call for the first `size` samples, and one for the others."""
        rest = self.sample_idxs[size:]
        return replace(self, sample_idxs=self.sample_idxs[:size]), replace(self, sample_idxs=rest) if rest else None


@dataclass(frozen=True, slots=True, kw_only=True)
class Form:
    """What all requests of a run have in common."""

    model: str
    api: Api
    template: str
    """For completions: the text in which `{prompt}` is replaced."""
    params: SamplingParams
    extra_body: Mapping[str, Any] = field(default_factory=dict)
    """Further fields; None removes one of ours."""
    reasoning: Reasoning | None = None
    """How to treat reasoning outside of the text; None refuses it."""

    def body(self, call: Call, *, variant: int = 0) -> dict[str, Any]:
        """The request's fields; another variant has another seed."""
        params = self.params
        fields: dict[str, Any] = {
            "model": self.model,
            **self._prompt(call),
            "temperature": params.temperature,
            "top_p": params.top_p,
            "max_tokens": params.max_new_tokens,
            "seed": seed_of(call, seed=params.seed, variant=variant),
        }
        if len(call.sample_idxs) > 1:
            fields["n"] = len(call.sample_idxs)
        if params.stop:
            fields["stop"] = list(params.stop)
        if params.logprobs:
            fields["logprobs"] = True if self.api == "chat" else 0  # 0: of the drawn token alone
        fields |= self.extra_body
        return {name: value for name, value in fields.items() if value is not None}

    def _prompt(self, call: Call) -> dict[str, Any]:
        prompt = call.prompt
        if self.api == "completions":
            assert isinstance(prompt, str)
            return {"prompt": self.template.replace(PROMPT, prompt) + call.prefix}
        messages, beginning = split_turn(prompt)
        if not call.continues:
            return {"messages": messages}
        begun = {"role": "assistant", "content": (beginning or "") + call.prefix}
        # Fields of vLLM and SGLang for an unfinished message.
        return {"messages": [*messages, begun], "continue_final_message": True, "add_generation_prompt": False}


def open_calls(requests: Sequence[Request], *, within_lines: bool = False) -> deque[Call]:
    """The samples still to be drawn, one call for each problem.

    Args:
        requests: all samples.
        within_lines: strip only spaces and tabs at the end of a response's beginning; else all whitespace, which chat
            templates may strip.
    """
    calls: deque[Call] = deque()
    for request in requests:
        missing = tuple(index for index in request.sample_idxs if index not in request.done)
        if missing:
            prefix = request.prefix.rstrip(" \t" if within_lines else None)
            calls.append(Call(problem_id=request.problem_id, prompt=request.prompt, sample_idxs=missing, prefix=prefix))
    return calls


def seed_of(call: Call, *, seed: int, variant: int = 0) -> int:
    """A hash of the run's seed, the prompt, the prefix and the first sample's index: the same in a resumed run."""
    parts = [seed, call.sample_idxs[0], call.prompt, variant, *([call.prefix] if call.prefix else [])]
    identity = json.dumps(parts, ensure_ascii=False, sort_keys=True)
    digest = blake2b(identity.encode(errors="surrogatepass"), digest_size=8).digest()
    return int.from_bytes(digest) >> (64 - _SEED_BITS)
