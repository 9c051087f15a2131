"""`/get_reward`: OpenRLHF's remote reward, `--reward.remote_url http://HOST:PORT/get_reward`.

Its `query` is the decoded sequence, prompt and response with their special tokens, and stays one: nothing is templated
again, and no second beginning-of-sequence token put before it. One scalar a sequence: `?reward=` says which.
"""

from typing import Annotated, Any

from fastapi import APIRouter, Depends
from pydantic import BaseModel, ConfigDict

from freeprm.errors import DataError
from freeprm.rl.rewards import scalar
from freeprm.scorers._texts import rollouts_of_texts
from freeprm.serving.requests import Text
from freeprm.serving.service import Service, service_of

routes = APIRouter()


class RewardRequest(BaseModel):
    """What OpenRLHF sends."""

    model_config = ConfigDict(extra="ignore")

    query: list[Text]
    prompts: list[Text] | None = None
    labels: list[Any] | None = None
    """Gold answers, which a reward model does not need."""


@routes.post("/get_reward")
async def get_reward(
    asked: RewardRequest, service: Annotated[Service, Depends(service_of)], reward: str | None = None
) -> dict[str, Any]:
    """A reward for each query.

    `reward` says which, see `freeprm.rl.rewards.scalar`; by default the aggregator of the scorer's authors. `scores`,
    by which OpenRLHF filters prompts, are P(correct) where it is stated, else the rewards.
    """
    read = scalar(reward or service.aggregator(None))
    prompts: list[str | None] = [None] * len(asked.query) if asked.prompts is None else [*asked.prompts]
    if len(prompts) != len(asked.query):
        raise DataError(f"{len(prompts)} prompts of {len(asked.query)} queries; expected one each, or none")
    rollouts = rollouts_of_texts(service.batcher.scorer, asked.query, prompts)
    found = await service.score_all(rollouts, service.options())
    rewards, p_correct = [read(one) for one in found], [one.p for one in found]
    logs = {"n_tokens": [one.scores.n_tokens for one in found]}
    if all(one.scores.step_scores is not None for one in found):
        logs["n_steps"] = [len(one.scores.step_scores or ()) for one in found]
    return {"rewards": rewards, "scores": rewards if None in p_correct else p_correct, "extra_logs": logs}
