"""Metrics that are no numbers are refused."""

import math

import pytest

from freeprm.errors import NonFiniteError
from freeprm.io.finite import check_finite
from freeprm.types import Metric


def test_finite_metrics_pass():
    check_finite(Metric(metric="accuracy", value=0.5, low=None, high=0.6, count=2))


@pytest.mark.parametrize("field", ["value", "low", "high"])
def test_nan_and_infinity_are_refused_with_the_name_of_the_metric(field: str):
    for number in (math.nan, math.inf):
        bounds = {"value": 0.5, "low": 0.4, "high": 0.6, field: number}
        with pytest.raises(NonFiniteError, match=rf"accuracy \(ce, min\): {field} is {number}"):
            check_finite(Metric(metric="accuracy", scorer="ce", selector="min", count=3, **bounds))
