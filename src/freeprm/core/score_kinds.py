"""Kinds of scores, the weights of votes that follow from them, and scores from the outputs of classifiers.

Log-odds become probabilities by the sigmoid, as in the paper's code. Probabilities are weights unchanged: the sigmoid
would map them to 0.5..0.73, nearly a plain majority. Of any other score neither zero nor scale has a meaning, and the
sigmoid of large scores would be 1 for all above 0, so they are standardised among the voters.

Which class of a classifier means "right", and whether its numbers are probabilities, logits or scores, is declared and
not guessed; numbers that contradict the declaration are refused.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple, get_args

from freeprm.core.selectors import UNNAMED, named
from freeprm.core.voting import sigmoid
from freeprm.core.voting import weighting as weighting_named
from freeprm.errors import ConfigError, DataError
from freeprm.types import Rollout

ScoreKind = Literal["log_odds", "probability", "unbounded"]
"""log_odds: 0 is even, and the sigmoid the probability of being right; unbounded: any number."""
WEIGHTING_OF: Mapping[ScoreKind, str] = {"log_odds": "sigmoid", "probability": "raw", "unbounded": "standardised"}
BY_KIND = "by_kind"
"""The weighting of the kind."""
COLUMN = "score_kind"


def probability(score: float, kind: ScoreKind | None) -> float | None:
    """The probability of being right that a score states; None of one that states none."""
    if kind == "log_odds":
        return float(sigmoid([score])[0])
    return score if kind == "probability" else None


class Weighed(NamedTuple):
    """How a scorer's scores become the weights of its votes."""

    weighting: str
    """A name in `core.voting.WEIGHTINGS`."""
    why: str
    n_rows: int


def check_kinds(kinds: str | Mapping[str, str], weighting: str) -> dict[str, ScoreKind]:
    """The caller's kinds by scorer; "" stands for all scorers.

    Args:
        kinds: a kind for all scorers, or for each by name; empty to leave it to the rows.
        weighting: a name in `core.voting.WEIGHTINGS`, or `BY_KIND`.

    Raises:
        ConfigError: no such kind or weighting, or both are given.
    """
    if weighting != BY_KIND:
        weighting_named(weighting)
        if kinds:
            raise ConfigError(
                f"score_kinds: they decide the weighting, which is given as {weighting!r}; give one of both"
            )
    if isinstance(kinds, str):
        return {"": _kind_named(kinds)} if kinds else {}
    return {scorer: _kind_named(kind) for scorer, kind in kinds.items()}


def weightings(rollouts: Sequence[Rollout], *, weighting: str, kinds: Mapping[str, ScoreKind]) -> dict[str, Weighed]:
    """The weighting of each scorer's scores, by the caller's kind, else by the rows' kind, else by their range.

    Scores without a kind are taken for probabilities if all are in 0..1, else for unbounded.

    Args:
        rollouts: of all scorers.
        weighting: a name for all scorers, or `BY_KIND`.
        kinds: see `check_kinds`.

    Raises:
        ConfigError: an unknown scorer.
        DataError: a scorer's rows have several kinds, or an unknown one; or probabilities are not in 0..1.
    """
    by_scorer: dict[str, list[Rollout]] = {}
    for row in rollouts:
        if row.step_scores or row.score is not None:
            by_scorer.setdefault(row.scorer or UNNAMED, []).append(row)
    if unknown := sorted({*kinds} - {""} - {*by_scorer}):
        raise ConfigError(f"score_kinds: no scorer {unknown[0]!r}; there are {', '.join(by_scorer) or 'none'}")
    found = {}
    for scorer, rows in by_scorer.items():
        if weighting != BY_KIND:
            found[scorer] = Weighed(weighting, "as told", len(rows))
        else:
            kind, why = _kind(rows, kinds.get(scorer, kinds.get("")))
            found[scorer] = Weighed(WEIGHTING_OF[kind], f"scores are {kind}, {why}", len(rows))
    return found


def _kind_named(name: str) -> ScoreKind:
    found: ScoreKind | None = next((kind for kind in WEIGHTING_OF if kind == name.replace("-", "_")), None)
    if found is None:
        raise ConfigError(f"score_kinds: there is no {name!r}; expected one of {', '.join(WEIGHTING_OF)}")
    return found


