"""Names and numbers as a reader sees them: metrics, selectors, values with their units, intervals."""

from freeprm.types import Metric

ACCURACY = "accuracy"
PASS = "pass_at_k"
TIED = "tied"
_DIFFERENCE = "_difference"
_FAMILIES = {
    "best_of_n": "best-of-N",
    "majority": "majority vote",
    "oracle": "oracle",
    "random": "random choice",
    "random_distinct_text": "random distinct text",
    "pass_at_k": "pass@N, any right",
}
_AGGREGATORS = {"score": "by its one score", "last": "last step"}
_WORDS = {"f1": "F1", "auc": "AUC", "kl": "KL", "ece": "ECE", "processbench": "ProcessBench"}


def selector_label(selector: str) -> str:
    """`best_of_n/min` -> `best-of-N, min over steps`; `best_of_n/min - majority` -> `... − majority vote`."""
    first, minus, second = selector.partition(" - ")
    if minus:
        return f"{selector_label(first)} − {selector_label(second)}"
    family, _, aggregator = selector.partition("/")
    text = _FAMILIES.get(family, family.replace("_", " "))
    return f"{text}, {_AGGREGATORS.get(aggregator, f'{aggregator} over steps')}" if aggregator else text


def metric_label(metric: Metric) -> str:
    """`processbench_f1` at `threshold=dev` -> `ProcessBench F1, % (threshold=dev)`."""
    text = " ".join(_WORDS.get(word, word) for word in metric.metric.removesuffix(_DIFFERENCE).split("_"))
    unit = "" if not is_share(metric) else ", points" if is_difference(metric) else ", %"
    decided = f" ({metric.selector})" if metric.selector else ""
    return text[:1].upper() + text[1:] + unit + decided


def value_text(metric: Metric) -> str:
    """The value alone: a share in percent, a difference in points with its sign, or the plain number."""
    return _number(metric, metric.value)


def interval_text(metric: Metric) -> str:
    """`[57.2, 64.8]`, in the unit of `value_text`; empty where there is no interval."""
    if metric.low is None or metric.high is None:
        return ""
    return f"[{_number(metric, metric.low)}, {_number(metric, metric.high)}]"


def is_difference(metric: Metric) -> bool:
    """A paired difference of two of the kind before the suffix."""
    return metric.metric.endswith(_DIFFERENCE)


def is_share(metric: Metric) -> bool:
    """Read in percent: accuracies, F1 and the like; an AUC, a threshold or a loss is read as it is."""
    name = metric.metric.removesuffix(_DIFFERENCE)
    return name.startswith(("accuracy", PASS)) or name == TIED or name.endswith(("accuracy", "f1"))


def signed(value: float, digits: int = 1) -> str:
    """A number with its sign, `+` included, and a real minus."""
    return f"{round(value, digits) + 0.0:+.{digits}f}".replace("-", "−")  # + 0.0: no negative zero


def _number(metric: Metric, value: float) -> str:
    if is_difference(metric):
        return signed(100 * value) if is_share(metric) else signed(value, 3)
    if is_share(metric):
        return f"{100 * value:.1f}"
    plain = f"{value:.3f}" if 0.001 <= abs(value) < 100 or value == 0 else f"{value:.4g}"
    return plain.replace("-", "−")
