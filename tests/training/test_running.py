"""What training took, counted by hand from a few groups."""

from collections.abc import Callable

import pytest

import tiny
from freeprm.core.flops import ModelShape, forward_flops, training_flops
from freeprm.models.logprobs import n_read
from freeprm.training.batches import Example
from freeprm.training.running import described, training_cost
from freeprm.training.trainer import GroupTrainer
from freeprm.types import Cost


def test_a_training_log_is_one_line():
    line = described({"loss": 0.5, "sign_accuracy": 0.75, "margin": 1.0, "epoch": 0.5, "learning_rate": 5e-7})
    assert line == "loss 0.5000  sign accuracy 0.750  margin +1.000  lr 5e-07"


def test_an_evaluation_log_says_that_it_is_one():
    assert described({"eval_loss": 0.5, "eval_runtime": 3.0}) == "dev  loss 0.5000"


def test_a_log_of_nothing_we_show_is_no_line():
    assert described({"train_runtime": 3.0}) == ""


def test_nothing_is_printed_on_stdout(make_trainer, capsys):
    from transformers import PrinterCallback

    from freeprm.training.running import ConsoleCallback

    with ConsoleCallback(n_tokens=0) as console:
        trainer = make_trainer(max_steps=3, logging_steps=2)
        trainer.remove_callback(PrinterCallback)
        trainer.add_callback(console)
        trainer.train()
    printed = capsys.readouterr()
    assert printed.out == ""
    assert [line.split("  ")[0] for line in printed.err.splitlines() if line.startswith("step")] == [
        "step 2/3",
        "step 3/3",
    ]


SHAPE = ModelShape(n_parameters=1000, n_layers=2, attention_width=8)


Trained = Callable[..., tuple[Cost, list[Example], list[Example]]]


@pytest.fixture
def trained(make_trainer: Callable[..., GroupTrainer]) -> Trained:
    """Train on four groups, two at a time, for two epochs unless told otherwise."""

    def one(objective: str = "ce", *, reference_tokens: int | None = 0, **how):
        how = {"per_device_train_batch_size": 2, "max_steps": 4, **how}
        trainer = make_trainer(objective=objective, **how)
        trainer.train()
        used, held_out = (
            [] if part is None else [part[index] for index in range(len(part))]
            for part in (trainer.train_dataset, trainer.eval_dataset)
        )
        cost = training_cost(trainer, SHAPE, used, held_out=held_out, reference_tokens=reference_tokens)
        return cost, used, held_out

    return one


def charged(cost: Cost) -> dict[str, int]:
    return {item.what: item.tokens for item in cost.charges}


def lengths(used: list[Example]) -> list[int]:
    return [len(item.ids) for example in used for item in example.encoded]


def test_training_is_charged_by_the_tokens_that_the_policy_read(trained: Trained):
    cost, used, _ = trained(reference_tokens=77)
    mean = sum(lengths(used)) / len(lengths(used))
    assert charged(cost) == {"training": cost.trained_tokens, "reference forward": 77}
    assert cost.scored_tokens == 77
    one_by_one = sum(n_read(tiny.language_model(), example.encoded) for example in used)
    assert 0 < cost.trained_tokens <= 2 * one_by_one  # two epochs; the two groups of a batch share beginnings
    expected = training_flops(SHAPE, cost.trained_tokens, mean).total + forward_flops(SHAPE, 77, mean).total
    assert cost.flops == pytest.approx(expected, rel=1e-6)
    assert cost.devices == ("cpu",)


def test_sequences_are_counted_in_full_and_pairs_as_two(trained: Trained):
    cost, used, _ = trained("ce")
    assert cost.sequence_tokens == 2 * sum(lengths(used))
    cost, used, _ = trained("dpo")
    pairs = sum(
        len(chosen.ids) + len(rejected.ids)
        for example in used
        for chosen, right in zip(example.encoded, example.labels, strict=True)
        for rejected, other in zip(example.encoded, example.labels, strict=True)
        if right and not other
    )
    assert cost.sequence_tokens == 2 * pairs


def test_a_reference_that_cost_nothing_is_there_with_no_tokens_and_none_is_not(trained: Trained):
    assert charged(trained(reference_tokens=0)[0])["reference forward"] == 0
    assert "reference forward" not in charged(trained(reference_tokens=None)[0])


def test_recomputed_activations_are_a_charge_of_their_own(trained: Trained):
    training, again, _ = trained(activation_checkpointing=True, max_steps=1)[0].charges
    assert (again.what, again.tokens) == ("recomputed activations", training.tokens)
    assert training.parameter_flops == 3 * again.parameter_flops


def test_the_kl_estimate_and_evaluations_are_charged(trained: Trained):
    cost, used, held_out = trained("kto", dev=tiny.rollouts(2, seed=5), eval_strategy="epoch")
    mismatched = [
        sum(n_read(tiny.language_model(), example.mismatched) for example in part) for part in (used, held_out)
    ]
    assert all(mismatched)
    assert charged(cost)["KL estimate"] == 2 * mismatched[0] + 2 * mismatched[1]  # two epochs, two evaluations
    read = sum(n_read(tiny.language_model(), example.encoded) for example in held_out)
    assert charged(cost)["evaluation while training"] == 2 * read
    assert cost.scored_tokens == charged(cost)["KL estimate"] + 2 * read


def test_the_pass_for_means_over_a_step_is_charged(trained: Trained):
    cost, _, held_out = trained("bco", dev=tiny.rollouts(2, seed=5), eval_strategy="epoch")
    read = sum(n_read(tiny.language_model(), example.encoded) for example in held_out)
    assert charged(cost)["means over a step"] == cost.trained_tokens + 2 * read  # what was trained on, two evaluations
    assert "means over a step" not in charged(trained("ce")[0])


def test_half_an_epoch_is_half_the_sequences(trained: Trained):
    cost, used, _ = trained(max_steps=1)
    assert cost.sequence_tokens == round(sum(lengths(used)) / 2)


def test_adapters_save_the_gradients_of_the_other_weights(trained: Trained):
    cost, _, _ = trained(how={"lora": 2}, max_steps=1)
    assert cost.charges[0].parameter_flops == 4 * SHAPE.n_parameters * cost.trained_tokens
