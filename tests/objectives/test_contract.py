"""What every objective must do; a new file in `objectives/` is tested here unasked."""

import dataclasses

import pytest
import torch

from freeprm.errors import DataError
from freeprm.io import plugins
from freeprm.objectives.base import NEEDS, Averaging, RewardBatch, Totals, means_of, pairs

NAMES = plugins.names("objectives")

every_objective = pytest.mark.parametrize("name", NAMES)


def load(name):
    return plugins.load("objectives", name)()


def random_batch(seed, *, labels=(1, 0, 1, 0, 0, 1), groups=(0, 0, 0, 1, 1, 1), scale=1.0):
    """Responses of 1 to 5 tokens with normal rewards, cut into steps at random, whose labels are their response's."""
    rng = torch.Generator().manual_seed(seed)
    lengths = torch.randint(1, 6, (len(labels),), generator=rng)
    tokens = scale * torch.randn(int(lengths.sum()), generator=rng, dtype=torch.float64)
    rows = torch.arange(len(labels)).repeat_interleave(lengths)
    opens = torch.rand(len(tokens), generator=rng) < 0.5
    opens |= rows != torch.cat([rows.new_tensor([-1]), rows[:-1]])  # the first token of a response opens a step
    return RewardBatch(
        token_rewards=tokens.requires_grad_(),
        rows=rows,
        labels=torch.tensor(labels, dtype=torch.bool),
        groups=torch.tensor(groups),
        kl=torch.tensor(0.3, dtype=torch.float64),
        means=torch.tensor([0.2, -0.1], dtype=torch.float64) * scale,
        steps=opens.cumsum(0) - 1,
        step_labels=torch.tensor(labels, dtype=torch.float32)[rows[opens]],
    )


def permuted(batch, order):
    """The same responses in another order."""
    tokens = [batch.token_rewards[batch.rows == row] for row in order]
    lengths = torch.tensor([len(one) for one in tokens])
    steps = torch.cat([batch.steps[batch.rows == row] for row in order])
    return dataclasses.replace(
        batch,
        token_rewards=torch.cat(tokens),
        rows=torch.arange(len(order)).repeat_interleave(lengths),
        labels=batch.labels[order],
        groups=batch.groups[order],
        steps=steps.unique_consecutive(return_inverse=True)[1],
        step_labels=torch.cat([batch.step_labels[batch.step_rows == row] for row in order]),
    )


def joined(first, second):
    """Both batches as one; the second's groups are renumbered."""
    return dataclasses.replace(
        first,
        token_rewards=torch.cat([first.token_rewards, second.token_rewards]),
        rows=torch.cat([first.rows, second.rows + len(first.labels)]),
        labels=torch.cat([first.labels, second.labels]),
        groups=torch.cat([first.groups, second.groups + 1 + first.groups.max()]),
        steps=torch.cat([first.steps, second.steps + len(first.step_labels)]),
        step_labels=torch.cat([first.step_labels, second.step_labels]),
    )


@every_objective
def test_an_objective_is_a_frozen_keyword_only_dataclass_with_documented_needs(name):
    kind = plugins.load("objectives", name)
    assert dataclasses.is_dataclass(kind)
    assert kind.__dataclass_params__.frozen
    assert all(field.kw_only for field in dataclasses.fields(kind))
    assert all(isinstance(getattr(kind(), need), bool) for need in NEEDS)
    assert isinstance(kind(), Averaging) or not kind().needs_means
    assert set(NEEDS).isdisjoint(field.name for field in dataclasses.fields(kind))
    assert kind.needs_steps or not kind.needs_step_labels
    assert kind.__name__.lower() == name.replace("_", "")


@every_objective
def test_an_objective_takes_only_what_it_says_it_needs(name):
    objective, batch = load(name), random_batch(0)
    for field in ("kl", "means", "steps", "step_labels"):
        needed = getattr(objective, f"needs_{field}")
        without = dataclasses.replace(batch, **{field: None})
        if needed:
            with pytest.raises(DataError, match="the batch carries no"):
                objective.losses(without)
        else:
            assert torch.equal(objective.losses(without), objective.losses(batch))


