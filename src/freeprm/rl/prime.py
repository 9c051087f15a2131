"""PRIME on TRL's GRPOTrainer: policy gradients by outcomes and, token by token, by an online implicit reward model.

What is drawn, with vLLM or without, distributed training, adapters, clipping, the KL penalty and logs are the parent's.
Ours are the advantages: leave-one-out returns of outcomes and of process rewards, apart (Cui et al. 2025,
arXiv:2502.01456), and a loss over likely tokens that were not drawn (DistRL: Gao et al. 2026, arXiv:2604.13197).
Written for TRL 1.16, whose parent methods are named below.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from math import nan
from pathlib import Path
from typing import Any

import torch
from accelerate.utils import gather_object
from torch import Tensor, nn
from transformers import PreTrainedModel, PreTrainedTokenizerBase, TrainerCallback
from transformers.trainer_utils import PREFIX_CHECKPOINT_DIR
from trl.trainer.grpo_config import GRPOConfig
from trl.trainer.grpo_trainer import GRPOTrainer

from datasets import Dataset
from freeprm.rl.advantages import (
    baseline,
    candidate_loss,
    leave_one_out,
    mean_rewards,
    moments,
    process_returns,
    whitened,
)
from freeprm.rl.online import STATE, OnlinePRM
from freeprm.training.checkpoints import DurableTrainer

_LOGITS = 1 << 26  # of a whole vocabulary, at a time
_TRAIN = "train"

Outcomes = Callable[..., list[float | None]]
"""A reward function of TRL's: 1, 0, or None where an answer cannot be judged."""
Draw = Callable[[list[Any], GRPOTrainer], dict[str, Any]]
"""A `rollout_func` of TRL's."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Credit:
    """How outcomes and process rewards become advantages."""

    outcome_weight: float = 1.0
    process_weight: float = 1.0
    gamma: float = 1.0
    """Discount of process rewards."""
    candidates: int = 0
    """Likely tokens at each place that are credited, drawn or not; 0 for the drawn ones only."""
    candidate_weight: float = 0.1
    """Of their loss."""
    candidate_min_p: float = 0.01
    """Tokens less likely than this are no candidates, unless drawn."""
    accuracies: tuple[float, float] = (0.0, 1.0)
    """Groups whose share of right responses is outside are not trained on."""


class PRIMETrainer(DurableTrainer, GRPOTrainer):
    """Trains a policy by outcomes and process rewards.

    Args:
        model: the policy.
        args: of the parent class; a group's advantages are not scaled by it.
        outcomes: labels of responses.
        credit: how advantages are made.
        online: the reward model; None for outcomes only.
        train_dataset, eval_dataset: rows with `prompt`, `problem_id`, and what `outcomes` takes.
        tokenizer: of the policy.
        draw: how responses are drawn; by the parent's ways if None.
        peft_config: adapters.
        evaluated: called after each evaluation, with the outcomes of each problem.
        callbacks: of the parent class.
    """

    def __init__(
        self, model: PreTrainedModel, args: GRPOConfig, *, outcomes: Outcomes, credit: Credit,
        online: OnlinePRM | None, train_dataset: Dataset, eval_dataset: Dataset | None,
        tokenizer: PreTrainedTokenizerBase, draw: Draw | None = None, peft_config: Any = None,
        evaluated: Callable[[int, Mapping[str, list[float]]], None] = lambda step, outcomes: None,
        callbacks: list[TrainerCallback] | None = None,
    ):  # fmt: skip
        super().__init__(
            model=model, reward_funcs=outcomes, args=args, train_dataset=train_dataset, eval_dataset=eval_dataset,
            processing_class=tokenizer, callbacks=callbacks, peft_config=peft_config, rollout_func=draw,
        )  # fmt: skip
        self.credit, self.online, self._evaluated = credit, online, evaluated
        self._vocabulary: int = model.config.get_text_config().vocab_size
        self._outcomes = torch.empty(0)
        """(B,) of the last responses of all processes; NaN where there is none."""
        self._by_problem: dict[str, list[float]] = {}

    def _calculate_rewards(self, inputs: Any, prompts: Any, completions: Any, completion_ids_list: Any) -> Tensor:
        """The parent's, kept for the advantages."""
        rewards: Tensor = super()._calculate_rewards(inputs, prompts, completions, completion_ids_list)
        self._outcomes = rewards[:, 0]
        return rewards

    def _generate_and_score_completions(self, inputs: list[dict[str, Any]]) -> dict[str, Any]:
        """The parent's, with our advantages in training."""
        made: dict[str, Any] = super()._generate_and_score_completions(inputs)
        assert self.model is not None
        if not self.model.training:
            for one, outcome in zip(inputs, self._own(self._outcomes).tolist(), strict=True):
                self._by_problem.setdefault(one["problem_id"], []).append(outcome)
            return made
        n, credit = int(self.num_generations or 0), self.credit
        shares = torch.nanmean(self._outcomes.view(-1, n), dim=1).repeat_interleave(n)
        least, most = credit.accuracies
        kept = self._own((shares >= least) & (shares <= most))
        mask = made["completion_mask"].bool() & kept[:, None]
        metrics = self._metrics[_TRAIN]
        metrics["used"].append(self.accelerator.gather(kept.float()).mean().item())
        metrics["unjudged"].append(self._outcomes.isnan().float().mean().item())
        returns = credit.outcome_weight * self._own(leave_one_out(self._outcomes, n))[:, None].expand(mask.shape)
        if self.online is not None:
            rewards = self._process_rewards(made)
            means = self.accelerator.gather(mean_rewards(rewards, made["completion_mask"].bool()))
            baselines = torch.nan_to_num(self._own(baseline(means, n)))
            process = process_returns(rewards, mask, baselines, gamma=credit.gamma)
            returns = returns + credit.process_weight * process
            if credit.candidates:
                made |= self._candidates(made, rewards, mask)
        made["advantages"] = whitened(returns, mask, total=self._total)
        return made

    def _own(self, values: Tensor) -> Tensor:
        """This process's part of values of all."""
        n = len(values) // self.accelerator.num_processes
        return values[self.accelerator.process_index * n :][:n]

    def _total(self, sums: Tensor) -> Tensor:
        total: Tensor = self.accelerator.reduce(sums, reduction="sum")
        return total

    def _process_rewards(self, made: Mapping[str, Any]) -> Tensor:
        """(B, T) rewards of the drawn tokens; the reward model learns first."""
        assert self.online is not None
        prompts, completions = (
            [ids[mask.bool()].tolist() for ids, mask in zip(made[f"{what}_ids"], made[f"{what}_mask"], strict=True)]
            for what in ("prompt", "completion")
        )
        labels = [None if outcome != outcome else outcome > 0.5 for outcome in self._own(self._outcomes).tolist()]
        found, loss = self.online.rewards(prompts, completions, labels)
        rewards = torch.zeros(made["completion_ids"].shape, device=made["completion_ids"].device)
        for row, own in enumerate(found):
            rewards[row, : len(own)] = own.to(rewards.device)
        totals = [float(own.sum()) for own in found]
        signs = [(total > 0) == label for total, label in zip(totals, labels, strict=True) if label is not None]
        metrics = self._metrics[_TRAIN]
        metrics["prm/loss"].append(nan if loss is None else loss)
        metrics["prm/sign_accuracy"].append(sum(signs) / max(len(signs), 1))
        metrics["prm/reward"].append(sum(totals) / len(totals))
        return rewards

    def _candidates(self, made: Mapping[str, Any], rewards: Tensor, mask: Tensor) -> dict[str, Tensor]:
        """Likely tokens at each place, the drawn one first, with what the loss over them takes.

        As in the authors' code the last token is left out, and rewards are divided by the standard deviation of the
        values V_t of all prefixes.
        """
        assert self.online is not None
        beta = self.online.prm.config.beta
        policy, reference = self.online.prm.policy.model, self.online.prm.reference
        assert reference is not None
        ids, old = self._likely(made)
        with torch.no_grad():
            phi, ref = (
                _candidate_logps(each, made, ids, vocabulary=self._vocabulary) for each in (policy, reference.model)
            )
        _, variance = moments(rewards.cumsum(1), mask, total=self._total)
        deviation = variance.clamp(min=1e-12).sqrt()
        before_last = mask.clone()
        before_last[:, :-1] &= mask[:, 1:]
        before_last[:, -1] = False
        likely = old.exp() >= self.credit.candidate_min_p
        likely[..., 0] = True
        return {
            "candidate_ids": ids, "candidate_logps": old,
            "candidate_advantages": (beta * (phi - ref) / deviation).float(),
            "candidate_mask": before_last[..., None] & likely,
        }  # fmt: skip

    @torch.no_grad()
    def _likely(self, made: Mapping[str, Any]) -> tuple[Tensor, Tensor]:
        """(B, T, K) ids, the drawn one before the likeliest others, and their log-probabilities under the policy."""
        ids, logps = [], []
        drawn = made["completion_ids"]
        for rows in _parts(made, self._vocabulary):
            all_logps = _completion_logps(self.model_wrapped, made, rows)
            own = drawn[rows][..., None]
            others = all_logps.scatter(-1, own, -torch.inf).topk(self.credit.candidates - 1, dim=-1).indices
            chosen = torch.cat([own, others], dim=-1)
            ids.append(chosen)
            logps.append(all_logps.gather(-1, chosen))
        return torch.cat(ids), torch.cat(logps)

    def _compute_loss(self, model: nn.Module, inputs: dict[str, Any]) -> Tensor:
        """The parent's, and that of candidates."""
        loss: Tensor = super()._compute_loss(model, inputs)
        if "candidate_ids" not in inputs:
            return loss
        others = candidate_loss(
            _candidate_logps(model, inputs, inputs["candidate_ids"], vocabulary=self._vocabulary),
            inputs["candidate_logps"], inputs["candidate_advantages"], inputs["candidate_mask"],
            epsilon=self.epsilon_low,
        )  # fmt: skip
        self._metrics[_TRAIN]["candidate_loss"].append(others.item())
        return loss + self.credit.candidate_weight * others / self.current_gradient_accumulation_steps

    def prediction_step(
        self, model: nn.Module, inputs: Any, prediction_loss_only: bool, ignore_keys: list[str] | None = None
    ) -> tuple[Tensor, None, None]:
        """Draw and label, without the parent's loss, which tells nothing."""
        self._prepare_inputs(inputs)
        return torch.zeros((), device=self.accelerator.device), None, None

    def evaluate(
        self, eval_dataset: Any = None, ignore_keys: list[str] | None = None, metric_key_prefix: str = "eval"
    ) -> dict[str, float]:
        """The parent's, with the outcomes of each problem passed on."""
        self._by_problem = {}
        found: dict[str, float] = super().evaluate(eval_dataset, ignore_keys, metric_key_prefix)
        by_problem: dict[str, list[float]] = {}
        for part in gather_object([self._by_problem]):
            for problem, outcomes in part.items():
                by_problem.setdefault(problem, []).extend(outcomes)
        # Several processes get equal batches by repeating rows: the same samples again, behind a problem's own.
        n = self.num_generations_eval
        self._evaluated(self.state.global_step, {problem: own[:n] for problem, own in by_problem.items()})
        return found

    def _save_checkpoint(self, model: nn.Module, trial: Any) -> None:
        """The parent's; the reward model comes first, since the parent's last file says that a checkpoint is whole."""
        if self.online is not None and self.args.should_save:
            folder = Path(self._get_output_dir(trial=trial)) / f"{PREFIX_CHECKPOINT_DIR}-{self.state.global_step}"
            folder.mkdir(parents=True, exist_ok=True)
            torch.save(self.online.state(), folder / STATE)
        super()._save_checkpoint(model, trial)


