"""Metrics are finite, or are not written: a mean over nothing is no number."""

from math import isfinite

from freeprm.errors import NonFiniteError
from freeprm.types import Metric


def check_finite(metric: Metric) -> None:
    """Refuse NaN and infinity in a metric.

    Raises:
        NonFiniteError: names the metric and the field.
    """
    for name in ("value", "low", "high"):
        number = getattr(metric, name)
        if number is not None and not isfinite(number):
            named = ", ".join(str(part) for part in (metric.scorer, metric.selector, metric.group) if part is not None)
            raise NonFiniteError(
                f"metric {metric.metric}{f' ({named})' if named else ''}: {name} is {number}, over {metric.count}; "
                "expected a finite number, and no metric where there is nothing to measure"
            )
