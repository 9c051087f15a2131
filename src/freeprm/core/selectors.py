"""Selectors among n of a problem's samples, by any scorer, and their accuracies as metrics with intervals.

best_of_n/<aggregator> selects a response; majority and weighted_vote/<aggregator> select an answer. Each is right if
its selection is; on ties, with the share of tied ones that are right.

oracle is right if any response is, random with the share of responses that are. random_distinct_text is right with the
share of distinct texts among the n that are: the accuracy of a scorer that gives equal texts equal scores, as
deterministic ones do, and knows nothing inside a problem. Right answers repeat more often than wrong ones, so that is
mostly below random.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import combinations
from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from freeprm.core.intervals import Interval, bootstrap, paired_difference
from freeprm.core.rewards import aggregator
from freeprm.core.voting import (
    Flags,
    Floats,
    Indices,
    Weighting,
    best_of_n_chances,
    distinct_text_accuracies,
    draw_subsets,
    pass_at_k,
    uniform,
    vote_chances,
)
from freeprm.errors import DataError, FreePRMError
from freeprm.types import Metric, Rollout

UNNAMED = "scores"
"""Name of a scorer without a name in rows."""
WHOLE = "score"
"""In place of an aggregator, for scorers with one score a response."""


class Sample(NamedTuple):
    """One response, with the rows of all of its scorers."""

    rollout: Rollout
    """Without scores."""
    scored: Mapping[str, Rollout]
    """By scorer."""


class SampleScores(NamedTuple):
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
    """(N,) from 0, equal for equal texts."""
    groups: NDArray[np.int64]
    """(N,) from 0, equal for equal answers."""
    has_answer: NDArray[np.bool_]
    """(N,) False without an answer: such a response never votes."""
    correct: NDArray[np.bool_]
    """(N,) the response's label; an unknown one counts as not correct."""
    answer_correct: NDArray[np.bool_]
    """(N,) the label of the response's answer: the majority of known labels in its group, not correct on ties."""
    n_mixed_answers: int
    """Groups of equal answers whose labels disagree."""
    scores: Mapping[tuple[str, str], SampleScores]
    """By scorer and aggregator."""


def merge_scorers(rollouts: Sequence[Rollout]) -> list[list[Sample]]:
    """The samples of each problem, in order of first appearance; samples in order of `sample_idx`.

    Several scorers may have scored the same responses, in rows of their own; a response counts once.

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
        samples: N of one problem, with `pred` and `correct` if known.
        aggregators: names of `rewards.AGGREGATORS`, for step scores.
        key: answer -> a key that is equal for equal answers, None for no answer.

    Raises:
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
    """The row's name in messages."""
    scorer = f", scorer {row.scorer!r}" if row.scorer else ""
    return f"problem {row.problem_id!r}, sample {row.sample_idx}{scorer}"


def _scores(samples: Sequence[Sample], aggregators: Sequence[str]) -> dict[tuple[str, str], SampleScores]:
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
        key: SampleScores(np.array(list(values), dtype=np.int64), np.array(list(values.values()), dtype=np.float64))
        for key, values in found.items()
    }


# Selection among candidates.

Subsets = Literal["resample", "first"]


class Selector(NamedTuple):
    """A way of choosing, and the scorer whose scores it uses, if any."""

    scorer: str | None
    name: str


class Chosen(NamedTuple):
    """The choice of a selector among one problem's samples."""

    samples: Indices
    """(M,) the samples it chose among, 0..N-1."""
    chances: Floats
    """(M,) chance of each: in a vote, of the first voter for the winning answer."""
    right: Flags
    """(M,) whether choosing it is right."""
    tied: float
    """Chance of a tie; see `voting.Chances`."""

    @property
    def accuracy(self) -> float:
        """Chance that the choice is right; no choice counts as wrong."""
        return float(self.chances[self.right].sum())

    @property
    def sample(self) -> int | None:
        """The sample to return: the most likely, the first of equals; None if none is chosen."""
        best = self._best
        return int(self.samples[best]) if self.chances[best] > 0 else None

    @property
    def is_right(self) -> bool:
        """Whether that sample is right."""
        return self.sample is not None and bool(self.right[self._best])

    @property
    def _best(self) -> int:
        return int(self.chances.argmax())


