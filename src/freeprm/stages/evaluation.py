"""Evaluate: rows with step scores and the true first error in; how well the scores find it, out.

    out/metrics.json       ProcessBench F1 and its two accuracies, first-error accuracy, step and response AUC, with
                           95 % intervals over problems; paired differences of scorers on the same responses
    out/predictions.jsonl  a row for each response and scorer: the first error named, and the true one

The threshold comes from other responses than those reported on; `threshold=oracle`, fitted on the very
responses reported on, stands beside it as an upper bound and is not a result.
"""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np

from freeprm.core.aggregate import aggregator
from freeprm.core.candidates import UNNAMED, named
from freeprm.core.localisation import Estimate, Named, ScoredSteps, difference, estimates
from freeprm.core.step_metrics import fit_threshold, predict_first_error
from freeprm.errors import ConfigError, DataError
from freeprm.formats.scored import read_scored
from freeprm.io.formats import OnBad
from freeprm.io.jsonl import Row
from freeprm.io.runs import RunFolder, read_manifest, read_metrics
from freeprm.types import Cost, Metric, Rollout

Rows = dict[str, list[Rollout]]
"""By scorer."""


@dataclass(frozen=True, slots=True, kw_only=True)
class EvaluationResult:
    """What evaluation measured."""

    folder: Path
    metrics: list[Metric]
    counts: Mapping[str, int]
    """Responses reported on and fitted on, and what was left out, by reason."""


def evaluate(
    inputs: Sequence[Path],
    *,
    out: Path,
    dev: Sequence[Path] = (),
    threshold: float | None = None,
    dev_share: float = 0.3,
    columns: Mapping[str, str] | None = None,
    on_bad: OnBad = "raise",
    scores: Sequence[Path] = (),
    score_options: Mapping[str, Any] | None = None,
    aggregators: Sequence[str] = ("min",),
    by: Sequence[str] = (),
    seed: int = 0,
) -> EvaluationResult:
    """ProcessBench F1 at a threshold that was not fitted on what is reported, and what needs no threshold.

    Args:
        inputs: rows with `step_scores` and `first_error` (null: none), in any format; or with `first_error`, beside
            scores from elsewhere.
        out: run folder.
        dev: the like on other problems, to fit each scorer's threshold on.
        threshold: the threshold itself, for all scorers.
        dev_share: without either, the share of the problems to fit on, drawn at random; the rest is reported on.
        columns: our column name -> theirs.
        on_bad: stop at the first broken record, or leave it out and count it.
        scores: files of a server's answers on the inputs.
        score_options: what their numbers mean, or in which column of the inputs, and of `dev`, such outputs are; fields
            of `formats.attaching.ScoreOptions`.
        aggregators: step scores -> score, for the response AUC; names in `core.aggregate.AGGREGATORS`.
        by: columns to break metrics down by, e.g. `generator`.
        seed: of split and bootstrap.

    Raises:
        FreePRMError: see the errors of records, settings and data.
    """
    _check(dev, threshold, dev_share, aggregators)
    settings = {
        "dev": list(dev), "threshold": threshold, "dev_share": dev_share, "columns": dict(columns or {}),
        "on_bad": on_bad, "scores": list(scores), "score_options": dict(score_options or {}),
        "aggregators": list(aggregators), "by": list(by), "seed": seed,
    }  # fmt: skip
    with RunFolder(out, stage="evaluate", settings=settings, inputs=[*inputs, *dev, *scores]) as run:
        if run.complete:
            return EvaluationResult(folder=out, metrics=read_metrics(out), counts=(read_manifest(out) or {})["counts"])
        counts: Counter[str] = Counter()
        read = partial(_read, columns=columns, on_bad=on_bad, counts=counts)
        rows, fitted_on = read(inputs, scores=scores, options=score_options or {}), Rows()
        if dev:
            in_rows = score_options if score_options and "column" in score_options else {}
            fitted_on = read(dev, scores=(), options=in_rows)
            _refuse_shared_problems(rows, fitted_on)
        elif threshold is None:
            fitted_on, rows = _split(rows, dev_share, seed)
        source = "given" if threshold is not None else "dev" if dev else "split"
        counts["responses"] = sum(map(len, rows.values()))
        counts["responses that thresholds were fitted on"] = sum(map(len, fitted_on.values()))
        thresholds: dict[str, dict[str, float]] = {}
        metrics: list[Metric] = []
        for scorer, part in rows.items():
            fits = _fits(scorer, part, fitted_on.get(scorer, []), fit_needed=threshold is None, source=source)
            given = {} if threshold is None else {"threshold=given": threshold}
            thresholds[scorer] = {**given, **{str(fit.selector): fit.value for fit in fits}}
            metrics += fits
        for group, members in [(None, rows), *_groups(rows, by, counts)]:
            metrics += _metrics(members, thresholds, aggregators=aggregators, seed=seed, group=group, counts=counts)
        run.write_metrics(metrics)
        run.rewrite("predictions", _predictions(rows, thresholds, f"threshold={source}"))
        run.finish(cost=Cost(), counts=+counts)
    return EvaluationResult(folder=out, metrics=metrics, counts=+counts)


