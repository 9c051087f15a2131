"""The one trainer: `transformers.Trainer` over groups, with any objective.

FSDP, DeepSpeed, LoRA, resume, loggers and schedulers come with the parent class; what is ours is how
a batch becomes rewards, how the loss is normalised, and what is measured.
"""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from accelerate.data_loader import BatchSamplerShard
from torch import Tensor, nn
from torch.utils.data import DataLoader, Sampler
from transformers import EvalPrediction, TrainerCallback, TrainingArguments
from transformers.trainer_utils import EvalLoopOutput

from freeprm.errors import ModelError, NonFiniteError
from freeprm.io.rows import write_json
from freeprm.models.batching import NOT_FINITE
from freeprm.models.logprobs import n_read, token_logprobs
from freeprm.models.packed_forward import core
from freeprm.models.routes import prepare
from freeprm.objectives.base import Averaging, Objective, RewardBatch, Totals, means_of, pairs
from freeprm.training.batches import Batch, Example, Reward, collate_groups, reward_batch
from freeprm.training.checkpoints import DurableTrainer
from freeprm.training.order import Share, SimilarLengths
from freeprm.training.settings import prompts_per_step

_SHARED = "GroupTrainer.shared"
"""The key, in the parent's state and so in checkpoints, of the last statistics that losses shared."""
_MEASURED = "GroupTrainer.measured"
"""The key, in checkpoints alone, of what was measured since the last log, over all devices."""


