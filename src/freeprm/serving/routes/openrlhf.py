"""`/get_reward`: OpenRLHF's remote reward, `--reward.remote_url http://HOST:PORT/get_reward`.

Its `query` is the decoded sequence, prompt and response with their special tokens, and stays one: nothing is templated
again, and no second beginning-of-sequence token put before it. One scalar a sequence: `?reward=` says which.
"""

from typing import Annotated, Any, Literal

from fastapi import APIRouter, Depends
from pydantic import BaseModel, ConfigDict

from freeprm.errors import DataError
from freeprm.serving.requests import rollouts_of_texts
from freeprm.serving.service import Service, service_of

routes = APIRouter()
Scalar = Literal["score", "outcome", "p_correct"]


class RewardRequest(BaseModel):
    """What OpenRLHF sends."""

    model_config = ConfigDict(extra="ignore")

    query: list[str]
    prompts: list[str] | None = None
    labels: list[Any] | None = None
    """Gold answers, which a reward model does not need."""


@routes.post("/get_reward")
async def get_reward(
    asked: RewardRequest, service: Annotated[Service, Depends(service_of)], reward: Scalar = "score",
    aggregator: str | None = None,
) -> dict[str, Any]:  # fmt: skip
    """A reward for each query.

    `rewards` are, by `reward`: the aggregated step scores (the default), the sum over the response r(y), or P(correct).
    `scores`, by which OpenRLHF filters prompts, are P(correct) where the scores state it, else the same as `rewards`.
    """
    combine = service.aggregator(aggregator)
    prompts: list[str | None] = [None] * len(asked.query) if asked.prompts is None else [*asked.prompts]
    if len(prompts) != len(asked.query):
        raise DataError(f"{len(prompts)} prompts of {len(asked.query)} queries; expected one each, or none")
    rollouts = rollouts_of_texts(service.batcher.scorer, asked.query, prompts)
    found = await service.score_all(rollouts, service.options())
    values: dict[str, list[float | None]] = {
        "score": [one.score(combine) for one in found],
        "outcome": [one.scores.reward for one in found],
        "p_correct": [one.p for one in found],
    }
    rewards = values[reward]
    if None in rewards:
        raise DataError(f"reward={reward}: {service.about.name} does not state it; choose reward=score")
    scores = rewards if None in values["p_correct"] else values["p_correct"]
    logs = {"n_tokens": [one.scores.n_tokens for one in found]}
    if all(one.scores.step_scores is not None for one in found):
        logs["n_steps"] = [len(one.scores.step_scores or ()) for one in found]
    return {"rewards": rewards, "scores": scores, "extra_logs": logs}
