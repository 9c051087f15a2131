"""How right each way of choosing is, when it chooses among n of a problem's samples.

best_of_n/<aggregator> returns a response, and is right where that response is; majority and
weighted_vote/<aggregator> return an answer, and are right where the answer is; oracle is right where any
response is, random as often as responses are.
"""

from typing import Literal, NamedTuple

import numpy as np

from freeprm.core.candidates import Candidates, Scores
from freeprm.core.subsets import Flags, Indices, best_of_n_chances, draw_subsets, vote_chances
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

    @property
    def accuracy(self) -> float:
        """Chance that the choice is right; no choice, where no response has an answer, is not."""
        return float(self.chances[self.right].sum())

    @property
    def sample(self) -> int | None:
        """The sample chosen (the likeliest where there are several), None where none is."""
        best = int(self.chances.argmax())
        return int(self.samples[best]) if self.chances[best] > 0 else None


def choose(
    problem: Candidates,
    n: int | None,
    *,
    weigh: Weighting,
    subsets: Subsets = "resample",
    draws: int = 256,
    seed: int = 0,
) -> dict[Selector, Choice]:
    """Majority vote, and by each scorer and aggregator best-of-n and weighted vote.

    Args:
        problem: N samples.
        n: samples to choose among; None: all. A scorer with fewer scored samples is left out.
        weigh: scores of those who vote together -> weights.
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
            weigh=weigh if scorer else uniform,
            subsets=draw_subsets(len(samples), size, draws=draws, seed=seed),
        )
        voted = Choice(samples, vote, problem.answer_correct[samples])
        if scorer is None:
            found[Selector(None, name)] = voted
            continue
        best = best_of_n_chances(values, size)
        found[Selector(scorer, f"best_of_n/{name}")] = Choice(samples, best, problem.correct[samples])
        found[Selector(scorer, f"weighted_vote/{name}")] = voted
    return found


def bounds(problem: Candidates, n: int, *, subsets: Subsets = "resample") -> dict[Selector, float]:
    """What the best and the blindest choice among n samples would get: oracle and random.

    Raises:
        DataError: fewer than n samples.
    """
    correct = problem.correct[:n] if subsets == "first" else problem.correct
    oracle = pass_at_k(len(correct), int(correct.sum()), n)
    return {Selector(None, "oracle"): oracle, Selector(None, "random"): float(correct.mean())}
