from itertools import pairwise, product
from math import exp, isnan, log, nan

import numpy as np
import pytest

from freeprm.core.theory import (
    baseline_violation,
    expected_reward,
    highest_reward,
    largest_difference,
    prefix_sums,
    q_from_expectation,
    q_from_ratio,
    random_tables,
    reference_left_out,
    uniform_tables,
)

SHAPES = pytest.mark.parametrize(("vocabulary", "length"), [(2, 6), (3, 4), (5, 3), (7, 1)])
BETAS = pytest.mark.parametrize("beta", [0.05, 1.0, 10.0])


def two_policies(vocabulary, length, seed=0):
    rng = np.random.default_rng(seed)
    return [random_tables(vocabulary=vocabulary, length=length, scale=1.5, rng=rng) for _ in range(2)]


def test_tables_are_policies_and_prefixes_count_in_base_v():
    policy, _ = two_policies(3, 3)
    assert all(np.exp(table).sum(-1) == pytest.approx(1.0) for table in policy)
    # Response (2, 0, 1) is number 2 * 9 + 0 * 3 + 1 = 19; its prefixes are numbers 2 and 2 * 3 + 0 = 6.
    by_hand = policy[0][0, 2] + policy[1][2, 0] + policy[2][6, 1]
    assert prefix_sums(policy)[-1][19] == pytest.approx(by_hand)
    assert np.exp(prefix_sums(policy)[-1]).sum() == pytest.approx(1.0)


def test_q_of_a_world_of_two_tokens_by_hand():
    # One token, pi_ref = (1/4, 3/4), pi_phi = (1/2, 1/2), beta = 2: r = (2 log 2, 2 log(2/3)), q_0 = 0.
    policy, reference = [np.log([[0.5, 0.5]])], [np.log([[0.25, 0.75]])]
    empty, whole = q_from_ratio(policy, reference, beta=2.0)
    assert whole.tolist() == pytest.approx([2 * log(2), 2 * log(2 / 3)])
    assert empty.tolist() == [0.0]
    # 2 log(1/4 exp(log 2) + 3/4 exp(log(2/3))) = 2 log(1/2 + 1/2) = 0.
    assert q_from_expectation(whole, reference, beta=2.0)[0].item() == pytest.approx(0.0, abs=1e-15)
    # For the fixed reward (1, 0): E = 1/4, max = 1.
    rewards = np.array([1.0, 0.0])
    assert expected_reward(rewards, reference)[0].item() == pytest.approx(0.25)
    assert highest_reward(rewards, reference)[0].item() == 1.0
    assert q_from_expectation(rewards, reference, beta=2.0)[0].item() == pytest.approx(2 * log(exp(0.5) / 4 + 0.75))


def test_the_expectation_is_that_of_a_plain_loop_over_continuations():
    _, reference = two_policies(3, 3)
    rewards, beta = np.random.default_rng(1).standard_normal(27), 0.7
    first, second = 2, 1
    total = 0.0
    for third in range(3):
        weight = exp(reference[2][3 * first + second, third])
        total += weight * exp(rewards[9 * first + 3 * second + third] / beta)
    assert q_from_expectation(rewards, reference, beta=beta)[2][7] == pytest.approx(beta * log(total))
    total = 0.0
    for second, third in product(range(3), repeat=2):
        weight = exp(reference[1][first, second] + reference[2][3 * first + second, third])
        total += weight * exp(rewards[9 * first + 3 * second + third] / beta)
    assert q_from_expectation(rewards, reference, beta=beta)[1][2] == pytest.approx(beta * log(total))


@SHAPES
@BETAS
@pytest.mark.parametrize("seed", range(3))
def test_proposition_3_1_is_exact_for_any_policy_at_every_prefix(vocabulary, length, beta, seed):
    policy, reference = two_policies(vocabulary, length, seed)
    ratio = q_from_ratio(policy, reference, beta=beta)
    assert [len(values) for values in ratio] == [vocabulary**t for t in range(length + 1)]
    assert largest_difference(ratio, q_from_expectation(ratio[-1], reference, beta=beta)) < 1e-9


def test_proposition_3_1_fails_for_tables_that_are_not_a_policy():
    policy, reference = two_policies(3, 4)
    policy[2] = policy[2] + 0.1  # sums to exp(0.1)
    ratio = q_from_ratio(policy, reference, beta=1.0)
    # Every prefix before the third token is off by 0.1, the later ones are not.
    difference = [q - e for q, e in zip(ratio, q_from_expectation(ratio[-1], reference, beta=1.0), strict=True)]
    assert [values.mean() for values in difference] == pytest.approx([-0.1, -0.1, -0.1, 0.0, 0.0], abs=1e-12)


