"""Responses gathered by problem, whoever scored them: what a selector chooses from.

Several scorers may have scored the same responses, in rows of their own; a response counts once.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from freeprm.core.aggregate import aggregator
from freeprm.errors import DataError, FreePRMError
from freeprm.types import Rollout

UNNAMED = "scores"
"""What a scorer is called whose rows do not name it."""
WHOLE = "score"
"""What stands for an aggregator where a scorer gives one score a response."""


class Sample(NamedTuple):
    """One response, with the rows of all who scored it."""

    rollout: Rollout
    """Without scores."""
    scored: Mapping[str, Rollout]
    """By scorer."""


class Scores(NamedTuple):
    """One score for each of M of a problem's N samples."""

    samples: NDArray[np.int64]
    """(M,) ascending, 0..N-1."""
    values: NDArray[np.float64]
    """(M,)"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Candidates:
    """A problem's N samples, ready to be chosen from."""

    problem_id: str
    rollouts: tuple[Rollout, ...]
    """In order of `sample_idx`."""
    texts: NDArray[np.int64]
    """(N,) from 0, equal where responses are the same text."""
    groups: NDArray[np.int64]
    """(N,) from 0, equal where answers are equal."""
    has_answer: NDArray[np.bool_]
    """(N,) False where there is no answer: such a response never votes."""
    correct: NDArray[np.bool_]
    """(N,) the response's label; an unknown one counts as not correct."""
    answer_correct: NDArray[np.bool_]
    """(N,) the label of the response's answer: what most known labels in its group say, not correct on ties."""
    n_mixed_answers: int
    """Groups of equal answers whose labels disagree."""
    scores: Mapping[tuple[str, str], Scores]
    """By scorer and aggregator."""


def merge_scorers(rollouts: Sequence[Rollout]) -> list[list[Sample]]:
    """The samples of each problem, in order of first appearance; samples in order of `sample_idx`.

    Raises:
        DataError: rows of one sample disagree on its response or label; names the sample.
    """
    rows: dict[str, dict[int, list[Rollout]]] = {}
    for rollout in rollouts:
        rows.setdefault(rollout.problem_id, {}).setdefault(rollout.sample_idx, []).append(rollout)
    return [[_merged(samples[index]) for index in sorted(samples)] for samples in rows.values()]


def candidates(
    samples: Sequence[Sample], *, aggregators: Sequence[str], key: Callable[[str | None], str | None]
) -> Candidates:
    """One problem's samples as candidates.

    Args:
        samples: N of one problem, with `pred` and `correct` as far as they can be known.
        aggregators: names of `aggregate.AGGREGATORS`, applied to step scores.
        key: answer -> what is equal for equal answers, None for no answer.

    Raises:
        ConfigError: no such aggregator.
        DataError, NonFiniteError: step scores that an aggregator refuses; names the sample.
    """
    rollouts = tuple(sample.rollout for sample in samples)
    keys = [key(rollout.pred) for rollout in rollouts]
    numbers = {name: number for number, name in enumerate(dict.fromkeys(keys))}
    groups = np.array([numbers[name] for name in keys])
    texts = {text: number for number, text in enumerate(dict.fromkeys(rollout.response for rollout in rollouts))}
    right, wrong = (np.array([rollout.correct is label for rollout in rollouts]) for label in (True, False))
    n_right, n_wrong = (np.bincount(groups, weights=flags) for flags in (right, wrong))  # (G,)
    has_answer = np.array([name is not None for name in keys])
    mixed = (n_right > 0) & (n_wrong > 0)
    if None in numbers:
        mixed[numbers[None]] = False
    return Candidates(
        problem_id=rollouts[0].problem_id,
        rollouts=rollouts,
        texts=np.array([texts[rollout.response] for rollout in rollouts]),
        groups=groups,
        has_answer=has_answer,
        correct=right,
        answer_correct=(n_right > n_wrong)[groups] & has_answer,
        n_mixed_answers=int(mixed.sum()),
        scores=_scores(samples, aggregators),
    )


def _merged(rows: Sequence[Rollout]) -> Sample:
    first = rows[0]
    for row in rows:
        if row.response != first.response:
            raise DataError(
                f"{named(row)}: another response than in the row of {named(first)}; expected the same sample"
            )
    labels = {row.correct for row in rows} - {None}
    if len(labels) > 1:
        raise DataError(f"{named(first)}: correct in one row, not in another; grade the responses before scoring them")
    preds = [row.pred for row in rows if row.pred is not None]
    rollout = replace(
        first,
        scorer=None,
        step_scores=None,
        score=None,
        pred=preds[0] if preds else None,
        correct=next(iter(labels), None),
    )
    scored = {row.scorer or UNNAMED: row for row in rows if row.step_scores is not None or row.score is not None}
    return Sample(rollout, scored)


def named(row: Rollout) -> str:
    """What messages call a row."""
    scorer = f", scorer {row.scorer!r}" if row.scorer else ""
    return f"problem {row.problem_id!r}, sample {row.sample_idx}{scorer}"


def _scores(samples: Sequence[Sample], aggregators: Sequence[str]) -> dict[tuple[str, str], Scores]:
    found: dict[tuple[str, str], dict[int, float]] = {}
    functions = {name: aggregator(name) for name in aggregators}
    for index, sample in enumerate(samples):
        for scorer, row in sample.scored.items():
            if row.score is not None:
                found.setdefault((scorer, WHOLE), {})[index] = row.score
            if row.step_scores is None:
                continue
            for name, function in functions.items():
                try:
                    found.setdefault((scorer, name), {})[index] = function(row.step_scores)
                except FreePRMError as error:
                    raise type(error)(f"{named(row)}: {error}") from error
    return {
        key: Scores(np.array(list(values), dtype=np.int64), np.array(list(values.values()), dtype=np.float64))
        for key, values in found.items()
    }