def choose(
    problem: Candidates,
    n: int | None,
    *,
    weigh: Mapping[str, Weighting],
    subsets: Subsets = "resample",
    draws: int = 256,
    seed: int = 0,
) -> dict[Selector, Chosen]:
    """Majority vote, and for each scorer and aggregator best-of-n and weighted vote.

    Args:
        problem: the samples.
        n: samples to choose among; None: all. A scorer with fewer scored samples is left out.
        weigh: by scorer, scores of those who vote together -> weights.
        subsets: `resample`: the mean over random subsets of n, `first`: the first n samples.
        draws, seed: of random subsets for a vote, if there are more than `draws`.
    """
    nobody = SampleScores(np.arange(len(problem.rollouts)), np.zeros(len(problem.rollouts)))
    columns: list[tuple[str | None, str, SampleScores]] = [(None, "majority", nobody)]
    columns += [(scorer, name, scores) for (scorer, name), scores in problem.scores.items()]
    found: dict[Selector, Chosen] = {}
    for scorer, name, (samples, values) in columns:
        if n is not None and len(samples) < n:
            continue
        if subsets == "first":
            samples, values = samples[:n], values[:n]
        size = len(samples) if n is None else n
        vote = vote_chances(
            problem.groups[samples],
            problem.has_answer[samples],
            values,
            weigh=uniform if scorer is None else weigh[scorer],
            subsets=draw_subsets(len(samples), size, draws=draws, seed=seed),
        )
        voted = Chosen(samples, vote.samples, problem.answer_correct[samples], vote.tied)
        if scorer is None:
            found[Selector(None, name)] = voted
            continue
        best = best_of_n_chances(values, size, texts=problem.texts[samples])
        found[Selector(scorer, f"best_of_n/{name}")] = Chosen(
            samples, best.samples, problem.correct[samples], best.tied
        )
        found[Selector(scorer, f"weighted_vote/{name}")] = voted
    return found


def bounds(
    problem: Candidates, sizes: Sequence[int], *, subsets: Subsets = "resample", draws: int = 256, seed: int = 0
) -> dict[int, dict[Selector, float]]:
    """Accuracies of oracle, random and random_distinct_text for each n, 1..N; see the head of this file."""
    if subsets == "first":
        parts = [(problem.texts[:n], problem.correct[:n], n) for n in sizes]
        blind = [distinct_text_accuracies(*part[:2], [part[2]], draws=draws, seed=seed)[0] for part in parts]
    else:
        parts = [(problem.texts, problem.correct, n) for n in sizes]
        blind = distinct_text_accuracies(problem.texts, problem.correct, sizes, draws=draws, seed=seed)
    return {
        n: {
            Selector(None, "oracle"): pass_at_k(len(correct), int(correct.sum()), n),
            Selector(None, "random"): float(correct.mean()),
            Selector(None, "random_distinct_text"): null,
        }
        for (_, correct, n), null in zip(parts, blind, strict=True)
    }


# Accuracies and their differences, as metrics.


class SelectorAtN(NamedTuple):
    """A selector and the number of samples."""

    selector: Selector
    n: int


Table = Mapping[SelectorAtN, Mapping[str, float]]
"""Accuracy, 0..1, of each problem with at least n samples."""


def accuracy_metrics(
    table: Table,
    *,
    metric: str = "accuracy",
    seed: int,
    problems: frozenset[str] | None = None,
    group: str | None = None,
) -> Iterator[Metric]:
    """The mean of each cell over `problems`, by default all; `group` names them, as `column=value`."""
    for (selector, n), by_problem in table.items():
        values = [value for problem, value in by_problem.items() if problems is None or problem in problems]
        if values:
            yield _metric(metric, selector, n, bootstrap(values, seed=seed), count=len(values), seed=seed, group=group)


def difference_metrics(table: Table, *, seed: int) -> Iterator[Metric]:
    """Every selector with scores minus majority vote, then scorer minus scorer with the same selector.

    If one scorer has step scores and the other one score a response, each aggregator is compared with the latter.
    """
    scored = [cell for cell in table if cell.selector.scorer is not None]
    for cell in scored:
        vote = SelectorAtN(Selector(None, "majority"), cell.n)
        yield from _difference(
            table, cell, vote, Selector(cell.selector.scorer, f"{cell.selector.name} - majority"), seed
        )
    for first, second in combinations(scored, 2):
        a, b = first.selector, second.selector
        if first.n != second.n or a.scorer == b.scorer or not _comparable(a.name, b.name):
            continue
        name = a.name if a.name == b.name else f"{a.name} - {b.name}"
        yield from _difference(table, first, second, Selector(f"{a.scorer} - {b.scorer}", name), seed)


def problems_by_value(values: Mapping[str, object], column: str) -> dict[str, frozenset[str]]:
    """`column=value` -> the problems with that value, in order of the values as text."""
    found: dict[str, set[str]] = {}
    for problem, value in values.items():
        found.setdefault(f"{column}={value}", set()).add(problem)
    return {group: frozenset(found[group]) for group in sorted(found)}


def _comparable(a: str, b: str) -> bool:
    (kind, _, how), (other_kind, _, other_how) = a.partition("/"), b.partition("/")
    return kind == other_kind and (how == other_how or WHOLE in (how, other_how))


def _difference(table: Table, first: SelectorAtN, second: SelectorAtN, named: Selector, seed: int) -> Iterator[Metric]:
    shared = [problem for problem in table[first] if problem in table.get(second, {})]
    if shared:
        interval = paired_difference([table[first][p] for p in shared], [table[second][p] for p in shared], seed=seed)
        yield _metric("accuracy_difference", named, first.n, interval, count=len(shared), seed=seed, group=None)


def _metric(
    name: str, selector: Selector, n: int, interval: Interval, *, count: int, seed: int, group: str | None
) -> Metric:
    return Metric(
        metric=name,
        value=interval.value,
        low=interval.low,
        high=interval.high,
        count=count,
        scorer=selector.scorer,
        selector=selector.name,
        n=n,
        seed=seed,
        group=group,
    )
