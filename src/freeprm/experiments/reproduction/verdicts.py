"""From what the seeds say to a verdict: holds, fails, or undecided with the problems that it would take.

A test is a number with its 95 % interval. Draws are of seeds, and inside each of problems, so that both what problems
and what training runs differ by is in the interval; of one seed, problems alone. Seeds that are tested on the same
problems have the same draws of them.

    expected                    holds where            fails where
    above: more than b          low > b                high < b + least
    not_below: b or more        low > b - least        high < b

and mirrored for `below` and `not_above`; the first that applies counts. `least` is the smallest difference that
matters: a narrow interval around nothing is against a claim of a gain, and for one of no loss. Fewer than `FEWEST`
problems decide nothing, as intervals by bootstrap are too narrow there. A number without an interval, such as a ratio
of FLOPs, decides by itself.

A claim holds if all of its tests do, which needs no correction for their number (an intersection-union test: each must
pass at its own level). It fails if one does. Over all tests of a report, those that would be decided in the same way
with Holm's correction are marked.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import ceil, erfc, log10, sqrt
from typing import Literal

import numpy as np

from freeprm.core.intervals import Floats, percentile_interval
from freeprm.experiments.reproduction.claims import ClaimTest, Expected
from freeprm.experiments.reproduction.measuring import Draws, bound_of, measure_of

Verdict = Literal["holds", "fails", "undecided", "not tested"]
LEVEL = 0.025
"""Of each end of an interval."""
FEWEST = 30
"""Problems, over all seeds."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """A test, measured."""

    test: ClaimTest
    value: float
    low: float | None
    """None where there is no interval."""
    high: float | None
    n: int
    """Problems, over all seeds."""
    by_seed: tuple[float, ...]
    verdict: Verdict
    needed: int | None
    """Problems at which an undecided test would be decided if the value stayed what it is; None where it is decided, or
    the value is on the bound."""
    p: float | None
    """One-sided, of the decision; None where there is none, or no interval."""


def judged(test: ClaimTest, seeds: Sequence[Draws]) -> Outcome:
    """What the seeds together say.

    Args:
        test: with one first side.
        seeds: the same number by each.
    """
    measure = measure_of(test.measure)
    values = tuple(draws.value for draws in seeds)
    problems = {draws.problems for draws in seeds}
    value, n = float(np.mean(values)), len(frozenset().union(*problems))
    bound = bound_of(test)
    least = measure.least if test.least is None else test.least
    replicates = pooled(seeds)
    if replicates is None:
        verdict: Verdict = "holds" if _as_expected(value, bound, test.expect) else "fails"
        return Outcome(
            test=test, value=value, low=None, high=None, n=n, by_seed=values, verdict=verdict, needed=None, p=None
        )
    _, low, high = percentile_interval(value, replicates)
    found = _decision(value, low, high, bound=bound, least=least, expect=test.expect)
    spread = float(np.nanstd(replicates))
    verdict = found.verdict if n >= FEWEST else "undecided"
    needed = _needed(n, (high - low) / 2, found.distance) if verdict == "undecided" else None
    return Outcome(
        test=test, value=value, low=low, high=high, n=n, by_seed=values, verdict=verdict,
        needed=None if needed is None else max(needed, FEWEST),
        p=_tail(found.distance / spread) if verdict != "undecided" and spread else None,
    )  # fmt: skip


def pooled(seeds: Sequence[Draws]) -> Floats | None:
    """(R,) means over seeds that are drawn with replacement, each on a draw of its problems; None without any draws."""
    drawn = [draws.replicates for draws in seeds if draws.replicates is not None]
    if len(drawn) < 2:
        return drawn[0] if drawn else None
    table = np.stack(drawn)  # (S, R)
    n_seeds, n_draws = table.shape
    generator = np.random.default_rng(n_seeds)
    chosen = generator.integers(0, n_seeds, (n_draws, n_seeds))
    if len({draws.problems for draws in seeds}) == 1:  # what one draw of them does to all seeds is not averaged away
        on_draws = np.repeat(np.arange(n_draws)[:, None], n_seeds, axis=1)
    else:
        on_draws = generator.integers(0, n_draws, chosen.shape)
    means: Floats = table[chosen, on_draws].mean(axis=1)
    return means


def verdict_of(outcomes: Sequence[Outcome]) -> Verdict:
    """Of a claim: it holds if every test does, and fails if one does."""
    found = {outcome.verdict for outcome in outcomes}
    if not found:
        return "not tested"
    return "fails" if "fails" in found else "holds" if found == {"holds"} else "undecided"


def firm(outcomes: Sequence[Outcome]) -> list[bool]:
    """For each test whether it would be decided with Holm's correction over all that are tested by an interval."""
    known = sorted((outcome.p, index) for index, outcome in enumerate(outcomes) if outcome.p is not None)
    tested = sum(outcome.low is not None for outcome in outcomes)
    stands = [False] * len(outcomes)
    for rank, (p, index) in enumerate(known):
        if p > LEVEL / (tested - rank):
            break
        stands[index] = True
    return stands


@dataclass(frozen=True, slots=True)
class _Found:
    verdict: Verdict
    distance: float
    """From the value to the bound that decided, or to the farther of those that may."""


def _decision(value: float, low: float, high: float, *, bound: float, least: float, expect: Expected) -> _Found:
    if expect in ("below", "not_above"):
        value, low, high, bound = -value, -high, -low, -bound
    holds_from, fails_below = (bound, bound + least) if expect in ("above", "below") else (bound - least, bound)
    if low > holds_from:
        return _Found("holds", value - holds_from)
    if high < fails_below:
        return _Found("fails", fails_below - value)
    return _Found("undecided", max(value - holds_from, fails_below - value))


def _as_expected(value: float, bound: float, expect: Expected) -> bool:
    stands: Mapping[Expected, bool] = {
        "above": value > bound, "below": value < bound, "not_above": value <= bound, "not_below": value >= bound,
    }  # fmt: skip
    return stands[expect]


def _needed(n: int, half: float, distance: float) -> int | None:
    """Problems at which half an interval is the distance, to two digits."""
    if distance <= 0:
        return None
    exact = n * (half / distance) ** 2
    step: int = 10 ** max(0, int(log10(max(exact, 1))) - 1)
    return ceil(exact / step) * step


def _tail(z: float) -> float:
    """The chance that a standard normal number is above z."""
    return erfc(z / sqrt(2)) / 2
