import json
import math
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import nn
from torch.nn.functional import binary_cross_entropy_with_logits

import gradients
import stepped
import tiny
from freeprm.errors import ModelError, NonFiniteError
from freeprm.io import plugins
from freeprm.io.plugins import load
from freeprm.models.logprobs import token_logprobs
from freeprm.models.values import Valuation, load_valued
from freeprm.objectives.base import RewardBatch
from freeprm.objectives.ce import CE
from freeprm.objectives.dpo import DPO
from freeprm.objectives.step_ce import StepCE
from freeprm.training.batches import LogRatios, Values, collate_groups
from freeprm.training.trainer import SUMS, means, n_items_of, per_example
from freeprm.types import Rollout
from launching import launch

OBJECTIVES = ("ce", "dpo", "kto", "nca", "ipvrm", "ipo")


LABELS = {"p0": (True, False, True, False), "p1": (True, False), "p2": (True, True, False), "p3": (False, True, True)}


def unequal() -> list[Rollout]:
    """Four groups of 4, 2, 3 and 3 responses, giving 4, 1, 2 and 2 pairs."""
    return [
        replace(rollout, correct=labels[rollout.sample_idx])
        for rollout in tiny.rollouts(4)
        if rollout.sample_idx < len(labels := LABELS[rollout.problem_id])
    ]


def weights_after(trainer) -> list[torch.Tensor]:
    trainer.train()
    return [parameter.detach().clone() for parameter in trainer.model.parameters()]


def assert_same(one: list[torch.Tensor], other: list[torch.Tensor]) -> None:
    for a, b in zip(one, other, strict=True):
        torch.testing.assert_close(a, b, atol=2e-6, rtol=1e-5)


EVERY_OBJECTIVE = [*plugins.names("objectives"), "standardised:Standardised"]
"""All that are installed, unasked, and one of somebody else's that needs statistics over a step."""


def twelve() -> list[Rollout]:
    """12 groups of one to four responses, two of them of one class."""
    made = [rollout for rollout in stepped.rollouts(12) if rollout.sample_idx < 4 - int(rollout.problem_id[1:]) % 3]
    one_class = {"p0": True, "p1": False}
    return [replace(rollout, correct=one_class.get(rollout.problem_id, rollout.correct)) for rollout in made]


@pytest.mark.parametrize("objective", EVERY_OBJECTIVE)
def test_no_gradient_depends_on_how_a_step_is_cut(make_trainer, objective):
    whole, one_by_one = (
        gradients.of_all_examples(trainer, batch_size=len(trainer.train_dataset) if together else 1)
        for together in (True, False)
        for trainer in [make_trainer(twelve(), objective=objective, model=tiny.language_model(seed=3))]
    )
    assert whole.norm() > 1e-3
    assert (one_by_one - whole).norm() <= 1e-5 * whole.norm()


@pytest.mark.slow
def test_no_gradient_depends_on_the_number_of_processes(make_trainer, tmp_path):
    trainers = {
        name: make_trainer(twelve(), objective=name, model=tiny.language_model(seed=3)) for name in EVERY_OBJECTIVE
    }
    torch.save({name: (t.train_dataset, t.objective, t.reward) for name, t in trainers.items()}, tmp_path / "given")
    launch(Path(gradients.__file__), str(tmp_path / "given"), str(tmp_path / "found"), config="ddp")
    found = torch.load(tmp_path / "found")
    for name, trainer in trainers.items():
        whole = gradients.of_all_examples(trainer, batch_size=len(trainer.train_dataset))
        assert (found[name] - whole).norm() <= 1e-5 * whole.norm(), name


