"""One number a response, for trainers that take one; and one a token, for those that take more."""

from collections.abc import Callable, Sequence
from functools import cache, partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from freeprm.core.rewards import AGGREGATORS, REWARDS, check_reward
from freeprm.errors import ConfigError, DataError
from freeprm.io.config import lookup
from freeprm.models.encoding import Encoded
from freeprm.models.logprobs import score_tokens
from freeprm.scorers._scored import Scored
from freeprm.scorers.base import Scorer, ScoringOptions, load_scorer
from freeprm.scorers.implicit import ImplicitPRM
from freeprm.types import Rollout

Read = Callable[[Scored], float]


def scalar(name: str) -> Read:
    """How a scored response becomes one number.

    Args:
        name: `outcome`, r(y) of a log-ratio; `p_correct`, the probability of being right; or an aggregator of step
            scores: `min` (the paper's), `sum`, `mean`, `last`, ...

    Raises:
        ConfigError: no such name.
    """
    known: dict[str, Read] = {"outcome": _outcome, "p_correct": _p_correct}
    known |= {each: partial(Scored.score, combine=each) for each in AGGREGATORS}
    return lookup(known, name, setting="reward")


def scored(scorer: Scorer, rollouts: Sequence[Rollout]) -> list[Scored | None]:
    """Scores of each response; None of an empty one, or one longer than the context.

    Args:
        scorer: any.
        rollouts: best grouped by prompt.

    Raises:
        FreePRMError: a response that cannot be scored; names it.
    """
    found, _ = scorer.score_rollouts(rollouts, ScoringOptions(too_long="exclude"))
    reward = scorer.about.rewards[0] if scorer.about.rewards else ""
    return [
        Scored(rollout=rollout, scores=found[index], about=scorer.about, reward=reward) if index in found else None
        for index, rollout in enumerate(rollouts)
    ]


def token_rewards(
    prm: ImplicitPRM, prompts: Sequence[Sequence[int]], completions: Sequence[Sequence[int]], *,
    reward: str = "with-reference", token_budget: int | None = None,
) -> list[Tensor]:  # fmt: skip
    """The reward of each token that a policy drew: beta * log(pi_phi / pi_ref), its text never tokenised again.

    What a trainer with per-token rewards takes, as verl's `rm_scores` (after padding), and what process rewards in
    PRIME are (Cui et al. 2025, arXiv:2502.01456, Equation 3).

    Args:
        prm: with the policy's tokenizer.
        prompts: B prompts as token ids, without padding; at least one token each.
        completions: B responses as token ids, with their end-of-turn token if they have one, without padding.
        reward: a name in `freeprm.core.rewards.REWARDS`.
        token_budget: tokens in a batch.

    Returns:
        B tensors (T,) float32 on the CPU, in beta * nats; empty for an empty completion.

    Raises:
        DataError: an empty prompt, or another number of completions.
        NonFiniteError: a log-probability is not finite; names the response.
    """
    if len(prompts) != len(completions):
        raise DataError(f"{len(prompts)} prompts and {len(completions)} completions; expected as many")
    check_reward(reward)
    if prm.config.reasoning == "exclude":
        raise ConfigError(f"{prm.policy.source}: excludes reasoning, which is not known of token ids")
    present = [index for index, ids in enumerate(completions) if len(ids)]
    encoded = [as_encoded(index, prompts[index], completions[index]) for index in present]
    policy = score_tokens(prm.policy.model, encoded, token_budget=token_budget)
    if reward == "without-reference" or prm.reference is None or prm.reference is prm.policy:
        if reward != "without-reference" and prm.reference is None:
            raise ConfigError(f"reward {reward!r}: needs the reference, which is not loaded")
        ref = policy
    else:
        ref = score_tokens(prm.reference.model, encoded, token_budget=token_budget)
    found = [torch.empty(0)] * len(completions)
    for index, one, other in zip(present, policy, ref, strict=True):
        rewards = REWARDS[reward](_array(one), _array(other), prm.config.beta)
        found[index] = torch.from_numpy(rewards).float()
    return found


def as_encoded(index: int, prompt: Sequence[int], completion: Sequence[int]) -> Encoded:
    """Token ids as they were drawn, as scoring and training take them.

    Raises:
        DataError: an empty prompt; `index` names the response.
    """
    if not len(prompt):
        raise DataError(f"response {index}: an empty prompt; expected one token or more, which predict the first")
    ids = np.array([*prompt, *completion], dtype=np.int32)
    offsets = np.zeros((len(completion), 2), dtype=np.int32)  # of characters, which nothing asks for
    return Encoded(name=f"response {index}", ids=ids, n_prompt=len(prompt), offsets=offsets)


@cache
def loaded(source: str | Path) -> Scorer:
    """The scorer at a place, loaded once a process; see `load_scorer`."""
    return load_scorer(source)


def _outcome(scored: Scored) -> float:
    if scored.scores.reward is None:
        raise ConfigError(f"reward 'outcome': is of log-ratios; {scored.about.name} has none, choose an aggregator")
    return scored.scores.reward


def _p_correct(scored: Scored) -> float:
    if scored.p is None:
        raise ConfigError(f"reward 'p_correct': the scores of {scored.about.name} state no probability")
    return scored.p


def _array(logps: Any) -> NDArray[np.float64]:
    return np.asarray(logps.numpy(), dtype=np.float64)
