"""`/pooling` and `/classify` in the shapes of vLLM: step scores, and one score of a response.

A conversation comes as `messages`, whose last one is the response; or as text with special tokens. The marks that some
reward models want behind each step (`<extra_0>`, ki, +) are no part of a response here: send it without, and its steps
are those that the server's splitter finds.
"""

import time
import uuid
from typing import Annotated, Any

from fastapi import APIRouter, Depends
from pydantic import BaseModel, ConfigDict

from freeprm.errors import DataError
from freeprm.scorers._scored import Scored
from freeprm.scorers._texts import rollouts_of_texts
from freeprm.serving.requests import Text, Turn, as_prompt
from freeprm.serving.service import Service, service_of
from freeprm.types import Rollout

routes = APIRouter()


class PoolingRequest(BaseModel):
    """What clients of vLLM send; fields without meaning here are ignored, as unknown ones are there."""

    model_config = ConfigDict(extra="ignore")

    model: str | None = None
    input: Text | list[Text] | None = None
    """Conversations with special tokens; or `messages`."""
    messages: list[Turn] | None = None
    use_activation: bool | None = None
    """Of `/classify`: P(correct), or with false the score as it stands."""
    activation: bool | None = None
    """Its older name."""

    def rollouts(self, service: Service) -> list[Rollout]:
        """The responses; a DataError unless one of input and messages is given."""
        if (self.input is None) == (self.messages is None):
            raise DataError("expected one of `input` (text) and `messages` (a conversation)")
        if self.input is not None:
            texts = [self.input] if isinstance(self.input, str) else self.input
            return rollouts_of_texts(service.batcher.scorer, texts, [None] * len(texts))
        *past, last = self.messages or [Turn(role="", content="")]
        if last.role != "assistant":
            raise DataError("messages: the last one is what is scored; expected one of the role assistant")
        return [Rollout(problem_id="text", sample_idx=0, prompt=as_prompt(past), response=last.content)]


@routes.post("/pooling")
async def pooling(asked: PoolingRequest, service: Annotated[Service, Depends(service_of)]) -> dict[str, Any]:
    """(K, 1) scores of the steps, for each response; (1, 1) of a scorer of whole responses."""
    found = await service.score_all(asked.rollouts(service), service.options())
    data = [
        {"index": index, "object": "pooling", "data": [[value] for value in _values(one)]}
        for index, one in enumerate(found)
    ]
    return _reply("pool", service, data, found)


@routes.post("/classify")
async def classify(asked: PoolingRequest, service: Annotated[Service, Depends(service_of)]) -> dict[str, Any]:
    """One score for each response: [P(wrong), P(correct)]; or [score] if asked so, or if the scores state no
    probability."""
    found = await service.score_all(asked.rollouts(service), service.options())
    combine = service.aggregator(None)
    raw = False in (asked.use_activation, asked.activation)
    data = []
    for index, one in enumerate(found):
        p = None if raw else one.p
        probs = [one.score(combine)] if p is None else [1 - p, p]
        label = None if p is None else ("correct" if p > 0.5 else "wrong")
        data.append({"index": index, "label": label, "probs": probs, "num_classes": len(probs)})
    return _reply("classify", service, data, found)


def _values(scored: Scored) -> tuple[float, ...]:
    return scored.scores.step_scores or (float(scored.scores.score or 0.0),)


def _reply(name: str, service: Service, data: list[dict[str, Any]], found: list[Scored]) -> dict[str, Any]:
    n_tokens = sum(one.scores.n_tokens for one in found)
    return {
        "id": f"{name}-{uuid.uuid4().hex}", "object": "list", "created": int(time.time()),
        "model": service.about.source or service.about.name, "data": data,
        "usage": {"prompt_tokens": n_tokens, "total_tokens": n_tokens, "completion_tokens": 0},
    }  # fmt: skip