def _kind(rows: Sequence[Rollout], declared: ScoreKind | None) -> tuple[ScoreKind, str]:
    """The kind of one scorer's scores, and how it is known."""
    recorded = {row.extra.get(COLUMN) for row in rows}
    if declared is None and recorded == {None}:
        if _outside(rows, 0.0) is None:
            return "probability", "as all are in 0..1"
        return "unbounded", "as not all are in 0..1"
    kind: ScoreKind | None = declared or next((kind for kind in WEIGHTING_OF if {kind} == recorded), None)
    if kind is None:
        raise DataError(
            f"{named(rows[0])}: {COLUMN} is {', '.join(sorted(map(repr, recorded)))} in the rows of its scorer; "
            f"expected one of {', '.join(WEIGHTING_OF)}, the same in all of them. Say which with score_kinds"
        )
    if kind == "probability" and (row := _outside(rows, ROUNDING)) is not None:
        raise DataError(
            f"{named(row)}: a score is not in 0..1, but scores are told to be probabilities; say what they are with "
            "score_kinds"
        )
    return kind, "as told" if declared else "as their rows say"


def _outside(rows: Sequence[Rollout], rounding: float) -> Rollout | None:
    """The first row with a score that is no probability."""
    for row in rows:
        scores = (*(row.step_scores or ()), *(() if row.score is None else (row.score,)))
        if min(scores) < -rounding or max(scores) > 1 + rounding:
            return row
    return None


# Scores from the outputs of a classifier.

Values = Literal["probabilities", "logits", "scores"]
MAX_CLASSES = 32
"""More numbers at one position are a hidden state or logits of a vocabulary."""
ROUNDING = 0.01
"""Tolerance of the sum of probabilities: bfloat16 keeps 8 bits."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Meaning:
    """The meaning of a classifier's outputs."""

    good: int | str | None = None
    """The class of right steps or responses: its index from 0, or its label if outputs name labels."""
    values: Values = "probabilities"
    """`logits` go through the softmax over the classes (the sigmoid for a single class); `probabilities` and `scores`,
    which may be any number, are unchanged."""

    def __post_init__(self) -> None:
        if self.values not in get_args(Values):
            raise ConfigError(f"values: is {self.values!r}; expected one of {', '.join(get_args(Values))}")


class ClassScores(NamedTuple):
    """Step scores, or one score of the response."""

    steps: tuple[float, ...] | None
    """(K,)"""
    response: float | None


def class_scores(outputs: Any, meaning: Meaning) -> ClassScores:
    """The scores in the outputs for one response.

    Args:
        outputs: K lists of C numbers, one a step; or K `{"entity": label, "score": p}` of a token-classification
            pipeline; or C numbers for the response, bare or as its `{"probs": ...}`; or its `{"score": x}`; or any
            of these as `{"data": ...}`.

    Raises:
        ConfigError: there are several classes, and `good` does not name one of them.
        DataError: the outputs are none of these, not finite, or not what `meaning` says.
    """
    if isinstance(outputs, Mapping):
        return _of_item(outputs, meaning)
    if isinstance(outputs, str):
        raise DataError("holds text; ask the server for encoding_format 'float'")
    if not isinstance(outputs, Sequence):
        return ClassScores(None, _score([outputs], meaning))
    if not outputs:
        raise DataError("holds no numbers at all: no step marker was found in the scored text")
    if isinstance(outputs[0], Mapping):
        return ClassScores(_of_entities(outputs, meaning), None)
    if isinstance(outputs[0], Sequence) and not isinstance(outputs[0], str):
        return ClassScores(_of_steps(outputs, meaning), None)
    return ClassScores(None, _score(outputs, meaning))


def _of_item(item: Mapping[str, Any], meaning: Meaning) -> ClassScores:
    for name in ("data", "probs", "score"):
        if item.get(name) is not None:
            return class_scores(item[name], meaning)
    raise DataError(f"has {', '.join(map(str, item)) or 'nothing'}; expected one of data, probs, score")


def _of_steps(steps: Sequence[Any], meaning: Meaning) -> tuple[float, ...]:
    widths = {len(step) if isinstance(step, Sequence) else None for step in steps}
    if len(widths) != 1 or None in widths:
        raise DataError("holds lists of different lengths; expected a list of as many classes for each step")
    return tuple(_score(step, meaning) for step in steps)


def _of_entities(items: Sequence[Any], meaning: Meaning) -> tuple[float, ...]:
    """The probability of the good one of two labels; the output is that of the likelier one."""
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
