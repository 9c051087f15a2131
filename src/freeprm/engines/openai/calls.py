"""What is requested of a server: which samples share a request, and what stands in it."""

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
"""Where a template takes the prompt."""
FIXED = ("model", "messages", "prompt", "n", "stream", "stop")
"""Fields of a request that `extra_body` cannot change."""
_SEED_BITS = 31  # some servers keep seeds as signed 32-bit numbers


@dataclass(frozen=True, slots=True, kw_only=True)
class Call:
    """Samples of one problem that one request asks for."""

    problem_id: str
    prompt: Prompt
    sample_idxs: tuple[int, ...]
    prefix: str = ""
    """The beginning of a response that is continued, as it is sent."""

    @property
    def goes_on(self) -> bool:
        """Whether the assistant has begun to speak already, in the prompt or with a prefix."""
        return bool(self.prefix) or split_turn(self.prompt)[1] is not None

    def split(self, size: int) -> tuple["Call", "Call | None"]:
        """The first samples, up to so many, and the others."""
        rest = self.sample_idxs[size:]
        return replace(self, sample_idxs=self.sample_idxs[:size]), replace(self, sample_idxs=rest) if rest else None


@dataclass(frozen=True, slots=True, kw_only=True)
class Form:
    """What all requests of a run have in common, and how their answers are read."""

    model: str
    api: Api
    template: str
    """For completions: the text in which `{prompt}` is replaced."""
    params: SamplingParams
    extra_body: Mapping[str, Any] = field(default_factory=dict)
    """Fields besides, or instead of ours; None takes a field away."""
    reasoning: Reasoning | None = None
    """What becomes of reasoning that the server gives apart from the text; None refuses it."""

    def body(self, call: Call, *, variant: int = 0) -> dict[str, Any]:
        """The request, with a seed of its own; another variant has another one."""
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
            fields["logprobs"] = True if self.api == "chat" else 0  # 0 alternatives beside the token drawn
        fields |= self.extra_body
        return {name: value for name, value in fields.items() if value is not None}

    def _prompt(self, call: Call) -> dict[str, Any]:
        prompt = call.prompt
        if self.api == "completions":
            assert isinstance(prompt, str)
            return {"prompt": self.template.replace(PROMPT, prompt) + call.prefix}
        messages, said = split_turn(prompt)
        if not call.goes_on:
            return {"messages": messages}
        begun = {"role": "assistant", "content": (said or "") + call.prefix}
        # vLLM's and SGLang's fields say that it is not finished.
        return {"messages": [*messages, begun], "continue_final_message": True, "add_generation_prompt": False}


def open_calls(requests: Sequence[Request], *, within_lines: bool = False) -> deque[Call]:
    """What is still to be drawn, one call a problem.

    Args:
        requests: what is wanted.
        within_lines: of the whitespace that ends the beginning of a response, spaces and tabs alone are left to the
            model; else all of it, which chat templates are free to strip.
    """
    calls: deque[Call] = deque()
    for request in requests:
        missing = tuple(index for index in request.sample_idxs if index not in request.done)
        if missing:
            prefix = request.prefix.rstrip(" \t" if within_lines else None)
            calls.append(Call(problem_id=request.problem_id, prompt=request.prompt, sample_idxs=missing, prefix=prefix))
    return calls


def seed_of(call: Call, *, seed: int, variant: int = 0) -> int:
    """A number from the run's seed, the prompt, the prefix and the first sample's index: the same in a resumed run."""
    parts = [seed, call.sample_idxs[0], call.prompt, variant, *([call.prefix] if call.prefix else [])]
    identity = json.dumps(parts, ensure_ascii=False, sort_keys=True)
    digest = blake2b(identity.encode(errors="surrogatepass"), digest_size=8).digest()
    return int.from_bytes(digest) >> (64 - _SEED_BITS)