def _check(dev: Sequence[Path], threshold: float | None, dev_share: float, aggregators: Sequence[str]) -> None:
    for name in aggregators:
        aggregator(name)
    if dev and threshold is not None:
        raise ConfigError("dev and threshold are both given; a threshold is either fitted or given")
    if not 0 < dev_share < 1:
        raise ConfigError(f"dev_share is {dev_share}; expected a share between 0 and 1")


def _read(
    inputs: Sequence[Path], *, columns: Mapping[str, str] | None, on_bad: OnBad, counts: Counter[str],
    scores: Sequence[Path], options: Mapping[str, Any],
) -> Rows:  # fmt: skip
    elsewhere = bool(scores or options)
    require = ("response",) if elsewhere else ("response", "step_scores")
    read = read_scored(inputs, columns=columns, on_bad=on_bad, require=require, scores=scores, options=options)
    counts.update(read.skipped)
    rollouts = [row for row in read.rollouts if not elsewhere or row.step_scores is not None or row.score is not None]
    counts["without a score from elsewhere, left out"] += len(read.rollouts) - len(rollouts)
    rows: Rows = {}
    seen: set[tuple[str, int, str | None]] = set()
    for rollout in rollouts:
        flaw, key = _flaw(rollout), (rollout.problem_id, rollout.sample_idx, rollout.scorer)
        if key in seen:
            flaw = "is there twice; expected each response once by scorer"
        if flaw:
            if on_bad == "raise":
                raise DataError(f"{named(rollout)}: {flaw}")
            counts[f"skipped: {flaw.partition(';')[0]}"] += 1
            continue
        seen.add(key)
        counts["without label, left out of the response AUC"] += rollout.correct is None
        rows.setdefault(rollout.scorer or UNNAMED, []).append(rollout)
    if not rows:
        raise DataError(f"{', '.join(map(str, inputs))}: no response with step scores and a known first error")
    return rows


def _flaw(row: Rollout) -> str | None:
    """What keeps a row from being evaluated."""
    if not row.step_scores:
        whole = "; its score is for the whole response" if row.score is not None else "; score the responses first"
        return f"no step_scores{whole}"
    if "first_error" not in row.extra:
        return "no first_error; expected the 0-based index of the first wrong step, null where all are right"
    error = row.extra["first_error"]
    if error is not None and (isinstance(error, bool) or not isinstance(error, int) or error < 0):
        return f"first_error is {error!r}; expected a 0-based index, or null where all steps are right"
    if error is not None and error >= len(row.step_scores):
        return f"first_error is {error} with {len(row.step_scores)} step_scores; expected scores for the same steps"
    return None


def _refuse_shared_problems(rows: Rows, dev: Rows) -> None:
    shared = {row.problem_id for part in rows.values() for row in part} & {
        row.problem_id for part in dev.values() for row in part
    }
    if shared:
        raise DataError(
            f"dev shares {len(shared)} problems with the inputs, e.g. {min(shared)!r}; fit the threshold on others"
        )


def _split(rows: Rows, dev_share: float, seed: int) -> tuple[Rows, Rows]:
    """Dev and test, by problem, the same for all scorers."""
    problems = sorted({row.problem_id for part in rows.values() for row in part})
    n_dev = min(max(1, round(dev_share * len(problems))), len(problems) - 1)
    if n_dev < 1:
        raise DataError("one problem cannot be split; give dev or threshold")
    dev = {problems[index] for index in np.random.default_rng(seed).permutation(len(problems))[:n_dev]}

    def part_of(wanted: bool) -> Rows:
        return {scorer: [row for row in part if (row.problem_id in dev) is wanted] for scorer, part in rows.items()}

    return part_of(True), part_of(False)