@SHAPES
def test_proposition_3_2_q_lies_between_mean_and_maximum_and_falls_with_beta(vocabulary, length):
    _, reference = two_policies(vocabulary, length)
    rewards = np.random.default_rng(2).standard_normal(vocabulary**length)
    soft, hard = expected_reward(rewards, reference), highest_reward(rewards, reference)
    betas = [1e-4, 1e-2, 0.1, 1.0, 10.0, 1e2, 1e4]
    values = [q_from_expectation(rewards, reference, beta=beta) for beta in betas]
    for one in values:
        assert all((low <= q + 1e-12).all() for low, q in zip(soft, one, strict=True))
        assert all((q <= high + 1e-12).all() for q, high in zip(one, hard, strict=True))
    for smaller, larger in pairwise(values):
        assert all((b <= a + 1e-12).all() for a, b in zip(smaller, larger, strict=True))


@SHAPES
def test_proposition_3_2_reaches_its_bounds_in_the_limits(vocabulary, length):
    _, reference = two_policies(vocabulary, length)
    rewards = np.random.default_rng(3).standard_normal(vocabulary**length)
    span = float(np.ptp(rewards))
    for beta in (1e2, 1e4, 1e6):  # Hoeffding's lemma: q - E r <= span^2 / (8 beta)
        q = q_from_expectation(rewards, reference, beta=beta)
        assert largest_difference(q, expected_reward(rewards, reference)) <= span**2 / (8 * beta) + 1e-9
    rarest = -length * min(float(table.min()) for table in reference)
    for beta in (1e-2, 1e-4, 1e-6):  # max r - q <= -beta log pi_ref(best continuation)
        q = q_from_expectation(rewards, reference, beta=beta)
        assert largest_difference(q, highest_reward(rewards, reference)) <= beta * rarest + 1e-9


@pytest.mark.parametrize("baseline", [-2.0, 0.0, 0.3])
def test_a_baseline_breaks_proposition_3_1_by_its_own_value(baseline):
    policy, reference = two_policies(3, 4)
    for violation in baseline_violation(policy, reference, beta=0.5, baseline=baseline):
        assert violation == pytest.approx(baseline, abs=1e-12)


@SHAPES
@BETAS
def test_a_uniform_reference_keeps_proposition_3_1(vocabulary, length, beta):
    policy, _ = two_policies(vocabulary, length)
    uniform = uniform_tables(vocabulary=vocabulary, length=length)
    ratio = q_from_ratio(policy, uniform, beta=beta)
    assert largest_difference(ratio, q_from_expectation(ratio[-1], uniform, beta=beta)) < 1e-9


@SHAPES
def test_leaving_a_uniform_reference_out_shifts_q_by_position_and_keeps_the_ranking(vocabulary, length):
    policy, _ = two_policies(vocabulary, length)
    beta = 0.5
    ratio = q_from_ratio(policy, uniform_tables(vocabulary=vocabulary, length=length), beta=beta)
    without = reference_left_out(policy, beta=beta)
    for t, (mine, other) in enumerate(zip(without, ratio, strict=True)):
        assert other - mine == pytest.approx(beta * t * log(vocabulary))
        assert np.argsort(mine).tolist() == np.argsort(other).tolist()


def test_leaving_the_reference_out_can_turn_round_steps_of_unequal_length():
    # Two tokens of probability 1/2 against one of 1/3, V = 4, beta = 1. With the uniform reference:
    # 2 log(4/2) = 1.386 > log(4/3) = 0.288; without: 2 log(1/2) = -1.386 < log(1/3) = -1.099.
    even = [np.log([[1 / 2, 1 / 6, 1 / 6, 1 / 6]]), np.log(np.tile([1 / 2, 1 / 6, 1 / 6, 1 / 6], (4, 1)))]
    third = [np.log([[1 / 3, 2 / 9, 2 / 9, 2 / 9]])]
    long_with = q_from_ratio(even, uniform_tables(vocabulary=4, length=2), beta=1.0)[-1][0]
    short_with = q_from_ratio(third, uniform_tables(vocabulary=4, length=1), beta=1.0)[-1][0]
    assert long_with > short_with
    assert reference_left_out(even, beta=1.0)[-1][0] < reference_left_out(third, beta=1.0)[-1][0]


def test_a_difference_that_is_not_a_number_is_not_lost_among_others():
    assert isnan(largest_difference([np.zeros(1), np.array([nan, 0.0])], [np.ones(1), np.zeros(2)]))
