"""The mean over a table's columns (generators, N), with intervals over the problems that the columns share.

A problem that several generators answered is drawn for all of their columns at once, so that what its difficulty does
to all columns is in the interval; two methods get the same draws, so that it is not in that of their difference.
"""

from collections.abc import Mapping, Sequence

import numpy as np

from freeprm.core.intervals import Floats, Interval, percentile_interval, resample
from freeprm.errors import DataError

Column = Mapping[str, float]
"""Accuracy by problem, 0..1."""


def column_average(columns: Sequence[Column], *, seed: int) -> Interval:
    """The mean over columns of each column's mean over its problems, with its 95 % bootstrap interval over problems.

    Raises:
        DataError: a column without problems, or no column.
    """
    return _interval(_means(columns, seed=seed))


def average_difference(first: Sequence[Column], second: Sequence[Column], *, seed: int) -> Interval:
    """The average of one method less that of another, over the same problems in each column.

    Raises:
        DataError: the columns differ in number or in their problems.
    """
    if [set(column) for column in first] != [set(column) for column in second]:
        raise DataError("two methods were not measured on the same problems; expected the same columns of both")
    return _interval(_means(first, seed=seed) - _means(second, seed=seed))


def _means(columns: Sequence[Column], *, seed: int) -> Floats:
    """(1 + R,) the average, then what it is on each draw of the problems."""
    if not columns or not all(columns):
        raise DataError("a column without problems; expected at least one in each")
    problems = sorted({problem for column in columns for problem in column})
    times = resample(len(problems), seed=seed)  # (R, P)
    times = np.vstack([np.ones((1, len(problems))), times])  # (1 + R, P)
    total = np.zeros(len(times))
    for column in columns:
        there = np.array([problem in column for problem in problems], dtype=np.float64)  # (P,)
        values = np.array([column.get(problem, 0.0) for problem in problems])
        drawn = times @ there
        total += np.divide(times @ values, drawn, out=np.full(len(times), np.nan), where=drawn > 0)
    return total / len(columns)


def _interval(means: Floats) -> Interval:
    return percentile_interval(float(means[0]), means[1:])
