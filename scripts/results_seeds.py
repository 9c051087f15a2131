"""Selections by models of several seeds on the same problems.

    python scripts/results_seeds.py SELECTION [SELECTION ...] [--less SELECTION]

Each SELECTION is a run folder of `freeprm select`. A problem's accuracy is the mean over the folders; intervals are
95 %, over the problems, so they say nothing of other seeds: those stand one by one beside the mean. Differences are
paired over the problems: with the majority vote, and with the same selector in another folder.
"""

import argparse
from pathlib import Path
from typing import NamedTuple

from freeprm.core.intervals import Interval, bootstrap, paired_difference
from freeprm.errors import RecordError
from freeprm.io.files import read_rows

_MAJORITY = "majority"


class Way(NamedTuple):
    """How a response is chosen."""

    scorer: str | None
    selector: str
    n: int


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("selections", nargs="+", type=Path)
    parser.add_argument("--less", type=Path, help="another selection, on the same problems")
    arguments = parser.parse_args()
    seeds = [accuracies(folder) for folder in arguments.selections]
    others = {way[1:]: of for way, of in accuracies(arguments.less).items()} if arguments.less else {}
    print(f"| chosen by, {len(seeds)} seeds | accuracy, % | less majority | less the other's | of each seed |")
    print("| --- " * 5 + "|")
    for way in (way for way in seeds[0] if all(way in seed for seed in seeds)):
        problems = list(seeds[0][way])
        means = [sum(seed[way][problem] for seed in seeds) / len(seeds) for problem in problems]
        differences = [
            percent(paired_difference(means, [of[problem] for problem in problems])) if of else ""
            for of in (seeds[0][Way(None, _MAJORITY, way.n)], others.get(way[1:]))
        ]
        of_each = [100 * sum(map(seed[way].__getitem__, problems)) / len(problems) for seed in seeds]
        name = " ".join(filter(None, (way.scorer, way.selector))) + f", N = {way.n}"
        each = ", ".join(f"{accuracy:.1f}" for accuracy in of_each)
        print("| " + " | ".join([name, percent(bootstrap(means)), *differences, each]) + " |")


def accuracies(folder: Path) -> dict[Way, dict[str, float]]:
    """Way -> problem -> accuracy."""
    found: dict[Way, dict[str, float]] = {}
    for _, row in read_rows(folder / "accuracies.jsonl"):
        if isinstance(row, RecordError):
            raise row
        found.setdefault(Way(row["scorer"], row["selector"], row["n"]), {})[row["problem_id"]] = row["accuracy"]
    return found


def percent(interval: Interval) -> str:
    value, low, high = (100 * part for part in interval)
    return f"{value:.1f} [{low:.1f}, {high:.1f}]"


if __name__ == "__main__":
    main()
