"""Guided searches beside best-of-N and majority vote at equal generated tokens, as a table.

    python scripts/results_search.py SAMPLES OUT SEARCH [SEARCH ...]

SAMPLES are plain samples of the same problems with scores by the same reward model (`freeprm score`), OUT a folder for
intermediate runs, each SEARCH a run folder of `freeprm search`. Beside each search stands the choice among the N plain
samples that take as many tokens as it, to the nearest N: their mean over random subsets. Differences are paired over
the problems, with 95 % intervals over them. A search is graded and chosen among as any rollouts are.
"""

import argparse
from collections.abc import Mapping
from pathlib import Path

from freeprm.core.intervals import bootstrap, paired_difference
from freeprm.errors import DataError, RecordError
from freeprm.io.files import read_rows
from freeprm.stages.base import RunResult
from freeprm.stages.grading import grade
from freeprm.stages.selection import select
from results_seeds import Way, accuracies, percent


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("samples", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("searches", nargs="+", type=Path)
    arguments = parser.parse_args()
    per_sample, most = samples_of(arguments.samples)
    head = (
        "search", "tokens", "solutions", "best, %", "vote, %", "N", "best less best-of-N", "vote less vote",
        "vote less majority",
    )  # fmt: skip
    print("| " + " | ".join(head) + " |\n" + "| --- " * len(head) + "|")
    for folder in arguments.searches:
        run = RunResult.load(folder)
        (tokens,) = run.metrics
        n = min(most, max(1, round(tokens.value / per_sample)))
        graded = grade(run, out=arguments.out / folder.name / "graded")
        k = max(row["sample_idx"] for row in graded.rows("rollouts")) + 1
        found = accuracies(select(graded, n=[k], out=arguments.out / folder.name / "selection").folder)
        plain = accuracies(select(arguments.samples, n=[n], out=arguments.out / f"plain-{n}").folder)
        best, vote = (_of(found, f"{name}/min", k) for name in ("best_of_n", "weighted_vote"))
        others = [_of(plain, name, n) for name in ("best_of_n/min", "weighted_vote/min", "majority")]
        pairs = ((best, others[0]), (vote, others[1]), (vote, others[2]))
        cells = (
            folder.name, f"{tokens.value:,.0f} [{tokens.low:,.0f}, {tokens.high:,.0f}]", str(k),
            percent(bootstrap(list(best.values()))), percent(bootstrap(list(vote.values()))), str(n),
            *(percent(_difference(*pair)) for pair in pairs),
        )  # fmt: skip
        print("| " + " | ".join(cells) + " |", flush=True)


def samples_of(folder: Path) -> tuple[float, int]:
    """Mean of tokens generated, and samples a problem."""
    counts: list[int] = []
    most = 0
    for _, row in read_rows(folder):
        if isinstance(row, RecordError):
            raise row
        counts.append(row["n_generated_tokens"])
        most = max(most, row["sample_idx"] + 1)
    return sum(counts) / len(counts), most


def _of(found: Mapping[Way, Mapping[str, float]], selector: str, n: int) -> Mapping[str, float]:
    """The accuracies of a selector, by problem."""
    return next(of for way, of in found.items() if way.selector == selector and way.n == n)


def _difference(one: Mapping[str, float], other: Mapping[str, float]):  # type: ignore[no-untyped-def]
    if one.keys() != other.keys():
        raise DataError("the search has other problems than the samples; expected the same")
    return paired_difference(list(one.values()), [other[problem] for problem in one])


if __name__ == "__main__":
    main()
