from math import log

import pytest

from freeprm.objectives.ce import CE
from freeprm.objectives.osv import OSV


def test_osv_holds_the_value_after_every_step_against_the_outcome(batch_of):
    # Values log 3, 0 of a wrong response: -log(1 - 3/4) = log 4, log 2. Value -log 3 of a right one: log 4.
    batch = batch_of([[log(3), -log(3)], [-log(3)]], [False, True], steps=[[0, 1], [2]])
    assert OSV().losses(batch).tolist() == pytest.approx([(log(4) + log(2)) / 2, log(4)])


def test_osv_may_take_the_squared_error_of_the_probability(batch_of):
    # Probabilities 3/4 and 1/2 of a wrong response, 1/4 of a right one.
    batch = batch_of([[log(3), -log(3)], [-log(3)]], [False, True], steps=[[0, 1], [2]])
    losses = OSV(squared_error=True).losses(batch)
    assert losses.tolist() == pytest.approx([(0.75**2 + 0.5**2) / 2, 0.75**2])


def test_osv_of_one_step_is_ce(batch_of):
    batch = batch_of([[1.0, 0.5], [-2.0]], [True, False], steps=[[0, 0], [1]])
    assert OSV().losses(batch).tolist() == pytest.approx(CE().losses(batch).tolist())
