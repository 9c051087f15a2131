"""What a scorer's scores are, and the weights in a vote that follow from it.

Log-odds become probabilities by the sigmoid, as in the paper's code. Probabilities are weights as they are: the sigmoid
would leave 0.5 to 0.73 of them, nearly a plain majority. Of anything else neither the zero nor the scale means
anything, and the sigmoid of large scores would be 1 for all above 0, so they are standardised among those who vote.
"""

from collections.abc import Mapping, Sequence
from typing import Literal, NamedTuple

from freeprm.core.candidates import UNNAMED, named
from freeprm.core.class_outputs import ROUNDING
from freeprm.core.voting import weighting as weighting_named
from freeprm.errors import ConfigError, DataError
from freeprm.types import Rollout

ScoreKind = Literal["log_odds", "probability", "unbounded"]
"""log_odds: 0 is even, and the sigmoid the probability of being right; unbounded: any number."""
WEIGHTING_OF: Mapping[ScoreKind, str] = {"log_odds": "sigmoid", "probability": "raw", "unbounded": "standardised"}
BY_KIND = "by_kind"
"""Stands for the weighting that follows from the kind."""
COLUMN = "score_kind"
"""In which rows say it."""


class Weighed(NamedTuple):
    """How a scorer's scores become the weights of its votes."""

    weighting: str
    """A name in `core.voting.WEIGHTINGS`."""
    why: str
    n_rows: int


def check_kinds(told: str | Mapping[str, str], weighting: str) -> dict[str, ScoreKind]:
    """What a caller says of scores, by scorer; of all by "".

    Args:
        told: a kind for all scorers, or for each by name; "" or nothing leaves it to the rows.
        weighting: a name in `core.voting.WEIGHTINGS`, or `BY_KIND`.

    Raises:
        ConfigError: no such kind or weighting, or both are given.
    """
    if weighting != BY_KIND:
        weighting_named(weighting)
        if told:
            raise ConfigError(
                f"score_kinds: they decide the weighting, which is given as {weighting!r}; give one of both"
            )
    if isinstance(told, str):
        return {"": _kind_named(told)} if told else {}
    return {scorer: _kind_named(kind) for scorer, kind in told.items()}


def weightings(rollouts: Sequence[Rollout], *, weighting: str, told: Mapping[str, ScoreKind]) -> dict[str, Weighed]:
    """By scorer, how its scores are weighed: by what is told of them, else by what its rows say, else by their range.

    Scores of which nobody says anything are taken for probabilities where all are in 0..1, else for unbounded.

    Args:
        rollouts: with scores or without.
        weighting: a name that goes for all scorers, or `BY_KIND`.
        told: as from `check_kinds`.

    Raises:
        ConfigError: a scorer that is none.
        DataError: rows of a scorer say several things, or what is no kind; or probabilities are not in 0..1.
    """
    by_scorer: dict[str, list[Rollout]] = {}
    for row in rollouts:
        if row.step_scores or row.score is not None:
            by_scorer.setdefault(row.scorer or UNNAMED, []).append(row)
    if strange := sorted({*told} - {""} - {*by_scorer}):
        raise ConfigError(f"score_kinds: no scorer {strange[0]!r}; there are {', '.join(by_scorer) or 'none'}")
    found = {}
    for scorer, rows in by_scorer.items():
        if weighting != BY_KIND:
            found[scorer] = Weighed(weighting, "as told", len(rows))
        else:
            kind, why = _kind(rows, told.get(scorer, told.get("")))
            found[scorer] = Weighed(WEIGHTING_OF[kind], f"scores are {kind}, {why}", len(rows))
    return found


def _kind_named(name: str) -> ScoreKind:
    found: ScoreKind | None = next((kind for kind in WEIGHTING_OF if kind == name.replace("-", "_")), None)
    if found is None:
        raise ConfigError(f"score_kinds: there is no {name!r}; expected one of {', '.join(WEIGHTING_OF)}")
    return found


def _kind(rows: Sequence[Rollout], told: ScoreKind | None) -> tuple[ScoreKind, str]:
    """The kind of one scorer's scores, and how it is known."""
    said = {row.extra.get(COLUMN) for row in rows}
    if told is None and said == {None}:
        if _outside(rows, 0.0) is None:
            return "probability", "as all are in 0..1"
        return "unbounded", "as not all are in 0..1"
    kind: ScoreKind | None = told or next((kind for kind in WEIGHTING_OF if {kind} == said), None)
    if kind is None:
        raise DataError(
            f"{named(rows[0])}: {COLUMN} is {', '.join(sorted(map(repr, said)))} in the rows of its scorer; expected "
            f"one of {', '.join(WEIGHTING_OF)}, the same in all of them. Say which with score_kinds"
        )
    if kind == "probability" and (row := _outside(rows, ROUNDING)) is not None:
        raise DataError(
            f"{named(row)}: a score is not in 0..1, but scores are told to be probabilities; say what they are with "
            "score_kinds"
        )
    return kind, "as told" if told else "as their rows say"


def _outside(rows: Sequence[Rollout], rounding: float) -> Rollout | None:
    """The first row with a score that is no probability."""
    for row in rows:
        scores = (*(row.step_scores or ()), *(() if row.score is None else (row.score,)))
        if min(scores) < -rounding or max(scores) > 1 + rounding:
            return row
    return None