def _parts(made: Mapping[str, Any], vocabulary: int) -> list[slice]:
    """Rows whose logits are held at a time."""
    n_rows, n_tokens = made["completion_ids"].shape
    size = max(1, _LOGITS // (n_tokens * vocabulary))
    return [slice(start, start + size) for start in range(0, n_rows, size)]


def _candidate_logps(model: nn.Module, made: Mapping[str, Any], ids: Tensor, *, vocabulary: int) -> Tensor:
    """(B, T, K) log-probabilities of given tokens at each place of the responses."""
    parts = _parts(made, vocabulary)
    return torch.cat([_completion_logps(model, made, rows).gather(-1, ids[rows]) for rows in parts])


def _completion_logps(model: nn.Module, made: Mapping[str, Any], rows: slice) -> Tensor:
    """(b, T, V) float32 log-probabilities of all tokens at each place of some responses."""
    ids = torch.cat([made["prompt_ids"][rows], made["completion_ids"][rows]], dim=1)
    mask = torch.cat([made["prompt_mask"][rows], made["completion_mask"][rows]], dim=1)
    n = made["completion_ids"].shape[1]
    positions = (mask.cumsum(1) - 1).clamp(min=0)
    out = model(input_ids=ids, attention_mask=mask, position_ids=positions, use_cache=False, logits_to_keep=n + 1)
    logps: Tensor = out.logits[:, :-1].float().log_softmax(-1)
    return logps