@every_objective
def test_an_objective_gives_a_finite_loss_an_item_with_a_finite_gradient(name):
    batch = random_batch(0)
    losses = load(name).losses(batch)
    items = pairs(batch.labels, batch.groups).chosen if load(name).needs_pairs else batch.labels
    assert losses.shape == (len(items),)
    assert losses.dtype == batch.token_rewards.dtype
    losses.sum().backward()
    assert losses.isfinite().all()
    assert batch.token_rewards.grad.isfinite().all()
    assert batch.token_rewards.grad.any()


@every_objective
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_an_objective_stays_finite_for_very_large_rewards(name, dtype):
    batch = random_batch(1, scale=1e4)
    batch = dataclasses.replace(batch, token_rewards=batch.token_rewards.detach().to(dtype).requires_grad_())
    losses = load(name).losses(batch)
    losses.sum().backward()
    assert losses.isfinite().all()
    assert batch.token_rewards.grad.isfinite().all()


@every_objective
def test_an_objective_raises_right_and_lowers_wrong_responses_of_an_untrained_policy(name):
    """Not further: beyond their margin IPO and NCA pull a right response back, by design."""
    batch = random_batch(2, scale=0.0)
    load(name).losses(batch).sum().backward()
    right = batch.labels[batch.rows]
    assert (batch.token_rewards.grad[right] < 0).all()
    assert (batch.token_rewards.grad[~right] > 0).all()


@pytest.mark.parametrize(
    "name", sorted({"ce", "dpo", "kto", "simpo", "bco", "ipvrm", "osv", "step_ce", "step_kto"} & set(NAMES))
)
@pytest.mark.parametrize("seed", range(5))
def test_a_monotone_objective_never_lowers_a_right_or_raises_a_wrong_response(name, seed):
    batch = random_batch(seed, scale=5.0)
    load(name).losses(batch).sum().backward()
    right = batch.labels[batch.rows]
    assert (batch.token_rewards.grad[right] <= 0).all()
    assert (batch.token_rewards.grad[~right] >= 0).all()


@every_objective
@pytest.mark.parametrize("seed", range(3))
def test_an_objective_does_not_depend_on_the_order_of_responses(name, seed):
    batch = random_batch(seed)
    order = torch.randperm(len(batch.labels), generator=torch.Generator().manual_seed(seed))
    mine, other = load(name).losses(batch), load(name).losses(permuted(batch, order))
    assert other.sort().values.tolist() == pytest.approx(mine.sort().values.tolist(), abs=1e-12)


@every_objective
def test_an_objective_does_not_depend_on_the_numbers_of_groups(name):
    batch = random_batch(3)
    renumbered = dataclasses.replace(batch, groups=41 - 7 * batch.groups)
    assert torch.equal(load(name).losses(batch), load(name).losses(renumbered))


@every_objective
def test_items_are_independent_so_that_accumulation_does_not_change_the_loss(name):
    first, second = random_batch(4), random_batch(5)
    apart = torch.cat([load(name).losses(first), load(name).losses(second)])
    together = load(name).losses(joined(first, second))
    assert together.tolist() == pytest.approx(apart.tolist(), abs=1e-12)


@pytest.mark.parametrize("name", [name for name in NAMES if load(name).needs_means])
def test_totals_add_up_and_are_not_differentiated_through(name):
    objective, first, second = load(name), random_batch(4), random_batch(5, labels=(1, 1, 1), groups=(0, 0, 0))
    apart = [sum(parts) for parts in zip(objective.totals(first), objective.totals(second), strict=True)]
    together = objective.totals(joined(first, second))
    assert torch.cat(together).tolist() == pytest.approx(torch.cat(apart).tolist(), abs=1e-12)
    assert not means_of(together).requires_grad


def test_a_mean_over_nothing_is_what_it_was_or_zero():
    # 6 over 3, 5 over 2, and nothing over nothing.
    totals = Totals(sums=torch.tensor([6.0, 5.0, 0.0]), weights=torch.tensor([3.0, 2.0, 0.0]))
    assert means_of(totals).tolist() == [2.0, 2.5, 0.0]
    assert means_of(totals, otherwise=torch.tensor([7.0, 8.0, 9.0])).tolist() == [2.0, 2.5, 9.0]


@every_objective
def test_a_batch_of_one_class_gives_no_pairs_but_still_a_loss_that_can_be_propagated(name):
    batch = random_batch(6, labels=(1, 1, 1), groups=(0, 0, 0))
    losses = load(name).losses(batch)
    losses.sum().backward()
    assert len(losses) == (0 if load(name).needs_pairs else 3)
    assert batch.token_rewards.grad.isfinite().all()