def _fits(
    scorer: str, test: Sequence[Rollout], dev: Sequence[Rollout], *, fit_needed: bool, source: str
) -> list[Metric]:
    """The thresholds fitted for a scorer; the oracle's only where it is defined."""
    fits = []
    if fit_needed:
        if not dev or not test:
            lacking = "to report on" if dev else "to fit its threshold on"
            raise DataError(f"scorer {scorer!r} has no responses {lacking}; score the same ones with all scorers")
        try:
            fits.append(_fit(scorer, dev, source))
        except DataError as error:
            raise DataError(
                f"scorer {scorer!r}, threshold={source}: {error}; give more responses, or the threshold"
            ) from error
    if {row.extra["first_error"] is None for row in test} == {True, False}:
        fits.append(_fit(scorer, test, "oracle"))
    return fits


def _fit(scorer: str, rows: Sequence[Rollout], source: str) -> Metric:
    scored = _scored(rows)
    fitted = fit_threshold(scored.step_scores, scored.first_errors)
    return Metric(
        metric="threshold", value=fitted.value, count=len(rows), scorer=scorer, selector=f"threshold={source}"
    )


def _scored(rows: Sequence[Rollout]) -> ScoredSteps:
    return ScoredSteps(
        step_scores=[row.step_scores or () for row in rows],
        first_errors=[row.extra["first_error"] for row in rows],
        correct=[row.correct for row in rows],
        problems=[row.problem_id for row in rows],
    )


def _metrics(
    rows: Rows, thresholds: Mapping[str, Mapping[str, float]], *, aggregators: Sequence[str], seed: int,
    group: str | None, counts: Counter[str],
) -> Iterator[Metric]:  # fmt: skip
    found: dict[str, dict[Named, Estimate]] = {}
    for scorer, part in rows.items():
        found[scorer] = estimates(_scored(part), thresholds=thresholds[scorer], aggregators=aggregators, seed=seed)
        if Named("step_auc", None) not in found[scorer]:
            counts[f"without errors, or with nothing else: {scorer}, {group or 'all'}"] = len(part)
        for name, estimate in found[scorer].items():
            yield estimate.metric(name, scorer=scorer, seed=seed, group=group)
    for first, second in combinations(found, 2):
        if _keys(rows[first]) != _keys(rows[second]):
            counts[f"not the same responses, not compared: {first}, {second}"] = 1
            continue
        for name in [name for name in found[first] if name in found[second]]:
            gap = difference(found[first][name], found[second][name])
            renamed = Named(f"{name.metric}_difference", name.selector)
            yield gap.metric(renamed, scorer=f"{first} - {second}", seed=seed, group=group)


def _keys(rows: Sequence[Rollout]) -> set[tuple[str, int]]:
    return {(row.problem_id, row.sample_idx) for row in rows}


def _groups(rows: Rows, by: Sequence[str], counts: Counter[str]) -> Iterator[tuple[str, Rows]]:
    for column in by:
        values = sorted({str(row.extra[column]) for part in rows.values() for row in part if column in row.extra})
        if not values:
            known = ", ".join(sorted({name for part in rows.values() for row in part for name in row.extra}))
            raise ConfigError(f"by: no row has a column {column!r}; further columns there are: {known}")
        counts[f"responses without {column}"] = sum(column not in row.extra for part in rows.values() for row in part)
        for value in values:
            of_value = {
                scorer: [row for row in part if column in row.extra and str(row.extra[column]) == value]
                for scorer, part in rows.items()
            }
            yield f"{column}={value}", {scorer: part for scorer, part in of_value.items() if part}


def _predictions(rows: Rows, thresholds: Mapping[str, Mapping[str, float]], selector: str) -> Iterator[Row]:
    for scorer, part in rows.items():
        for row in part:
            yield {
                "problem_id": row.problem_id,
                "sample_idx": row.sample_idx,
                "scorer": scorer,
                "predicted_first_error": predict_first_error(row.step_scores or (), thresholds[scorer][selector]),
                "first_error": row.extra["first_error"],
            }
