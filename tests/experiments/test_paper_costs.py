"""The paper's ratios: those that follow from its inputs, and what the others would take."""

import random

import pytest

from freeprm.experiments import paper_costs as paper
from freeprm.experiments.paper_costs import RESPONSES


def test_the_ratios_to_dpo_are_reproduced_from_those_to_ce_and_one_number():
    # 2 v = sum (r-1) y / sum (r-1)^2 with y = 38.8/146.5, 38.6/49.9, 38.8/21.3 = .2648, .7735, 1.8216:
    # (.2648 + 3 * .7735 + 7 * 1.8216) / 59 = .2599, and 38.8 / .2599 = 149.3.
    assert paper.fitted_variance(paper.published_dpo_over_ce()) == pytest.approx(0.1300, abs=1e-4)
    assert [round(ratio, 1) for ratio in paper.reproduced_shepherd_over_dpo()] == [149.3, 49.5, 21.3]
    for ratio, published in zip(paper.reproduced_shepherd_over_dpo(), paper.SHEPHERD_OVER_DPO, strict=True):
        assert ratio == pytest.approx(published, rel=0.02)


def test_the_formula_is_the_mean_number_of_pairs():
    rng = random.Random(0)
    chances = [rng.random() for _ in range(2000)]
    variance = sum(p * (1 - p) for p in chances) / len(chances)
    for r in RESPONSES:
        right = [sum(rng.random() < p for _ in range(r)) for p in chances]
        sequences = 2 * sum(n * (r - n) for n in right)
        assert sequences / (r * len(chances)) == pytest.approx(paper.dpo_over_ce(r, variance=variance), rel=0.03)


def test_the_fit_finds_the_number_that_made_the_ratios():
    assert paper.fitted_variance([paper.dpo_over_ce(r, variance=0.2) for r in RESPONSES]) == pytest.approx(0.2)


def test_rollouts_were_not_charged_to_dpo():
    # A charge for the rollouts, which CE has too, would lift DPO's ratio where there are no pairs, at r = 1.
    assert abs(paper.fitted_intercept(paper.published_dpo_over_ce())) < 0.001


def test_the_pairs_that_the_ratios_take():
    found = [paper.implied_pairs(x, r) for x, r in zip(paper.published_dpo_over_ce(), RESPONSES, strict=True)]
    assert found == pytest.approx([8_725, 50_964, 240_028], abs=1)


def test_what_is_stated_gives_less_than_38_8():
    # 80 rollouts of one length at 2 P, trained at 6 P: (160 + 6) / 6; with rollouts of 0.45 lengths (72 + 6) / 6.
    assert paper.derivable_ratio(per_token=6) == pytest.approx(27.7, abs=0.05)
    assert paper.derivable_ratio(per_token=8) == 21
    assert paper.derivable_ratio(per_token=6, length=0.45) == pytest.approx(13)


@pytest.mark.parametrize(("per_token", "response"), [(6, 546), (8, 410), (10, 328)])
def test_38_8_takes_62_thousand_generated_tokens_a_response_whatever_ce_is_charged(per_token: float, response: float):
    implied = paper.implied_tokens(per_token=per_token)
    assert implied.response == pytest.approx(response, abs=0.5)
    assert implied.generated == pytest.approx(61_919, abs=1)
    assert implied.rollout == pytest.approx(774, abs=0.5)
    # and those tokens give the ratio back: (2 * 61,919 + c L) / (c L)
    trained = per_token * implied.response
    assert (2 * implied.generated + trained) / trained == pytest.approx(38.8)


def test_table_3s_printed_baseline_is_its_share_of_the_larger_total():
    for column in paper.TABLE_3:
        assert column.implicit_total == pytest.approx(100 + column.implicit)
        assert column.baseline_from_total == pytest.approx(column.implicit / 2, abs=0.3)
        assert column.baseline == pytest.approx(100 * column.baseline_from_total / column.implicit_total, abs=0.06)
