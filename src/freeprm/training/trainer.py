"""The one trainer: `transformers.Trainer` over groups, with any objective.

FSDP, DeepSpeed, LoRA, resume, loggers and schedulers come with the parent class; what is ours is how
a batch becomes rewards, how the loss is normalised, and what is measured.
"""

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.data import Sampler
from transformers import EvalPrediction, Trainer, TrainerCallback, TrainingArguments

from freeprm.models.logprobs import n_read, prepare, token_logprobs
from freeprm.objectives.base import Objective, RewardBatch, pairs
from freeprm.training.examples import Batch, Examples, collate
from freeprm.training.readings import Reading
from freeprm.training.sampling import SimilarLengths
from freeprm.training.statistics import SUMS, means, per_example


class GroupTrainer(Trainer):
    """Trains a model so that its reward, whatever that is read from, fits the labels.

    The loss of an optimisation step is the sum of all items' losses over their number, wherever they
    fall: gradient accumulation and the number of devices change nothing.

    Args:
        model: the policy.
        args: of the parent class.
        objective: turns rewards and labels into losses.
        reading: how the model's answer becomes rewards.
        train_dataset, eval_dataset: examples; reference log-probabilities and places ride with them.
        callbacks: of the parent class.
    """

    def __init__(
        self,
        model: nn.Module,
        args: TrainingArguments,
        *,
        objective: Objective,
        reading: Reading,
        train_dataset: Examples,
        eval_dataset: Examples | None = None,
        callbacks: list[TrainerCallback] | None = None,
    ):
        super().__init__(
            model=model, args=args, data_collator=collate, train_dataset=train_dataset, eval_dataset=eval_dataset,
            compute_metrics=self._evaluated, callbacks=callbacks,
        )  # fmt: skip
        self.objective: Objective = objective
        self.reading: Reading = reading
        self._reads_packed = prepare(model)
        self.loss_is_scaled_for_ga = True  # by the number of items, below
        self._sums = torch.zeros(len(SUMS), device=args.device)

    def get_batch_samples(
        self, epoch_iterator: Iterator[Any], num_batches: int, device: torch.device
    ) -> tuple[list[Any], Tensor | int | None]:
        """The batches of one optimisation step, with the number of items in them over all devices."""
        samples, _ = super().get_batch_samples(epoch_iterator, num_batches, device)
        batches: list[Batch] = [sample["batch"] for sample in samples]
        n_items = sum(n_items_of(self.objective, batch) for batch in batches)
        n_tokens = sum(n_read(batch.encoded, packed=self._reads_packed) for batch in batches)
        counts = self._over_devices(torch.tensor([n_items, n_tokens], device=device))
        self.state.num_input_tokens_seen += int(counts[1])  # kept in checkpoints, so a resumed run counts on
        if self.objective.needs_kl and batches:
            # One estimate for all of the step's batches, or accumulation would change the loss.
            kl = self._kl(self.model_wrapped, batches)
            samples = [{"batch": replace(batch, kl=kl)} for batch in batches]
        return samples, counts[0].clamp(min=1)

    def compute_loss(
        self,
        model: nn.Module,
        inputs: dict[str, Any],
        return_outputs: bool = False,
        num_items_in_batch: Tensor | int | None = None,
    ) -> Any:
        """Sum of the batch's losses over the number of items in the whole step."""
        rewards = self._rewards(model, inputs["batch"])
        losses = self.objective.losses(rewards)
        sums = per_example(self.objective, rewards, losses, reading=self.reading)
        if model.training:
            self._sums += sums.sum(0)
        n_items = max(len(losses), 1) if num_items_in_batch is None else num_items_in_batch
        # Data-parallel processes average gradients, which the global number of items has already done.
        loss = losses.sum() / n_items * (1 if num_items_in_batch is None else self.accelerator.num_processes)
        if len(losses) == 0:  # a batch without pairs still has to take part in the backward pass of its step
            loss = rewards.token_rewards.sum() * 0.0
        return (loss, sums) if return_outputs else loss

    def prediction_step(
        self,
        model: nn.Module,
        inputs: dict[str, Any],
        prediction_loss_only: bool,
        ignore_keys: list[str] | None = None,
    ) -> tuple[Tensor | None, Tensor | None, Tensor | None]:
        """What is measured of each example of an evaluation batch; the parent class puts batches and devices together.

        No loss is given, because the parent would average it over batches instead of items.
        """
        with torch.no_grad(), self.compute_loss_context_manager():
            _, sums = self.compute_loss(model, self._prepare_inputs(inputs), return_outputs=True)
        return None, sums, sums[:, :1]  # the parent wants labels too; they are not looked at

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        """Log training with the means, over all devices, of what was measured since the last time."""
        if "loss" in logs:
            sums = self._over_devices(self._sums[None])
            self._sums = torch.zeros_like(self._sums)
            logs = {**logs, **means(sums.tolist(), with_reference=self.reading.with_reference)}
        super().log(logs, start_time)

    def _get_train_sampler(self, train_dataset: Any = None) -> Sampler[int] | None:
        """The parent's, but for batches of similar length, which it cannot make of our examples."""
        if self.args.train_sampling_strategy != "group_by_length":
            return super()._get_train_sampler(train_dataset)
        assert isinstance(self.train_dataset, Examples)
        step_size = self.args.train_batch_size * self.args.gradient_accumulation_steps * self.args.world_size
        return SimilarLengths(self.train_dataset.lengths(), step_size=step_size, seed=self.args.seed)

    def _evaluated(self, prediction: EvalPrediction) -> dict[str, float]:
        sums = np.asarray(prediction.predictions).sum(0)  # (len(SUMS),) over examples
        return means(sums.tolist(), with_reference=self.reading.with_reference)

    def _rewards(self, model: nn.Module, batch: Batch) -> RewardBatch:
        token_rewards = self.reading.token_rewards(model, batch)
        device = token_rewards.device
        kl = self._kl(model, [batch]) if self.objective.needs_kl and batch.kl is None else batch.kl
        return RewardBatch(
            token_rewards=token_rewards,
            rows=batch.rows.to(device),
            labels=batch.labels.to(device),
            groups=batch.groups.to(device),
            kl=kl,
            steps=None if batch.steps is None else batch.steps.to(device),
            step_labels=None if batch.step_labels is None else batch.step_labels.to(device),
        )

    @torch.no_grad()
    def _kl(self, model: nn.Module, batches: list[Batch]) -> Tensor:
        """() beta times the mean log-ratio of mismatched responses, over all devices (Ethayarajh et al. 2024, z0)."""
        sums = torch.zeros(2, device=self.args.device)
        for batch in batches:
            if batch.mismatched:
                logps = token_logprobs(model, batch.mismatched)
                log_ratios = logps - batch.mismatched_ref_logps.to(logps.device)
                sums += torch.stack([log_ratios.sum(), log_ratios.new_tensor(float(len(batch.mismatched)))])
        total, count = self._over_devices(sums[None]).unbind()
        return self.reading.beta * total / count.clamp(min=1)

    def _over_devices(self, counts: Tensor) -> Tensor:
        """(S,) the sum over all processes of their (1, S) or (S,) counts."""
        row = counts.reshape(1, -1)
        gathered: Tensor = self.accelerator.gather(row) if self.args.world_size > 1 else row
        return gathered.sum(0)


def n_items_of(objective: Objective, batch: Batch) -> int:
    """Items of a batch under an objective: pairs or responses."""
    return len(pairs(batch.labels, batch.groups).chosen) if objective.needs_pairs else len(batch.labels)
