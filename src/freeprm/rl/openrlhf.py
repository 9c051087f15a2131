"""A reward function of OpenRLHF: a file of yours that its `--reward.remote_url` names holds

    from freeprm.rl.openrlhf import reward_function
    reward_func = reward_function("runs/prm")

Or serve the model, and give that address: see `freeprm serve`. Read off OpenRLHF 3c3be62; not run with it.
"""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch

from freeprm.rl.rewards import loaded, scalar, scored
from freeprm.scorers._texts import rollouts_of_texts
from freeprm.scorers.base import Scorer

RewardFunction = Callable[..., dict[str, Any]]


def reward_function(prm: str | Path | Scorer, *, reward: str = "outcome", missing: float = 0.0) -> RewardFunction:
    """A `reward_func`.

    Args:
        prm: what `load_scorer` takes, loaded at the first call; or a loaded scorer, with the policy's tokenizer.
        reward: see `freeprm.rl.rewards.scalar`.
        missing: the reward of a response that has none: empty, or longer than the context.
    """
    read = scalar(reward)

    def reward_func(
        queries: Sequence[str], prompts: Sequence[str], labels: Sequence[Any], **more: Any
    ) -> dict[str, Any]:
        """Rewards, scores in 0..1 by which prompts are filtered where the model states them, and what is logged.

        Args:
            queries: prompt and response, decoded with their special tokens.
            prompts: rendered prompts.
            labels: gold answers, which a reward model does not need.
        """
        scorer = prm if isinstance(prm, Scorer) else loaded(prm)
        rollouts = rollouts_of_texts(scorer, queries, prompts)
        found = scored(scorer, rollouts)
        rewards = torch.tensor([missing if one is None else read(one) for one in found])
        states_p = any(one is not None and one.p is not None for one in found)
        p_correct = torch.tensor([0.0 if one is None else one.p or 0.0 for one in found])
        n_missing = torch.tensor([float(one is None) for one in found])
        logs = {"freeprm_missing": n_missing}
        return {"rewards": rewards, "scores": p_correct if states_p else rewards, "extra_logs": logs}

    return reward_func
