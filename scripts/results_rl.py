"""Policies that `freeprm rl` trained, beside each other: accuracy against steps over seeds, as a table and a figure.

    python scripts/results_rl.py --figure docs/images/rl.png NAME=RUN,RUN,... NAME=RUN,RUN,... ...

Each NAME is a way to train with its runs, one a seed; runs of the same seed stand beside each other and have the same
held-out problems. Shares of right responses are means over seeds, with 95 % intervals over the problems of all seeds;
differences with the first NAME are paired by problem and seed.
"""

import argparse
from collections.abc import Mapping, Sequence
from pathlib import Path

from freeprm.core.intervals import bootstrap, paired_difference
from freeprm.errors import DataError
from freeprm.stages.base import RunResult
from results_seeds import percent

Shares = Mapping[int, list[float]]
"""Step -> share of right responses to each problem of each seed, in one order."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("ways", nargs="+", help="NAME=RUN,RUN,...")
    parser.add_argument("--figure", type=Path)
    arguments = parser.parse_args()
    ways = {name: shares_of(runs.split(",")) for name, _, runs in (way.partition("=") for way in arguments.ways)}
    first = next(iter(ways))
    steps = sorted(next(iter(ways.values())))
    _print_table(["right, %", *(f"after {step} steps" for step in steps)], {
        name: [percent(bootstrap(shares[step])) for step in steps] for name, shares in ways.items()
    })  # fmt: skip
    later = steps[1:]
    _print_table([f"less {first}", *(f"after {step} steps" for step in later)], {
        name: [percent(paired_difference(shares[step], ways[first][step])) for step in later]
        for name, shares in ways.items() if name != first
    })  # fmt: skip
    if arguments.figure:
        figure(ways, steps, arguments.figure)


def _print_table(head: Sequence[str], rows: Mapping[str, Sequence[str]]) -> None:
    print("| " + " | ".join(head) + " |\n" + "| --- " * len(head) + "|")
    for name, cells in rows.items():
        print("| " + " | ".join([name, *cells]) + " |")
    print()


def shares_of(runs: Sequence[str]) -> Shares:
    """The evaluations of runs of one way, seed after seed."""
    found: dict[int, list[float]] = {}
    for run in runs:
        for row in sorted(RunResult.load(run).rows("evaluations"), key=lambda row: (row["step"], row["problem_id"])):
            found.setdefault(row["step"], []).append(row["right"] / row["n"])
    if len({len(shares) for shares in found.values()}) > 1:
        raise DataError(f"{runs[0]}: its runs were evaluated after other steps, or on other numbers of problems")
    return found


def figure(ways: Mapping[str, Shares], steps: Sequence[int], file: Path) -> None:
    """Accuracy against steps, with bands of 95 %."""
    from matplotlib import pyplot

    plot, axes = pyplot.subplots(figsize=(6, 3.6), layout="constrained")
    for (name, shares), marker in zip(ways.items(), "osd^v<>", strict=False):
        values, lows, highs = zip(*(bootstrap(shares[step]) for step in steps), strict=True)
        (line,) = axes.plot(steps, [100 * value for value in values], marker=marker, label=name)
        low, high = ([100 * bound for bound in bounds] for bounds in (lows, highs))
        axes.fill_between(steps, low, high, color=line.get_color(), alpha=0.12)
    axes.set(xlabel="steps", ylabel="right, %", xticks=steps)
    axes.legend(frameon=False)
    plot.savefig(file, dpi=120)


if __name__ == "__main__":
    main()
