"""A reward function of verl: this file's path is its `custom_reward_function.path`.

    custom_reward_function.path=FILE custom_reward_function.name=compute_score
    +custom_reward_function.reward_kwargs.prm=runs/prm

verl gives the decoded response alone, so the question must be in the row's `extra_info`, as its own GSM8K script puts
it there (`question`). Read off verl b178a3c; not run with it.
"""

from collections.abc import Mapping
from typing import Any

from freeprm.errors import ConfigError, DataError
from freeprm.rl.rewards import loaded, scalar, scored
from freeprm.types import Prompt, Rollout


def compute_score(
    data_source: str, solution_str: str, ground_truth: Any, extra_info: Mapping[str, Any] | None = None, *,
    prm: str = "", reward: str = "outcome", question: str = "question", missing: float = 0.0,
) -> dict[str, float]:  # fmt: skip
    """The reward of one response, as verl calls it; `score` is what it trains on, the rest it logs.

    Args:
        data_source, ground_truth: of the row; a reward model does not need them.
        solution_str: the response, without special tokens.
        extra_info: of the row, with the question: text, or a list of messages.
        prm: what `load_scorer` takes.
        reward: see `freeprm.rl.rewards.scalar`.
        question: the question's name in `extra_info`.
        missing: the reward of a response that has none: empty, or longer than the context.

    Raises:
        ConfigError: no reward model, or no such reward.
        DataError: the row has no question.
    """
    if not prm:
        raise ConfigError("prm: is missing; give +custom_reward_function.reward_kwargs.prm=FOLDER")
    asked = (extra_info or {}).get(question)
    if asked is None:
        raise DataError(
            f"extra_info: has no {question!r}, which the reward model is asked with; put it into the data set, or say "
            "where it is with +custom_reward_function.reward_kwargs.question=NAME"
        )
    prompt: Prompt = asked if isinstance(asked, str) else tuple(asked)
    rollout = Rollout(problem_id=data_source, sample_idx=0, prompt=prompt, response=solution_str)
    (found,) = scored(loaded(prm), [rollout])
    return {"score": missing if found is None else scalar(reward)(found), "freeprm_missing": float(found is None)}
