"""Selections by models of several seeds on the same problems: `python scripts/results_seeds.py SELECTION [...]`.

Each SELECTION is a run folder of `freeprm select`. A problem's accuracy is the mean over the folders; intervals are
95 %, over the problems, so they say nothing of other seeds: those stand one by one beside the mean.
"""

import json
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

from freeprm.core.intervals import Interval, bootstrap, paired_difference

_MAJORITY = "majority"


class Way(NamedTuple):
    """How a response is chosen."""

    scorer: str | None
    selector: str
    n: int


def main() -> None:
    folders = [Path(argument) for argument in sys.argv[1:]]
    seeds = [accuracies(folder) for folder in folders]
    ways = [way for way in seeds[0] if all(way in seed for seed in seeds)]
    print(
        f"| chosen by, {len(seeds)} seeds | accuracy, % | less majority, points | of each seed |\n" + "| --- " * 4 + "|"
    )
    for way in ways:
        problems = sorted(set.intersection(*(set(seed[way]) for seed in seeds)))
        means = [sum(seed[way][problem] for seed in seeds) / len(seeds) for problem in problems]
        majority = [seeds[0][Way(None, _MAJORITY, way.n)][problem] for problem in problems]
        of_each = [100 * sum(map(seed[way].__getitem__, problems)) / len(problems) for seed in seeds]
        each = ", ".join(f"{accuracy:.1f}" for accuracy in of_each)
        name = " ".join(filter(None, (way.scorer, way.selector))) + f", N = {way.n}"
        print(f"| {name} | {percent(bootstrap(means))} | {percent(paired_difference(means, majority))} | {each} |")


def accuracies(folder: Path) -> dict[Way, Mapping[str, float]]:
    """Way -> problem -> accuracy."""
    found: dict[Way, dict[str, float]] = {}
    for line in (folder / "accuracies.jsonl").read_text(encoding="utf-8").splitlines():
        row = json.loads(line)
        found.setdefault(Way(row["scorer"], row["selector"], row["n"]), {})[row["problem_id"]] = row["accuracy"]
    return dict(found)


def percent(interval: Interval) -> str:
    value, low, high = (100 * part for part in interval)
    return f"{value:.1f} [{low:.1f}, {high:.1f}]"


if __name__ == "__main__":
    main()
