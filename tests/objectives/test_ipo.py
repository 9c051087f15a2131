import pytest

from freeprm.objectives.ipo import IPO


def test_ipo_is_the_squared_distance_from_the_margin(batch_of):
    # 1.0 - 0.2 - 0.5 = 0.3.
    assert IPO().losses(batch_of([[0.4, 0.6], [0.2]], [True, False])).item() == pytest.approx(0.09)


def test_ipo_is_zero_at_the_margin_and_grows_on_both_sides(batch_of):
    objective = IPO(margin=2.0)
    losses = [objective.losses(batch_of([[reward], [0.0]], [True, False])).item() for reward in (1.0, 2.0, 3.0)]
    assert losses == pytest.approx([1.0, 0.0, 1.0])


def test_ipo_per_token_divides_each_reward_by_its_tokens(batch_of):
    # 3/2 - 0.6/3 - 0.5 = 0.8.
    loss = IPO(per_token=True).losses(batch_of([[1.0, 2.0], [0.1, 0.2, 0.3]], [True, False])).item()
    assert loss == pytest.approx(0.64)


def test_ipo_is_beta_squared_times_the_published_loss(batch_of):
    beta, right, wrong = 0.1, 4.0, 1.5  # log-ratios
    published = (right - wrong - 1 / (2 * beta)) ** 2  # (2.5 - 5)^2
    loss = IPO().losses(batch_of([[beta * right], [beta * wrong]], [True, False])).item()
    assert loss == pytest.approx(beta**2 * published)
