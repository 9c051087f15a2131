from collections import Counter

import pytest

from freeprm.core.balance import BALANCES, balance
from freeprm.core.graded import size
from freeprm.errors import ConfigError
from labelled import assert_adds_up, group, labels_of, many_groups, members, shuffled


@pytest.mark.parametrize("seed", range(5))
def test_dataset_balance_leaves_as_many_right_as_wrong_and_all_of_the_minority(seed):
    groups = many_groups(seed)
    before, kept = labels_of(groups), balance(groups, how="dataset", seed=seed)
    minority = min(before[True], before[False])
    assert labels_of(kept.groups) == {True: minority, False: minority}
    assert kept.dropped["responses of a majority class"] == abs(before[True] - before[False])
    assert kept.dropped["ungraded responses"] == before[None]


@pytest.mark.parametrize("seed", range(5))
def test_instruction_balance_leaves_as_many_right_as_wrong_in_each_group(seed):
    groups = many_groups(seed)
    for each in balance(groups, how="instruction", seed=seed).groups:
        counts = labels_of([each])
        assert counts[True] == counts[False] > 0


@pytest.mark.parametrize("how", ["dataset", "instruction"])
@pytest.mark.parametrize("seed", range(5))
def test_what_balance_keeps_and_what_it_drops_add_up(how, seed):
    groups = many_groups(seed)
    kept = balance(groups, how=how, seed=seed)
    assert_adds_up(size(groups), size(kept.groups), kept.dropped)


@pytest.mark.parametrize("how", sorted(BALANCES))
def test_balance_does_not_depend_on_the_order_of_the_input(how):
    groups = many_groups()
    mine, other = balance(groups, how=how, seed=2), balance(shuffled(groups), how=how, seed=2)
    assert members(mine.groups) == members(other.groups)
    assert mine.dropped == other.dropped


def test_balance_none_changes_nothing():
    groups = many_groups()
    assert balance(groups, how="none") == (groups, Counter(), Counter())


def test_balance_draws_another_majority_for_another_seed():
    groups = [group("a", "+---------")]
    assert len({frozenset(members(balance(groups, how="dataset", seed=s).groups)) for s in range(9)}) > 1


def test_an_unknown_balance_is_refused():
    with pytest.raises(ConfigError, match="expected one of none, dataset, instruction"):
        balance([group("a", "+-")], how="response")
