"""How right each way of choosing is, when it chooses among n of a problem's samples.

best_of_n/<aggregator> returns a response, and is right where that response is; majority and
weighted_vote/<aggregator> return an answer, and are right where the answer is. Where several share the first place,
it is right as often as they are.

oracle is right where any response is, random as often as responses are. random_distinct_text is right as often as the
different texts among the n are: what a scorer gets that gives equal texts equal scores, as deterministic ones do, and
knows nothing inside a problem. Right answers repeat more often than wrong ones, so that is mostly below random.
"""

from collections.abc import Mapping, Sequence
from typing import Literal, NamedTuple

import numpy as np

from freeprm.core.candidates import Candidates, Scores
from freeprm.core.subsets import (
    Flags,
    Indices,
    best_of_n_chances,
    distinct_text_accuracies,
    draw_subsets,
    vote_chances,
)
from freeprm.core.voting import Floats, Weighting, pass_at_k, uniform

Subsets = Literal["resample", "first"]


class Selector(NamedTuple):
    """A way of choosing, with whose scores it chooses by (None: by nobody's)."""

    scorer: str | None
    name: str


class Choice(NamedTuple):
    """What a selector chooses from one problem's samples."""

    samples: Indices
    """(M,) the samples it chose among, 0..N-1."""
    chances: Floats
    """(M,) how often each is chosen: by a vote, as the first voter for the winning answer."""
    right: Flags
    """(M,) whether choosing it is right."""
    tied: float
    """How often it shares the first place, 0..1; see `subsets.Chances`."""

    @property
    def accuracy(self) -> float:
        """Chance that the choice is right; no choice, where no response has an answer, is not."""
        return float(self.chances[self.right].sum())

    @property
    def sample(self) -> int | None:
        """The sample that is handed out: the likeliest, the first of equals; None where none is chosen."""
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
) -> dict[Selector, Choice]:
    """Majority vote, and by each scorer and aggregator best-of-n and weighted vote.

    Args:
        problem: N samples.
        n: samples to choose among; None: all. A scorer with fewer scored samples is left out.
        weigh: by scorer, scores of those who vote together -> weights.
        subsets: `resample`: the mean over random subsets of n, `first`: the first n samples.
        draws: random subsets that a vote is taken on where there are more than so many.
        seed: of the random subsets.
    """
    nobody = Scores(np.arange(len(problem.rollouts)), np.zeros(len(problem.rollouts)))
    columns: list[tuple[str | None, str, Scores]] = [(None, "majority", nobody)]
    columns += [(scorer, name, scores) for (scorer, name), scores in problem.scores.items()]
    found: dict[Selector, Choice] = {}
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
        voted = Choice(samples, vote.samples, problem.answer_correct[samples], vote.tied)
        if scorer is None:
            found[Selector(None, name)] = voted
            continue
        best = best_of_n_chances(values, size, texts=problem.texts[samples])
        found[Selector(scorer, f"best_of_n/{name}")] = Choice(
            samples, best.samples, problem.correct[samples], best.tied
        )
        found[Selector(scorer, f"weighted_vote/{name}")] = voted
    return found


def bounds(
    problem: Candidates, sizes: Sequence[int], *, subsets: Subsets = "resample", draws: int = 256, seed: int = 0
) -> dict[int, dict[Selector, float]]:
    """What the best and the blindest choices among n samples would get, for each n; see the head of this file.

    Args:
        problem: N samples.
        sizes: n, each 1..N.
        subsets: as for `choose`, like the next two.

    Raises:
        DataError: fewer than n samples.
    """
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