class GroupTrainer(DurableTrainer):
    """Trains a model so that its reward, whatever that is read from, fits the labels.

    The loss of an optimisation step is the sum of all items' losses over their number, wherever they
    fall: gradient accumulation and the number of devices change nothing. Statistics that the losses share (a KL, means)
    are of the whole step as well, under the policy as it is before it: they take a pass without gradients over all of
    the step's batches before the first loss. Those of an evaluation are of all that is evaluated.

    Args:
        model: the policy.
        args: of the parent class.
        objective: turns rewards and labels into losses.
        reward: how the model's answer becomes rewards.
        train_dataset, eval_dataset: examples; reference log-probabilities and places ride with them.
        callbacks: of the parent class.
    """

    def __init__(
        self, model: nn.Module, args: TrainingArguments, *, objective: Objective, reward: Reward,
        train_dataset: Sequence[Example], eval_dataset: Sequence[Example] | None = None,
        callbacks: list[TrainerCallback] | None = None,
    ):  # fmt: skip
        collate = partial(_collated, idle=train_dataset[:1])
        super().__init__(
            model=model, args=args, data_collator=collate, train_dataset=train_dataset, eval_dataset=eval_dataset,
            compute_metrics=self._evaluated, callbacks=callbacks,
        )  # fmt: skip
        self.objective: Objective = objective
        self.reward: Reward = reward
        self._shares = objective.needs_kl or objective.needs_means
        self._shared_in_evaluation: Tensor | None = None
        read = [example for data in (train_dataset, eval_dataset or ()) for example in data]
        others = [len(item.ids) for example in read for item in example.mismatched]
        prepare(model, longest=max([*others, *(example.longest for example in read)], default=0))
        self.loss_is_scaled_for_ga = True  # by the number of items, below
        self._sums = torch.zeros(len(SUMS), device=args.device)
        self._step: list[Batch] = []
        """The batches of this process in the current step."""

    def get_batch_samples(
        self, epoch_iterator: Iterator[Any], num_batches: int, device: torch.device
    ) -> tuple[list[Any], Tensor | int | None]:
        """The batches of one optimisation step, with the number of items in them over all devices."""
        if (measured := self._kept.pop(_MEASURED, None)) and self.args.process_index == 0:
            self._sums += self._sums.new_tensor(measured)
        samples, _ = super().get_batch_samples(epoch_iterator, num_batches, device)
        batches: list[Batch] = [sample["batch"] for sample in samples]
        n_items = sum(n_items_of(self.objective, batch) for batch in batches)
        n_tokens = sum(n_read(self.model_wrapped, batch.encoded) for batch in batches if not batch.idle)
        self._step = batches
        counts = self._over_devices(torch.tensor([n_items, n_tokens], device=device))
        self.state.num_input_tokens_seen += int(counts[1])  # kept in checkpoints, so a resumed run counts on
        if self._shares and batches:
            shared = self._shared([self._totals(self.model_wrapped, batch) for batch in batches])
            self._kept[_SHARED] = shared.tolist()
            samples = [{"batch": self._given(batch, shared)} for batch in batches]
        return samples, counts[0].clamp(min=1)

    def training_step(
        self, model: nn.Module, inputs: dict[str, Any], num_items_in_batch: Tensor | int | None = None
    ) -> Tensor:
        """The parent's; what makes it fail is named, and saved where a number is none.

        Raises:
            NonFiniteError: a log-probability or a loss is NaN or infinite.
            ModelError: the batch does not fit the memory.
        """
        try:
            return super().training_step(model, inputs, num_items_in_batch)
        except NonFiniteError as error:
            raise NonFiniteError(f"{error}; {self._saved_step()}") from error
        except torch.OutOfMemoryError as error:
            batch: Batch = inputs["batch"]
            longest = max(len(item.ids) for item in batch.encoded)
            raise ModelError(
                f"step {self.state.global_step + 1}: out of memory with {len(batch.encoded)} responses of up to "
                f"{longest:,} tokens at once ({error}). The last checkpoint is kept. Take fewer at once: --set "
                "trainer.per_device_train_batch_size=1, then group_size=2; or --set "
                "trainer.gradient_checkpointing=true, --max-length, --lora, trainer.bf16=true, or share the model out "
                "with `accelerate launch`"
            ) from error

    def _get_grad_norm(self, model: nn.Module, grad_norm: Any = None) -> Any:
        """The parent's, before the weights are touched.

        Raises:
            NonFiniteError: it is NaN or infinite, unless a scaler of 16-bit gradients looks for that itself.
        """
        norm = super()._get_grad_norm(model, grad_norm=grad_norm)
        if norm is not None and self.accelerator.scaler is None and not np.isfinite(float(norm)):
            raise NonFiniteError(
                f"step {self.state.global_step + 1}: the gradient's norm is {float(norm)}, though the losses are "
                f"finite; the weights are as they were before the step. {NOT_FINITE}; {self._saved_step()}"
            )
        return norm

    def _saved_step(self) -> str:
        """Write the step's batches, to be looked into, and say where."""
        part = f"-of-process-{self.args.process_index}" if self.args.world_size > 1 else ""
        file = Path(str(self.args.output_dir)) / f"failed-step-{self.state.global_step + 1}{part}.json"
        file.parent.mkdir(parents=True, exist_ok=True)
        write_json(file, [row for batch in self._step if not batch.idle for row in _rows(batch)])
        return f"the step's responses are in {file}"

    def compute_loss(
        self, model: nn.Module, inputs: dict[str, Any], return_outputs: bool = False,
        num_items_in_batch: Tensor | int | None = None,
    ) -> Any:  # fmt: skip
        """Sum of the batch's losses over the number of items in the whole step."""
        batch: Batch = inputs["batch"]
        rewards = reward_batch(model, batch, self.reward)
        if batch.idle:  # models that are spread over processes have to be called by all of them alike
            return rewards.token_rewards.sum() * 0.0
        losses = self.objective.losses(rewards)
        if not bool(losses.detach().isfinite().all()):
            place = int((~losses.detach().isfinite()).nonzero()[0])
            raise NonFiniteError(
                f"step {self.state.global_step + 1}: the loss of {self._item(batch, place)} is "
                f"{losses[place].item()}; its rewards are finite, so the objective's options or beta are at fault"
            )
        sums = per_example(self.objective, rewards, losses, reward=self.reward)
        if model.training:
            self._sums += sums.sum(0)
        n_items = max(len(losses), 1) if num_items_in_batch is None else num_items_in_batch
        # Data-parallel processes average gradients, which the global number of items has already done.
        loss = losses.sum() / n_items * (1 if num_items_in_batch is None else self.accelerator.num_processes)
        if len(losses) == 0:  # a batch without pairs still has to take part in the backward pass of its step
            loss = rewards.token_rewards.sum() * 0.0
        return (loss, sums) if return_outputs else loss

    def prediction_step(
        self, model: nn.Module, inputs: dict[str, Any], prediction_loss_only: bool, ignore_keys: list[str] | None = None
    ) -> tuple[Tensor | None, Tensor | None, Tensor | None]:
        """What is measured of each example of an evaluation batch; the parent class puts batches and devices together.

        No loss is given, because the parent would average it over batches instead of items.
        """
        with torch.no_grad(), self.compute_loss_context_manager():
            inputs = self._prepare_inputs(inputs)
            if self._shares:
                if self._shared_in_evaluation is None:
                    self._shared_in_evaluation = self._shared(self._totals_of_evaluation(model))
                inputs = {"batch": self._given(inputs["batch"], self._shared_in_evaluation)}
            _, sums = self.compute_loss(model, inputs, return_outputs=True)
        return None, sums, sums[:, :1]  # the parent wants labels too; they are not looked at

    def evaluation_loop(
        self, dataloader: DataLoader[Any], description: str, prediction_loss_only: bool | None = None,
        ignore_keys: list[str] | None = None, metric_key_prefix: str = "eval",
    ) -> EvalLoopOutput:  # fmt: skip
        """The parent's; statistics that losses share are taken anew, by its first prediction."""
        self._shared_in_evaluation = None
        return super().evaluation_loop(dataloader, description, prediction_loss_only, ignore_keys, metric_key_prefix)

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        """Log training with the means, over all devices, of what was measured since the last time."""
        if "loss" in logs:
            sums = self._over_devices(self._sums[None])
            self._sums = torch.zeros_like(self._sums)
            logs = {**logs, **means(sums.tolist(), with_reference=self.reward.with_reference)}
        super().log(logs, start_time)

    def _save_checkpoint(self, model: nn.Module, trial: Any) -> None:
        """The parent's, with what was measured since the last log: a run that is gone on from logs it all."""
        self._kept[_MEASURED] = self._over_devices(self._sums[None]).tolist()
        super()._save_checkpoint(model, trial)
        del self._kept[_MEASURED]

    def _item(self, batch: Batch, place: int) -> str:
        """The name of the response or pair that a loss is of."""
        if not self.objective.needs_pairs:
            return batch.encoded[place].name
        found = pairs(batch.labels, batch.groups)
        return " and ".join(batch.encoded[int(side[place])].name for side in (found.chosen, found.rejected))

    def _issue_warnings_after_load(self, load_result: Any) -> None:
        """The parent's warnings, but for weights that are other ones' by being tied, which no checkpoint holds."""
        missing = [name for name in load_result.missing_keys if name not in self._tied]
        super()._issue_warnings_after_load(load_result._replace(missing_keys=missing))

    def _save(self, output_dir: str | None = None, state_dict: dict[str, Any] | None = None) -> None:
        """The parent's, but for weights that are other ones' by being tied, of which FSDP2 gives a copy."""
        if state_dict is not None:
            state_dict = {name: weight for name, weight in state_dict.items() if name not in self._tied}
        super()._save(output_dir, state_dict)

    @property
    def _tied(self) -> dict[str, str]:
        """Name of a weight -> the one that it is."""
        return getattr(core(self.model_wrapped), "all_tied_weights_keys", None) or {}

    def get_train_dataloader(self) -> DataLoader[Any]:
        """The parent's; several processes share out the examples of each step by tokens."""
        loader = super().get_train_dataloader()
        shard: Any = loader.batch_sampler
        # Where accelerate was told to share out in another way (split_batches, dispatch_batches), it does.
        if self.args.world_size > 1 and isinstance(shard, BatchSamplerShard) and not shard.split_batches:
            examples: Any = self.train_dataset
            model: Any = self.model
            read = [n_read(model, one.encoded) + n_read(model, one.mismatched) for one in examples]
            shard.batch_sampler = Share(
                shard.batch_sampler.sampler, read, batch_size=self._train_batch_size,
                n_batches=self.args.gradient_accumulation_steps, process=self.args.process_index,
                n_processes=self.args.world_size, drop_last=shard.drop_last,
                n_steps_done=lambda: self.state.global_step,
            )  # fmt: skip
            # It passes on what it is given.
            shard.num_processes, shard.process_index, shard.batch_size = 1, 0, None
        return loader

    def _get_train_sampler(self, train_dataset: Any = None) -> Sampler[int] | None:
        """The parent's, but for batches of similar length, which it cannot make of our examples."""
        if self.args.train_sampling_strategy != "group_by_length":
            return super()._get_train_sampler(train_dataset)
        examples: Any = self.train_dataset
        lengths = [example.longest for example in examples]
        return SimilarLengths(lengths, step_size=prompts_per_step(self.args), seed=self.args.seed)

    def _evaluated(self, prediction: EvalPrediction) -> dict[str, float]:
        sums = np.asarray(prediction.predictions).sum(0)  # (len(SUMS),) over examples
        return means(sums.tolist(), with_reference=self.reward.with_reference)

    @torch.no_grad()
    def _totals(self, model: nn.Module, batch: Batch) -> Tensor:
        """(2, C) sums and weights that a batch adds to the statistics that losses share: the KL first, then means."""
        parts: list[Totals] = []
        if self.objective.needs_kl:  # beta times the mean log-ratio of mismatched responses: Ethayarajh et al. 2024, z0
            logps = token_logprobs(model, batch.mismatched)
            rewards = self.reward.beta * (logps - batch.mismatched_ref_logps.to(logps.device))
            parts.append(Totals(rewards.sum()[None], rewards.new_tensor([len(batch.mismatched)])))
        if self.objective.needs_means:
            assert isinstance(self.objective, Averaging)
            parts.append(self.objective.totals(reward_batch(model, batch, self.reward)))
        return torch.stack([torch.cat(columns) for columns in zip(*parts, strict=True)]) * (not batch.idle)

    def _totals_of_evaluation(self, model: nn.Module) -> list[Tensor]:
        """What this process's share of the evaluated examples adds, each of them in one process alone.

        The parent's batches are no use: it repeats examples until all processes have as many.
        """
        loader: Any = self.callback_handler.eval_dataloader
        data, size, n_processes = loader.dataset, self.args.eval_batch_size, self.args.world_size
        own = range(self.args.process_index, len(data), n_processes)
        totals = []
        for start in range(0, -(-len(data) // n_processes), size):
            part = own[start : start + size]
            batch = collate_groups([data[index] for index in part or range(1)])
            # Models that are spread over processes have to be called by all of them alike, even for nothing.
            totals.append(self._totals(model, batch) * bool(part))
        return totals

    def _shared(self, totals: Sequence[Tensor]) -> Tensor:
        """(C,) the statistics over all parts and devices; one over nothing is as it was in the step before, or 0."""
        sums, weights = self._over_devices(torch.stack(list(totals)).sum(0)).view(2, -1)
        last = self._kept.get(_SHARED)
        return means_of(Totals(sums, weights), otherwise=None if last is None else sums.new_tensor(last))

    @property
    def _kept(self) -> dict[str, Any]:
        """What the parent's state, and so a checkpoint, holds besides its own fields."""
        kept: Any = self.state.stateful_callbacks
        return kept  # type: ignore[no-any-return]

    def _given(self, batch: Batch, shared: Tensor) -> Batch:
        """The batch with what its losses share."""
        kl = shared[0] if self.objective.needs_kl else None
        return replace(batch, kl=kl, means=shared[int(kl is not None) :] if self.objective.needs_means else None)

    def _over_devices(self, counts: Tensor) -> Tensor:
        """(S,) the sum over all processes of their (1, S) or (S,) counts."""
        row = counts.reshape(1, -1)
        gathered: Tensor = self.accelerator.gather(row) if self.args.world_size > 1 else row
        return gathered.sum(0)


def _rows(batch: Batch) -> Iterator[dict[str, Any]]:
    """Responses as they were read."""
    parts = batch.ref_logps.split([item.n_response for item in batch.encoded]) if len(batch.ref_logps) else ()
    for index, (item, label) in enumerate(zip(batch.encoded, batch.labels.tolist(), strict=True)):
        read = {"response": item.name, "correct": label, "ids": item.ids.tolist(), "n_prompt": item.n_prompt}
        yield {**read, "ref_logps": parts[index].tolist()} if parts else read


def _collated(examples: Sequence[Example], *, idle: Sequence[Example]) -> dict[str, Batch]:
    """A batch, by its name, as the parent takes it; of none, a batch that is idle."""
    return {"batch": collate_groups(examples) if examples else replace(collate_groups(idle), idle=True)}


def n_items_of(objective: Objective, batch: Batch) -> int:
    """Items of a batch under an objective: pairs or responses."""
    if batch.idle:
        return 0
    return len(pairs(batch.labels, batch.groups).chosen) if objective.needs_pairs else len(batch.labels)


SUMS = (
    "loss", "items", "responses", "right", "wrong", "reward_right", "reward_wrong", "agreeing", "log_ratio",
    "labelled_steps", "agreeing_steps",
)  # fmt: skip
"""The columns of `per_example`: sums over an example's items (the first two), responses, and steps (the last two)."""


def per_example(objective: Objective, rewards: RewardBatch, losses: Tensor, *, reward: Reward) -> Tensor:
    """(E, len(SUMS)) sums of each of a batch's groups, without gradient; `losses` are (M,), of the items."""
    response, labels, groups = rewards.rewards.detach(), rewards.labels, rewards.groups
    n_examples = int(groups[-1]) + 1
    items = groups[pairs(labels, groups).chosen] if objective.needs_pairs else groups  # (M,) the example of each
    zero, one = torch.zeros_like(response), torch.ones_like(response)
    right = labels.to(response.dtype)
    by_response = torch.stack(
        [one, right, 1 - right, torch.where(labels, response, zero), torch.where(labels, zero, response),
         ((response > 0) == labels).to(response.dtype), response / reward.beta], dim=1,
    )  # fmt: skip
    by_item = torch.stack([losses.detach(), torch.ones_like(losses.detach())], dim=1)  # (M, 2)
    return torch.cat(
        [
            by_item.new_zeros(n_examples, 2).index_add(0, items, by_item),
            by_response.new_zeros(n_examples, by_response.shape[1]).index_add(0, groups, by_response),
            _by_step(rewards, reward, n_examples).to(by_response.dtype),
        ],
        dim=1,
    )


def means(sums: Sequence[float], *, with_reference: bool) -> dict[str, float]:
    """Means by name from the totals of `SUMS`; a mean over nothing is left out.

    `sign_accuracy` is the share of responses whose reward (their last value) is above 0 just where they are right;
    `step_accuracy` the same of labelled steps, by the score that scoring will give them: r_k of a log-ratio, else V_k.
    `kl_to_reference` estimates KL(pi_ref || pi_phi) as minus the mean log-ratio of a response, in nats, for rollouts
    drawn from the reference. There is none where training goes without one.
    """
    total = dict(zip(SUMS, sums, strict=True))
    found = {name: total[name] for name in ("responses", "labelled_steps") if name == "responses" or total[name]}
    found |= {name: total[part] / total[whole] for name, (part, whole) in _MEANS.items() if total[whole]}
    if total["right"] and total["wrong"]:
        found["margin"] = found["reward_right"] - found["reward_wrong"]
    if total["responses"] and with_reference:
        found["kl_to_reference"] = -total["log_ratio"] / total["responses"]
    return found


_MEANS = {
    "loss": ("loss", "items"), "sign_accuracy": ("agreeing", "responses"),
    "step_accuracy": ("agreeing_steps", "labelled_steps"), "reward_right": ("reward_right", "right"),
    "reward_wrong": ("reward_wrong", "wrong"),
}  # fmt: skip


def _by_step(rewards: RewardBatch, reward: Reward, n_examples: int) -> Tensor:
    """(E, 2) labelled steps of each example, and those whose score has the label's sign; a label of 1/2 has none."""
    sums = rewards.token_rewards.new_zeros(n_examples, 2)
    if rewards.step_labels is None:
        return sums
    decided = (rewards.step_labels.isfinite() & (rewards.step_labels != 0.5)).nonzero()[:, 0]
    agreeing = (reward.step_scores(rewards).detach() > 0)[decided] == (rewards.step_labels[decided] > 0.5)
    examples = rewards.groups[rewards.step_rows[decided]]
    return sums.index_add(0, examples, torch.stack([torch.ones_like(agreeing), agreeing], dim=1).to(sums.dtype))
