"""The mean over a table's columns, and its interval over problems."""

import pytest

from freeprm.errors import DataError
from freeprm.experiments.comparison.averages import average_difference, column_average


def test_it_is_the_mean_of_the_columns_means():
    # (1 + 0) / 2 = 0.5 and (1 + 1 + 0.5 + 0.5) / 4 = 0.75; their mean is 0.625, not that of the six values
    columns = [{"a": 1.0, "b": 0.0}, {"a": 1.0, "b": 1.0, "c": 0.5, "d": 0.5}]
    assert column_average(columns, seed=0).value == pytest.approx(0.625)


def test_a_column_repeated_changes_nothing_because_its_problems_are_drawn_together():
    column = {str(index): float(index % 3 == 0) for index in range(30)}
    assert column_average([column] * 9, seed=1) == pytest.approx(column_average([column], seed=1))


def test_columns_that_err_on_opposite_problems_have_no_uncertainty():
    first = {str(index): float(index % 2) for index in range(20)}
    second = {problem: 1 - value for problem, value in first.items()}
    assert column_average([first, second], seed=0) == pytest.approx((0.5, 0.5, 0.5))


def test_a_constant_difference_is_certain_however_the_problems_differ():
    first = {str(index): index / 40 for index in range(20)}
    second = {problem: value + 0.25 for problem, value in first.items()}
    assert average_difference([second, second], [first, first], seed=0) == pytest.approx((0.25, 0.25, 0.25))


def test_other_problems_are_refused():
    with pytest.raises(DataError, match="not measured on the same problems"):
        average_difference([{"a": 1.0}], [{"b": 1.0}], seed=0)
    with pytest.raises(DataError, match="a column without problems"):
        column_average([{"a": 1.0}, {}], seed=0)
