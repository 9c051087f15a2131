"""The pieces of training in a loop of one's own, as docs/preferences.md shows it."""

import json

import pytest
import torch
from torch.utils.data import DataLoader
from transformers import AutoModelForCausalLM

import tiny
from freeprm import (
    GroupPreparer,
    TrainSettings,
    collate_groups,
    group_rollouts,
    read_groups,
    reward_batch,
    set_up_training,
)
from freeprm.errors import DataError
from freeprm.io.rollouts import rollout_row


@pytest.mark.parametrize("objective", ["ce", "dpo"])
def test_a_loop_of_ones_own_trains_as_the_trainer_does(model_folder, make_trainer, tmp_path, objective):
    rows = tmp_path / "rows.jsonl"
    rows.write_text("".join(json.dumps(rollout_row(rollout)) + "\n" for rollout in tiny.rollouts(4)))

    setup = set_up_training(TrainSettings(model=str(model_folder), objective=objective, beta=0.5))
    groups = read_groups([rows], setup.settings, setup.objective).groups
    examples = GroupPreparer(setup, tmp_path / "reference").examples(groups)
    model = AutoModelForCausalLM.from_pretrained(model_folder)
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-3)
    losses = []
    for _ in range(2):
        for batch in DataLoader(examples, batch_size=4, collate_fn=collate_groups):
            loss = setup.objective.losses(reward_batch(model, batch, setup.reward)).mean()
            loss.backward()
            optimizer.step()
            optimizer.zero_grad()
            losses.append(loss.item())

    trainer = make_trainer(objective=objective, max_steps=2)  # all four groups a step, by gradient descent at 1e-3
    trainer.train()
    assert losses == pytest.approx([entry["loss"] for entry in trainer.state.log_history[:2]], abs=2e-6)
    assert losses[1] < losses[0]
    for mine, theirs in zip(model.parameters(), trainer.model.parameters(), strict=True):
        torch.testing.assert_close(mine, theirs, atol=2e-6, rtol=1e-5)


def test_rows_without_a_label_are_not_taken_for_wrong_ones(model_folder, tmp_path):
    setup = set_up_training(TrainSettings(model=str(model_folder)))
    groups = group_rollouts(tiny.rollouts(2, labels=[True, None]))
    with pytest.raises(DataError, match="problem 'p0', sample 1: is not graded"):
        GroupPreparer(setup, tmp_path).examples(groups)