def test_the_logged_loss_is_the_mean_over_items_whatever_the_accumulation(make_trainer):
    losses = []
    for size in (4, 2, 1):
        trainer = make_trainer(unequal(), per_device_train_batch_size=size, gradient_accumulation_steps=4 // size)
        trainer.train()
        losses.append(trainer.state.log_history[0]["loss"])
    # An untrained policy has r = 0 everywhere: a loss of log 2 an item.
    assert losses == pytest.approx([math.log(2)] * 3, abs=1e-6)


def test_a_step_is_that_of_the_definition(make_trainer):
    trainer = make_trainer(unequal())
    model = tiny.language_model(seed=3)
    examples = [trainer.train_dataset[index] for index in range(4)]
    losses = [
        binary_cross_entropy_with_logits(0.5 * (token_logprobs(model, [item]) - ref).sum(), torch.tensor(float(label)))
        for example in examples
        for item, label, ref in zip(example.encoded, example.labels, example.ref_logps, strict=True)
    ]
    torch.stack(losses).mean().backward()
    expected = [parameter.detach() - 1e-3 * parameter.grad for parameter in model.parameters()]
    trainer = make_trainer(unequal(), model=tiny.language_model(seed=3))
    assert_same(weights_after(trainer), expected)


WAYS = {
    "step_kto": {}, "step_ce": {"parameterisation": "tokens"}, "osv": {"parameterisation": "linear"},
    "ce": {"parameterisation": "linear"}, "dpo": {"parameterisation": "tokens"},
}  # fmt: skip


@pytest.mark.parametrize("objective", WAYS)
def test_accumulation_does_not_change_a_step_on_steps_or_values_either(make_trainer, objective):
    made = [
        make_trainer(
            stepped.rollouts(4)[:-1], objective=objective, how=WAYS[objective], per_device_train_batch_size=size,
            gradient_accumulation_steps=4 // size,
        )
        for size in (4, 2, 1)
    ]  # fmt: skip
    start = [parameter.detach().clone() for parameter in made[0].model.parameters()]
    whole, *parts = map(weights_after, made)
    assert not all(torch.equal(a, b) for a, b in zip(start, whole, strict=True))
    for part in parts:
        assert_same(whole, part)
    assert made[0].state.log_history[0]["loss"] == pytest.approx(made[2].state.log_history[0]["loss"], abs=1e-5)


def test_a_step_on_values_is_that_of_the_definition(make_trainer, model_folder):
    trainer = make_trainer(stepped.rollouts(2), objective="step_ce", how={"parameterisation": "tokens"})
    valuation = trainer.reward.valuation
    model = load_valued(str(model_folder), valuation).model
    losses = []
    for index in range(2):
        example = trainer.train_dataset[index]
        for item, steps in zip(example.encoded, example.steps, strict=True):
            # One label a step, the value read with the step's last token as the last that the model has seen.
            ids = torch.from_numpy(item.ids.astype("int64"))[None]
            good, bad = (tiny.tokenizer()(text, add_special_tokens=False)["input_ids"][0] for text in "+-")
            logits = model(input_ids=ids).logits[0, item.n_prompt + torch.from_numpy(steps.ends).long()]
            values = logits[:, good] - logits[:, bad]
            losses.append(binary_cross_entropy_with_logits(values, torch.from_numpy(steps.labels)))
    torch.stack(losses).mean().backward()
    expected = [parameter.detach() - 1e-3 * parameter.grad for parameter in model.parameters()]
    assert_same(weights_after(trainer), expected)


@pytest.mark.parametrize("objective", WAYS)
def test_steps_and_values_are_learnt(make_trainer, objective):
    labelled, held_out = stepped.rollouts(8), stepped.rollouts(6, seed=9)
    trainer = make_trainer(
        labelled, dev=held_out, objective=objective, how=WAYS[objective], optim="adamw_torch", learning_rate=3e-3,
        max_steps=30,
    )  # fmt: skip
    before = trainer.evaluate()
    trainer.train()
    after = trainer.evaluate()
    assert after["eval_loss"] < 0.8 * before["eval_loss"]
    assert after["eval_margin"] > 0.5
    assert "eval_kl_to_reference" not in after or objective == "step_kto"
    assert ("eval_step_accuracy" in after) == objective.startswith("step_")
    if objective.startswith("step_"):
        assert after["eval_step_accuracy"] > 0.9


@pytest.mark.parametrize("objective", sorted({*OBJECTIVES} - {"kto"}))  # KTO draws mismatched responses by position
def test_the_order_of_responses_in_a_group_changes_nothing(make_trainer, objective):
    turned = [replace(rollout, sample_idx=10 - rollout.sample_idx) for rollout in unequal()]
    one, other = (weights_after(make_trainer(rollouts, objective=objective)) for rollouts in (unequal(), turned))
    assert_same(one, other)


def test_bco_shifts_by_the_classes_of_the_whole_step(make_trainer):
    trainer = make_trainer(
        unequal(), objective="bco", model=tiny.language_model(seed=3), per_device_train_batch_size=1,
        gradient_accumulation_steps=4,
    )  # fmt: skip
    model = tiny.language_model(seed=3)
    examples = [trainer.train_dataset[index] for index in range(4)]
    labels = torch.tensor([label for example in examples for label in example.labels])
    rewards = torch.stack([
        0.5 * (token_logprobs(model, [item]) - ref).sum()
        for example in examples for item, ref in zip(example.encoded, example.ref_logps, strict=True)
    ])  # fmt: skip
    delta = (rewards[labels].mean() + rewards[~labels].mean()).item() / 2
    binary_cross_entropy_with_logits(rewards - delta, labels.float()).backward()
    expected = torch.cat([parameter.grad.flatten() for parameter in model.parameters()])
    (found,) = gradients.of_steps(trainer)
    assert (found - expected).norm() <= 1e-5 * expected.norm()


def test_the_mean_of_a_class_that_is_absent_is_the_last_one_also_in_a_run_that_goes_on(make_trainer):
    # Steps of one prompt, in turn, of which only the first has wrong responses.
    rollouts = [replace(r, correct=r.correct or r.problem_id != "p0") for r in tiny.rollouts(3)]
    how = {
        "objective": "bco", "per_device_train_batch_size": 1, "train_sampling_strategy": "sequential", "max_steps": 3,
        "save_strategy": "steps", "save_steps": 1, "learning_rate": 1e-2,
    }  # fmt: skip
    trainer = make_trainer(rollouts, model=tiny.language_model(seed=3), **how)
    whole = gradients.of_steps(trainer)
    first, last = (
        json.loads((Path(trainer.args.output_dir) / f"checkpoint-{step}" / "trainer_state.json").read_text())
        for step in (1, 3)
    )
    (right, wrong), means = (state["stateful_callbacks"]["GroupTrainer.shared"] for state in (first, last))
    assert wrong == means[1] != 0.0
    assert right != means[0]
    resumed = make_trainer(rollouts, model=tiny.language_model(seed=3), **how)
    rest = gradients.of_steps(resumed, resume_from_checkpoint=str(Path(trainer.args.output_dir) / "checkpoint-1"))
    for one, other in zip(whole[1:], rest, strict=True):
        assert torch.equal(one, other)


def test_a_tied_head_is_not_missing_from_a_checkpoint(make_trainer, monkeypatch):
    model = tiny.language_model("llama tied", seed=3)
    trainer = make_trainer(tiny.rollouts(2), model=model)
    warned = []
    monkeypatch.setattr("transformers.trainer.logger.warning", warned.append)
    kept = {name: weight for name, weight in model.state_dict().items() if name != "lm_head.weight"}
    trainer._issue_warnings_after_load(model.load_state_dict(kept, strict=False))
    assert not warned
    trainer._issue_warnings_after_load(model.load_state_dict({**kept, "more": kept["model.norm.weight"]}, strict=False))
    assert len(warned) == 1
    assert "more" in warned[0]


@pytest.mark.parametrize("objective", ["kto", "bco"])
def test_an_evaluation_does_not_depend_on_how_it_is_cut(make_trainer, objective):
    losses = [
        make_trainer(
            dev=unequal(), objective=objective, model=tiny.language_model(seed=3), per_device_eval_batch_size=size
        ).evaluate()["eval_loss"]
        for size in (1, 3, 4)
    ]
    assert losses == pytest.approx(losses[:1] * 3, abs=1e-6)


def test_kto_measures_its_kl_on_responses_to_other_prompts(make_trainer):
    trainer = make_trainer(objective="kto", model=tiny.language_model(seed=3))
    batch = trainer.data_collator([trainer.train_dataset[index] for index in range(4)])["batch"]
    prompts = {tuple(item.ids[: item.n_prompt]): index for index, item in enumerate(batch.encoded)}
    for item in batch.mismatched:
        own = batch.encoded[prompts[tuple(item.ids[: item.n_prompt])]]
        assert not torch.equal(torch.tensor(own.ids[own.n_prompt :]), torch.tensor(item.ids[item.n_prompt :]))
    log_ratios = token_logprobs(trainer.model, batch.mismatched) - batch.mismatched_ref_logps
    (given,), _ = trainer.get_batch_samples(iter([{"batch": batch}]), 1, torch.device("cpu"))
    assert given["batch"].kl.item() == pytest.approx(0.5 * log_ratios.sum().item() / 16, rel=1e-5)  # one a response
    assert not given["batch"].kl.requires_grad


def test_training_learns_the_sign_of_the_reward(make_trainer):
    trainer = make_trainer(
        tiny.rollouts(8), dev=tiny.rollouts(6, seed=9), optim="adamw_torch", learning_rate=3e-3, max_steps=12
    )
    before = trainer.evaluate()
    trainer.train()
    after = trainer.evaluate()
    assert before["eval_sign_accuracy"] == 0.5  # r = 0 is not above 0: all are taken for wrong
    assert after["eval_sign_accuracy"] > 0.9
    assert after["eval_loss"] < before["eval_loss"] == pytest.approx(math.log(2), abs=1e-6)
    assert after["eval_margin"] > 1


def test_evaluation_is_the_mean_over_items_whatever_the_batch_size(make_trainer):
    found = [
        make_trainer(dev=unequal(), model=tiny.language_model(seed=3), per_device_eval_batch_size=size).evaluate()
        for size in (1, 3, 4)
    ]
    for one in found[1:]:
        for name in ("eval_loss", "eval_sign_accuracy", "eval_margin", "eval_kl_to_reference", "eval_responses"):
            assert one[name] == pytest.approx(found[0][name], abs=1e-5)
    assert found[0]["eval_responses"] == 12


def test_a_batch_without_pairs_takes_part_in_the_backward_pass(make_trainer):
    trainer = make_trainer(objective="dpo")
    example = trainer.train_dataset[0]
    single = replace(example, labels=(True,) * len(example.labels))
    loss = trainer.compute_loss(trainer.model, trainer.data_collator([single]), num_items_in_batch=3)
    loss.backward()
    assert loss.item() == 0
    assert all(parameter.grad is not None and not parameter.grad.any() for parameter in trainer.model.parameters())


def test_items_are_responses_or_pairs(make_trainer):
    trainer = make_trainer(unequal())
    batch = trainer.data_collator([trainer.train_dataset[index] for index in range(4)])["batch"]
    assert n_items_of(load("objectives", "ce")(), batch) == 12
    assert n_items_of(load("objectives", "dpo")(), batch) == 4 + 1 + 2 + 2


def test_every_log_tells_what_was_measured(make_trainer):
    trainer = make_trainer(model=tiny.language_model(seed=3), max_steps=2)
    trainer.train()
    for entry in trainer.state.log_history[:2]:
        assert entry["responses"] == 16
        assert entry["margin"] == pytest.approx(entry["reward_right"] - entry["reward_wrong"])
        shares = (entry["reward_right"] + entry["reward_wrong"]) / 2  # as many right as wrong
        assert entry["kl_to_reference"] == pytest.approx(-shares / 0.5, abs=1e-5)
        assert 0 <= entry["sign_accuracy"] <= 1


def test_tokens_trained_on_are_counted(make_trainer):
    trainer = make_trainer(max_steps=3)
    trainer.train()
    tokens = sum(len(item.ids) for index in range(4) for item in trainer.train_dataset[index].encoded)
    assert trainer.state.num_input_tokens_seen == 3 * tokens


def test_a_policy_that_diverged_is_refused_with_the_name_of_a_response(make_trainer):
    model = tiny.language_model()
    with torch.no_grad():
        model.get_input_embeddings().weight[:] = torch.nan
    with pytest.raises(NonFiniteError, match=r"problem 'p\d', sample \d: .* or training diverged"):
        make_trainer(model=model).train()


class Broken(CE):
    """Cross-entropy whose loss of the second response is infinite."""

    def losses(self, batch: RewardBatch) -> torch.Tensor:
        losses = super().losses(batch)
        return torch.cat([losses[:1], losses[1:2] * torch.inf, losses[2:]])


def test_a_loss_that_is_no_number_stops_training_with_its_batch_saved(make_trainer):
    trainer = make_trainer(unequal(), model=tiny.language_model(seed=3))
    trainer.objective = Broken()
    before = [parameter.detach().clone() for parameter in trainer.model.parameters()]
    with pytest.raises(NonFiniteError, match=r"step 1: the loss of problem .* sample 1 is inf.*failed-step-1\.json"):
        trainer.train()
    assert_same([parameter.detach() for parameter in trainer.model.parameters()], before)
    rows = json.loads((Path(trainer.args.output_dir) / "failed-step-1.json").read_text())
    batch = collate_groups([trainer.train_dataset[index] for index in range(4)])
    assert sorted(row["response"] for row in rows) == sorted(item.name for item in batch.encoded)
    own = next(row for row in rows if row["response"] == batch.encoded[1].name)
    assert own["ids"] == batch.encoded[1].ids.tolist()
    assert own["n_prompt"] == batch.encoded[1].n_prompt
    assert own["correct"] == bool(batch.labels[1])
    n = batch.encoded[0].n_response
    assert own["ref_logps"] == pytest.approx(batch.ref_logps[n:][: batch.encoded[1].n_response].tolist())


@pytest.mark.parametrize("clip", [0.0, 1.0])
def test_a_gradient_that_is_no_number_never_reaches_the_weights(make_trainer, clip: float):
    trainer = make_trainer(unequal(), model=tiny.language_model(seed=3), max_grad_norm=clip)
    weight = next(trainer.model.parameters())
    weight.register_hook(lambda gradient: gradient * torch.nan)
    before = [parameter.detach().clone() for parameter in trainer.model.parameters()]
    with pytest.raises(NonFiniteError, match=r"step 1: the gradient's norm is nan.*failed-step-1\.json"):
        trainer.train()
    assert_same([parameter.detach() for parameter in trainer.model.parameters()], before)


def test_a_batch_that_does_not_fit_names_the_settings(make_trainer, monkeypatch):
    trainer = make_trainer(unequal())

    def full(*given: object, **more: object) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")

    monkeypatch.setattr(trainer, "compute_loss", full)
    with pytest.raises(ModelError, match=r"step 1: out of memory with 12 responses of up to \d+ tokens.*group_size"):
        trainer.train()


def test_the_same_seed_gives_the_same_weights_to_the_bit(make_trainer):
    runs = [
        weights_after(make_trainer(unequal(), model=tiny.language_model(seed=3), max_steps=3, optim="adamw_torch"))
        for _ in range(2)
    ]
    assert all(torch.equal(one, other) for one, other in zip(*runs, strict=True))


def test_the_model_is_called_as_it_is_wrapped(make_trainer):
    class Wrapped(nn.Module):
        """Counts its calls, as DistributedDataParallel and FSDP must see each of them."""

        def __init__(self, module: nn.Module):
            super().__init__()
            self.module, self.calls = module, 0

        def forward(self, **inputs: torch.Tensor) -> object:
            self.calls += 1
            return self.module(**inputs)

    trainer = make_trainer()
    wrapped = Wrapped(trainer.model)
    trainer.compute_loss(wrapped, trainer.data_collator([trainer.train_dataset[0]]))
    assert wrapped.calls == 1


def test_responses_may_be_grouped_by_length(make_trainer):
    trainer = make_trainer(tiny.rollouts(8), train_sampling_strategy="group_by_length", max_steps=2)
    trainer.train()
    assert trainer.state.num_input_tokens_seen > 0


def test_gradient_checkpointing_changes_nothing(make_trainer):
    assert_same(weights_after(make_trainer()), weights_after(make_trainer(activation_checkpointing=True)))


def test_bfloat16_computes_in_bfloat16_and_learns(make_trainer):
    trainer = make_trainer(tiny.rollouts(8), bf16=True, optim="adamw_torch", learning_rate=3e-3, max_steps=8)
    trainer.train()
    first, last = trainer.state.log_history[0], trainer.state.log_history[7]
    assert last["loss"] < 0.9 * first["loss"]
    assert next(trainer.model.parameters()).dtype == torch.float32


RATIOS = LogRatios(beta=0.5)


VALUES = Values(valuation=Valuation(parameterisation="linear", read_at="steps"))


BATCH = RewardBatch(
    token_rewards=torch.tensor([1.0, 0.5, -1.0, 2.0, 0.25]),
    rows=torch.tensor([0, 0, 1, 2, 3]),  # rewards 1.5, -1, 2, 0.25
    labels=torch.tensor([True, False, False, True]),
    groups=torch.tensor([0, 0, 1, 1]),
)


def test_sums_are_kept_by_example():
    sums = per_example(CE(), BATCH, torch.tensor([0.1, 0.2, 0.3, 0.4]), reward=RATIOS)
    named = [dict(zip(SUMS, row, strict=True)) for row in sums.tolist()]
    # Group 0: right 1.5, wrong -1, both of the label's sign. Group 1: wrong 2 (not its sign), right 0.25.
    assert named[0] == pytest.approx({
        "loss": 0.3, "items": 2, "responses": 2, "right": 1, "wrong": 1, "reward_right": 1.5, "reward_wrong": -1,
        "agreeing": 2, "log_ratio": (1.5 - 1) / 0.5, "labelled_steps": 0, "agreeing_steps": 0,
    })  # fmt: skip
    assert named[1] == pytest.approx({
        "loss": 0.7, "items": 2, "responses": 2, "right": 1, "wrong": 1, "reward_right": 0.25, "reward_wrong": 2,
        "agreeing": 1, "log_ratio": (2 + 0.25) / 0.5, "labelled_steps": 0, "agreeing_steps": 0,
    })  # fmt: skip


def test_a_pair_is_an_item_of_its_group():
    sums = per_example(DPO(), BATCH, torch.tensor([0.1, 0.4]), reward=RATIOS)
    assert sums[:, :2].tolist() == [pytest.approx([0.1, 1]), pytest.approx([0.4, 1])]


def test_means_are_over_what_they_are_means_of():
    total = per_example(CE(), BATCH, torch.tensor([0.1, 0.2, 0.3, 0.4]), reward=RATIOS).sum(0).tolist()
    assert means(total, with_reference=True) == pytest.approx({
        "responses": 4, "loss": 1.0 / 4, "sign_accuracy": 3 / 4, "reward_right": 1.75 / 2, "reward_wrong": 1 / 2,
        "margin": 0.75 / 2, "kl_to_reference": -(0.5 + 2.25) / 0.5 / 4,
    })  # fmt: skip


def test_a_mean_over_nothing_is_left_out():
    assert means([0.0] * len(SUMS), with_reference=True) == {"responses": 0.0}


def test_there_is_no_divergence_from_a_reference_that_is_not_there():
    total = per_example(CE(), BATCH, torch.zeros(4), reward=RATIOS).sum(0).tolist()
    assert "kl_to_reference" not in means(total, with_reference=False)


def test_steps_are_counted_by_the_score_that_scoring_gives_them():
    # Step rewards 2, -1 | -1, 3; as values 2, 1 | -1, 2. Labels right, wrong | not known, right; one half is neither.
    batch = RewardBatch(
        token_rewards=torch.tensor([2.0, -1.0, -1.0, 3.0, 5.0]),
        rows=torch.tensor([0, 0, 1, 1, 1]),
        labels=torch.tensor([True, False]),
        groups=torch.tensor([0, 1]),
        steps=torch.arange(5),
        step_labels=torch.tensor([1.0, 0.0, torch.nan, 1.0, 0.5]),
    )
    for reward, agreeing in ((RATIOS, [2, 1]), (VALUES, [1, 1])):
        sums = per_example(StepCE(), batch, torch.zeros(2), reward=reward)
        assert sums[:, -2:].tolist() == [[2, agreeing[0]], [1, agreeing[1]]]
        assert means(sums.sum(0).tolist(), with_reference=False)["step_accuracy"] == sum(agreeing) / 3
