import numpy as np
import pytest

from freeprm.core.auc import auc, unit_aucs, weighted_auc
from freeprm.core.intervals import resample
from freeprm.errors import DataError, NonFiniteError


def by_pairs(scores, positive) -> float:
    won = [(p > q) + (p == q) / 2 for p in scores[positive] for q in scores[~positive]]
    return float(np.mean(won))


def test_auc_counts_pairs_and_halves_ties():
    # positives 0.9, 0.5; negatives 0.5, 0.1: three pairs won, one tied
    assert auc([0.9, 0.5, 0.5, 0.1], [True, True, False, False]) == pytest.approx(3.5 / 4)


@pytest.mark.parametrize("share", [0.1, 0.5, 0.9])
def test_auc_is_the_mean_over_all_pairs(share: float):
    rng = np.random.default_rng(0)
    scores, positive = rng.integers(0, 6, 60) / 5, rng.random(60) < share
    assert auc(scores, positive) == pytest.approx(by_pairs(scores, positive))


def test_equal_scores_say_nothing():
    assert auc([1.0] * 5, [True, False, True, False, False]) == 0.5


def test_auc_does_not_depend_on_scale_and_turns_with_the_sign():
    rng = np.random.default_rng(1)
    scores, positive = rng.normal(size=50), rng.random(50) < 0.5
    assert auc(0.001 * scores - 7, positive) == pytest.approx(auc(scores, positive))
    assert auc(-scores, positive) == pytest.approx(1 - auc(scores, positive))


@pytest.mark.parametrize("share", [0.2, 0.8])
def test_weighted_auc_counts_an_item_as_often_as_its_unit_was_drawn(share: float):
    rng = np.random.default_rng(2)
    scores, positive, units = rng.integers(0, 9, 80) / 8, rng.random(80) < share, rng.integers(0, 10, 80)
    times = resample(10, seed=0, draws=20)
    for row, replicate in zip(times, weighted_auc(scores, positive, units, times), strict=True):
        items = np.repeat(np.arange(80), row[units].astype(int))
        assert replicate == pytest.approx(by_pairs(scores[items], positive[items]))


def test_a_draw_with_one_class_is_nan():
    times = np.array([[2.0, 0.0], [1.0, 1.0]])
    assert weighted_auc([0.9, 0.1], [True, False], [0, 1], times) == pytest.approx([np.nan, 1.0], nan_ok=True)


def test_one_class_has_no_auc():
    with pytest.raises(DataError, match="2 positives and 0 negatives"):
        auc([0.1, 0.2], [True, True])


def test_nan_is_refused():
    with pytest.raises(NonFiniteError):
        auc([0.1, np.nan], [True, False])


def test_areas_inside_units_are_those_of_their_items_alone():
    rng = np.random.default_rng(0)
    scores, positive, units = rng.integers(0, 5, 60), rng.random(60) < 0.4, rng.integers(0, 6, 60)
    found = unit_aucs(scores, positive, units, 7)
    for unit in range(6):
        mine = units == unit
        assert found[unit] == auc(scores[mine], positive[mine])
    assert np.isnan(found[6])  # of which there is no item
    assert np.isnan(unit_aucs([1.0, 2.0], [True, True], [0, 0], 1)).all()
