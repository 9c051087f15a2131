"""Reward functions of TRL's online trainers (GRPOTrainer, RLOOTrainer, ...).

    GRPOTrainer(model=..., reward_funcs=[reward_function("runs/prm"), accuracy], ...)

Written for TRL 1.16.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol

from freeprm.models.prompts import ends_of, rendered
from freeprm.rl.rewards import loaded, scalar, scored
from freeprm.scorers.base import Scorer
from freeprm.types import Prompt, Rollout

Text = str | Sequence[dict[str, str]]
"""Of a standard dataset, or of a conversational one."""


class RewardFunction(Protocol):
    """As TRL calls it."""

    __name__: str

    def __call__(
        self,
        prompts: Sequence[Text],
        completions: Sequence[Text],
        completion_ids: Sequence[Sequence[int]] | None = None,
        **columns: Any,
    ) -> list[float | None]:
        """One reward a completion; None, which TRL skips, of an empty one or one longer than the context."""
        ...


def reward_function(prm: str | Path | Scorer, *, reward: str = "outcome") -> RewardFunction:
    """A reward function.

    Args:
        prm: what `load_scorer` takes, loaded at the first call; or a loaded scorer.
        reward: see `freeprm.rl.rewards.scalar`.

    A completion whose ids hold no end of turn is taken as truncated, if the scorer has the policy's tokenizer. A plain
    prompt is read as it stands, as the policy did, without a chat template.
    """
    read = scalar(reward)

    def function(
        prompts: Sequence[Text], completions: Sequence[Text], completion_ids: Sequence[Sequence[int]] | None = None,
        **columns: Any,
    ) -> list[float | None]:  # fmt: skip
        scorer = prm if isinstance(prm, Scorer) else loaded(prm)
        ends = _end_ids(scorer)
        rollouts = [
            Rollout(
                problem_id="completion", sample_idx=index, prompt=_prompt(scorer, prompt),
                response=completion if isinstance(completion, str) else completion[-1]["content"],
                truncated=completion_ids is not None and bool(ends) and not ends & {*completion_ids[index]},
            )
            for index, (prompt, completion) in enumerate(zip(prompts, completions, strict=True))
        ]  # fmt: skip
        return [None if one is None else read(one) for one in scored(scorer, rollouts)]

    function.__name__ = f"freeprm_{reward}"  # what TRL logs
    return function


def _prompt(scorer: Scorer, prompt: Text) -> Prompt:
    if not isinstance(prompt, str):
        return tuple(prompt)
    return prompt if scorer.tokenizer is None else rendered(scorer.tokenizer, prompt)


def _end_ids(scorer: Scorer) -> frozenset[int]:
    """Ids that end a response; none of a scorer that writes around the question itself."""
    tokenizer = scorer.tokenizer
    if tokenizer is None:
        return frozenset()
    return frozenset(
        token for text in ends_of(tokenizer) if text for token in tokenizer.encode(text, add_special_tokens=False)[-1:]
    )
