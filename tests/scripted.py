"""An engine whose completions are written in the prefix, and what it was asked for."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from freeprm.core.answers import Verdict
from freeprm.core.flops import ModelShape
from freeprm.engines.base import Request, Sampled, SamplingParams

SHAPE = ModelShape(n_parameters=100, n_layers=2, attention_width=10)


@dataclass(frozen=True, kw_only=True)
class Scripted:
    """Of the completions of `...a3.` the first three say 7, the others 8; of `...a?.` all end without an answer.

    A prompt or a prefix has a token a character, a completion two, of which a prefix is read with its first sample.
    """

    model: str
    counts: bool = True
    """Says what it read."""
    stop_after: int | None = None
    """Samples after which it is interrupted."""
    asked: ClassVar[list[Request]] = []

    def sample(self, requests: Sequence[Request], *, params: SamplingParams) -> Iterator[Sampled]:
        self.asked.extend(requests)
        n_given = 0
        for request in requests:
            for index in request.sample_idxs:
                if index in request.done:
                    continue
                if n_given == self.stop_after:
                    raise KeyboardInterrupt
                n_given += 1
                mark = request.prefix.strip()[-2]
                text = "I give up." if mark == "?" else f"The answer is {7 if index < int(mark) else 8}."
                n_prompt = len(str(request.prompt)) + len(request.prefix)
                n_read = None if not self.counts else n_prompt if index == 0 else 0
                yield Sampled(
                    problem_id=request.problem_id, sample_idx=index, text=request.prefix + text, stop_reason="end",
                    n_prompt_tokens=n_prompt, n_generated_tokens=2, n_read_tokens=n_read,
                )  # fmt: skip

    def identity(self) -> Mapping[str, Any]:
        return {}

    def shape(self) -> ModelShape:
        return SHAPE


def no_verdict_on_eight(pred: str, gold: str) -> Verdict:
    """A grader that gives up on 8."""
    return Verdict(None, "eight is beyond me") if pred == "8" else Verdict(pred == gold, None)
