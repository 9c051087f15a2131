"""An implicit process reward model that learns while a policy is trained by its rewards (Cui et al. 2025, PRIME).

Outcome labels of the policy's own responses are all that it takes: the labels that the policy is trained by anyway.
"""

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from freeprm.errors import ConfigError
from freeprm.models.encoding import Encoded
from freeprm.models.logprobs import score_tokens
from freeprm.models.reward_config import save_reward_config
from freeprm.models.routes import prepare
from freeprm.objectives.base import Objective
from freeprm.rl.rewards import as_encoded
from freeprm.scorers.implicit import ImplicitPRM
from freeprm.training.batches import Example, LogRatios, collate_groups, reward_batch
from freeprm.training.policy import without_noise

STATE = "online_prm.pt"


class OnlinePRM:
    """Rewards of drawn tokens, by a model that every batch of labelled responses updates.

    Args:
        prm: where it starts, with its reference; its policy is trained in place, so it is no other model's.
        objective: of its updates; one on the rewards and labels of a group alone.
        name: of the objective, for reward.json.
        learning_rate: of AdamW; 0 leaves the model as it is.
        share: a gradient's mean over processes.

    Raises:
        ConfigError: the objective needs more, such as a divergence, or steps with labels.
    """

    def __init__(
        self, prm: ImplicitPRM, objective: Objective, *, name: str = "ce", learning_rate: float,
        share: Callable[[Tensor], Tensor] = lambda gradient: gradient,
    ):  # fmt: skip
        if objective.needs_kl or objective.needs_means or objective.needs_steps or objective.needs_step_labels:
            raise ConfigError(
                f"objective {name!r}: needs more than rewards and labels of a group; expected one such as ce, dpo, nca "
                "or ipvrm"
            )
        assert prm.reference is not None
        assert prm.reference is not prm.policy
        self.prm, self._objective, self._name = prm, objective, name
        self.share = share
        """A gradient's mean over processes."""
        self._reward = LogRatios(beta=prm.config.beta)
        self._model, self._reference = prm.policy.model, prm.reference.model
        self._rate = learning_rate
        without_noise(self._model)
        self._model.requires_grad_(learning_rate > 0)
        prepare(self._model)
        self._optimizer = torch.optim.AdamW(
            self._model.parameters(), lr=learning_rate, betas=(0.9, 0.95), weight_decay=0.0
        )

    def rewards(
        self, prompts: Sequence[Sequence[int]], completions: Sequence[Sequence[int]], labels: Sequence[bool | None]
    ) -> tuple[list[Tensor], float | None]:
        """Learn from the labels, then give each token's reward.

        Args:
            prompts: B prompts as token ids, equal ones side by side.
            completions: B responses as token ids.
            labels: B; a response without one is scored and not learned from.

        Returns:
            B tensors (T,) float32 on the CPU, and the mean loss before the update; None if nothing was learned.
        """
        encoded = [as_encoded(index, *ids) for index, ids in enumerate(zip(prompts, completions, strict=True))]
        ref = score_tokens(self._reference, encoded)
        loss = self._learn(_examples(encoded, ref, labels)) if self._rate else None
        policy = score_tokens(self._model, encoded)
        beta = self.prm.config.beta
        return [beta * (one - other) for one, other in zip(policy, ref, strict=True)], loss

    def _learn(self, examples: Sequence[Example]) -> float | None:
        """One step of the optimizer, group by group; the mean loss of its items."""
        batches = [collate_groups([example]) for example in examples]
        self._model.train()
        total, n_items = 0.0, 0
        for batch in batches:
            rewards = reward_batch(self._model, batch, self._reward)
            losses = self._objective.losses(rewards)
            (losses.sum() if len(losses) else rewards.token_rewards.sum() * 0.0).backward()
            total, n_items = total + float(losses.detach().sum()), n_items + len(losses)
        for weight in self._model.parameters():
            if weight.grad is not None:
                weight.grad = self.share(weight.grad / max(n_items, 1))
        if n_items:
            torch.nn.utils.clip_grad_norm_(self._model.parameters(), 1.0)
            self._optimizer.step()
        self._optimizer.zero_grad()
        self._model.eval()
        return total / n_items if n_items else None

    def save(self, folder: Path) -> None:
        """Write a reward model's folder, as `freeprm train` does: for `freeprm score --prm`."""
        self._model.save_pretrained(folder)
        self.prm.policy.tokenizer.save_pretrained(folder)
        save_reward_config(replace(self.prm.config, objective=self._name), folder)

    def state(self) -> dict[str, Any]:
        """What a checkpoint keeps."""
        return {"model": self._model.state_dict(), "optimizer": self._optimizer.state_dict()}

    def resume(self, state: dict[str, Any]) -> None:
        """Go on from `state()`."""
        self._model.load_state_dict(state["model"])
        self._optimizer.load_state_dict(state["optimizer"])


def _examples(encoded: Sequence[Encoded], ref: Sequence[Tensor], labels: Sequence[bool | None]) -> list[Example]:
    """A group for each run of equal prompts, of its responses that have labels."""
    groups: list[list[int]] = []
    prompt: bytes | None = None
    for index, item in enumerate(encoded):
        own = item.ids[: item.n_prompt].tobytes()
        if own != prompt:
            groups.append([])
        groups[-1].append(index)
        prompt = own
    known = [[index for index in group if labels[index] is not None] for group in groups]
    return [
        Example(
            encoded=tuple(encoded[index] for index in group), labels=tuple(bool(labels[index]) for index in group),
            ref_logps=tuple(ref[index] for index in group),
        )
        for group in known
        if group
    ]  # fmt: skip
