"""`freeprm reproduce`: the runs of every seed as one graph, then each claim's tests over them, and the report.

out/seed-0/...     the runs of a seed, as `freeprm compare` makes them
out/verify         the propositions, by enumeration
out/claims.json    every test with its value, interval, verdict and the runs behind it
out/report.md, out/report.html
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

from freeprm.errors import DataError
from freeprm.experiments.comparison.running import planned
from freeprm.experiments.comparison.settings import Comparison, Folders
from freeprm.experiments.comparison.tables import total_cost
from freeprm.experiments.graph import PlannedRun, make_runs
from freeprm.experiments.reproduction.claims import Claim, missing, single_tests
from freeprm.experiments.reproduction.measuring import SeedRuns, differing
from freeprm.experiments.reproduction.presets import Preset, check_data, narrowed
from freeprm.experiments.reproduction.report import Judged, Report, write_report
from freeprm.experiments.reproduction.verdicts import Outcome, judged, verdict_of
from freeprm.io.runs import RunFolder
from freeprm.stages.base import RunResult
from freeprm.stages.verifying import verify
from freeprm.types import Metric


@dataclass(frozen=True, slots=True, kw_only=True)
class Reproduced(RunResult):
    """What the claims came to; its folder holds report.md, report.html and claims.json."""

    claims: list[Judged]


def reproduce(
    preset: Preset, claims: Sequence[Claim], *, out: Path, seeds: Sequence[int], workers: int, command: str
) -> Reproduced:
    """Make the runs that the claims need, and test the claims on them.

    The folder is one of the same rollouts; claims, methods and seeds may be added to it later.

    Args:
        preset: what they are tested on.
        claims: which; those that the preset cannot test are reported so.
        out: the folder of all run folders.
        seeds: each with problems, samples and training of its own.
        workers: processes that make runs side by side.
        command: the command line, for the report.

    Raises:
        ConfigError: no claim can be tested, or rollouts that are given are not there.
    """
    comparison = narrowed(preset.comparison, claims)
    check_data(preset)
    with RunFolder(out, stage="reproduce", settings={"preset": preset.name, **comparison.shared()}) as run:
        if run.complete:
            run.reopen()  # claims, methods or seeds may have been added
        runs = list(all_runs(comparison, out, seeds))
        make_runs(runs, out=out, workers=workers, description="reproduce", ended=run.save_time)
        measured = [
            SeedRuns(comparison, Folders(seed_folder(out, seed)), seed, verification=out / "verify") for seed in seeds
        ]
        found = [_judge(claim, preset, measured) for claim in claims]
        metrics = [_metric(judged.claim, outcome) for judged in found for outcome in judged.outcomes]
        run.write_metrics(metrics)
        counts = {
            "claims": len(found), "seeds": len(seeds), "runs": len(runs),
            **{name: sum(judged.verdict == name for judged in found) for name in ("holds", "fails", "undecided")},
            "not tested": sum(judged.verdict == "not tested" for judged in found),
        }  # fmt: skip
        cost = run.finish(cost=total_cost(Folders(out)), counts=counts)
        report = Report(preset=preset, comparison=comparison, command=command, seeds=measured, claims=found, cost=cost)
        write_report(report, out)
    return Reproduced(folder=out, metrics=metrics, counts=counts, cost=cost, operations=[], claims=found)


def all_runs(comparison: Comparison, out: Path, seeds: Sequence[int]) -> Iterator[PlannedRun]:
    """The runs of all seeds, and the enumeration of the propositions."""
    yield PlannedRun(folder=out / "verify", stage=partial(verify, seed=0))
    for seed in seeds:
        for run in planned(comparison, Folders(seed_folder(out, seed)), seed=seed):
            log = run.log or "-".join(run.folder.relative_to(seed_folder(out, seed)).parts)
            yield replace(run, log=f"seed-{seed}-{log}")


def seed_folder(out: Path, seed: int) -> Path:
    """Where a seed's runs are."""
    return out / f"seed-{seed}"


def _judge(claim: Claim, preset: Preset, seeds: Sequence[SeedRuns]) -> Judged:
    lost = ", ".join(missing(claim, preset.comparison))
    why = f"the preset {preset.name} has no {lost}" if lost else ""
    try:
        outcomes = tuple(
            judged(test, [differing(runs, test) for runs in seeds]) for test in single_tests(claim, preset.comparison)
        )
    except DataError as error:  # after hours of runs, it must not hide what the other claims came to
        return Judged(claim=claim, verdict="not tested", outcomes=(), why=str(error))
    return Judged(claim=claim, verdict=verdict_of(outcomes), outcomes=outcomes, why=why)


def _metric(claim: Claim, outcome: Outcome) -> Metric:
    test = outcome.test
    return Metric(
        metric=f"{claim.name}/{test.measure}", value=outcome.value, low=outcome.low, high=outcome.high,
        count=outcome.n, scorer=str(test.first) if test.second is None else f"{test.first} - {test.second}",
        n=test.n, group=None if test.generators == "together" else f"generator={test.generators}",
    )  # fmt: skip
