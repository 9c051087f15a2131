"""What a classifier gave for a response, as numbers for each class -> one score a step, or one for the response.

Which class means "right", and whether the numbers are probabilities, logits or scores, is said and not guessed; numbers
that cannot be what was said are refused.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple, get_args

from freeprm.errors import ConfigError, DataError

Values = Literal["probabilities", "logits", "scores"]
MAX_CLASSES = 32
"""More numbers than this at one place are a hidden state or a vocabulary, and not classes."""
ROUNDING = 0.01
"""By how much probabilities may miss a sum of 1: bfloat16 keeps 8 bits."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Meaning:
    """What the numbers mean."""

    good: int | str | None = None
    """The class of right steps or responses: its index from 0, or its label where outputs name labels."""
    values: Values = "probabilities"
    """`probabilities` stay as they are, `logits` go through the softmax over the classes (of one class, through the
    sigmoid), `scores` stay as they are and may be any number."""

    def __post_init__(self) -> None:
        if self.values not in get_args(Values):
            raise ConfigError(f"values: is {self.values!r}; expected one of {', '.join(get_args(Values))}")


class Scored(NamedTuple):
    """One of the two."""

    steps: tuple[float, ...] | None
    """(K,) where there were numbers for each step."""
    response: float | None


def scored(outputs: Any, meaning: Meaning) -> Scored:
    """The scores in the outputs for one response.

    Args:
        outputs: K lists of C numbers, one a step; or K `{"entity": label, "score": p}` of a token-classification
            pipeline; or C numbers for the response, bare or as its `{"probs": ...}`; or its `{"score": x}`; or any
            of these as `{"data": ...}`.
        meaning: of the numbers.

    Raises:
        ConfigError: there are several classes, and `good` does not name one of them.
        DataError: the outputs are none of these, not finite, or not what `meaning` says.
    """
    if isinstance(outputs, Mapping):
        return _of_item(outputs, meaning)
    if isinstance(outputs, str):
        raise DataError("holds text; ask the server for encoding_format 'float'")
    if not isinstance(outputs, Sequence):
        return Scored(None, _score([outputs], meaning))
    if not outputs:
        raise DataError("holds no numbers at all: no step marker was found in the scored text")
    if isinstance(outputs[0], Mapping):
        return Scored(_of_entities(outputs, meaning), None)
    if isinstance(outputs[0], Sequence) and not isinstance(outputs[0], str):
        return Scored(_of_steps(outputs, meaning), None)
    return Scored(None, _score(outputs, meaning))


def _of_item(item: Mapping[str, Any], meaning: Meaning) -> Scored:
    for name in ("data", "probs", "score"):
        if item.get(name) is not None:
            return scored(item[name], meaning)
    raise DataError(f"has {', '.join(map(str, item)) or 'nothing'}; expected one of data, probs, score")


def _of_steps(steps: Sequence[Any], meaning: Meaning) -> tuple[float, ...]:
    widths = {len(step) if isinstance(step, Sequence) else None for step in steps}
    if len(widths) != 1 or None in widths:
        raise DataError("holds lists of different lengths; expected a list of as many classes for each step")
    return tuple(_score(step, meaning) for step in steps)


def _of_entities(items: Sequence[Any], meaning: Meaning) -> tuple[float, ...]:
    """Of two labels, the probability of the good one: what is told is that of the likelier."""
    labels = {str(item.get("entity")) for item in items if isinstance(item, Mapping)}
    if not isinstance(meaning.good, str):
        raise ConfigError(f"good: is {meaning.good!r}; expected the label of right steps, such as {max(labels)!r}")
    if len(labels | {meaning.good}) > 2:
        raise DataError(
            f"names the labels {', '.join(sorted(labels))}, and {meaning.good} is good; expected two labels"
        )
    found = []
    for item in items:
        if not isinstance(item, Mapping) or "entity" not in item:
            raise DataError("holds something else than {entity, score} of a token-classification pipeline")
        (probability,) = _probabilities([item.get("score")])
        found.append(probability if item["entity"] == meaning.good else 1 - probability)
    return tuple(found)


def _score(classes: Sequence[Any], meaning: Meaning) -> float:
    if len(classes) > MAX_CLASSES:
        raise DataError(
            f"has {len(classes)} numbers at one place; expected one for each class. These are hidden states or the "
            "logits of a language model: serve the model as a classifier, and a language model with returned_token_ids"
        )
    numbers = _probabilities(classes) if meaning.values == "probabilities" else _finite(classes)
    good = _good(len(numbers), meaning)
    if meaning.values != "logits":
        return numbers[good]
    others = [number - numbers[good] for number in numbers] if len(numbers) > 1 else [0.0, -numbers[0]]
    top = max(others)
    return math.exp(-top) / math.fsum(math.exp(other - top) for other in others)  # 1 / sum of exp(others)


def _good(n_classes: int, meaning: Meaning) -> int:
    if n_classes == 1 and meaning.good in (None, 0):
        return 0
    if not isinstance(meaning.good, int) or not 0 <= meaning.good < n_classes:
        raise ConfigError(
            f"good: is {meaning.good!r}; expected the index of the class that means right, 0 to {n_classes - 1}"
        )
    return meaning.good


def _probabilities(values: Sequence[Any]) -> list[float]:
    numbers = _finite(values)
    total = math.fsum(numbers)
    if not all(-ROUNDING <= number <= 1 + ROUNDING for number in numbers) or (
        len(numbers) > 1 and abs(total - 1) > ROUNDING
    ):
        shown = ", ".join(f"{number:g}" for number in numbers[:4])
        raise DataError(
            f"holds {shown}, which are no probabilities of classes; if no softmax was applied, say values=logits, and "
            "values=scores for what is a score as it stands"
        )
    return numbers


def _finite(values: Sequence[Any]) -> list[float]:
    numbers = []
    for value in values:
        if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
            raise DataError(f"holds {str(value)[:40]!r}; expected finite numbers")
        numbers.append(float(value))
    if not numbers:
        raise DataError("holds a list without numbers; expected one for each class")
    return numbers
