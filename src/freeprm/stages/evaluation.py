"""Evaluate: scored rows with the true first error or with outcome labels in; how well the scores predict them out.

    out/metrics.json       ProcessBench F1 and its two accuracies, first-error accuracy, step and response AUC, the
                           latter over all responses and inside problems, with 95 % intervals over problems; paired
                           differences of scorers on the same responses
    out/predictions.jsonl  a row for each response and scorer: the predicted and the true first error

Rows with step scores and `first_error` have metrics of steps; all rows with scores and a label, be it one score for
the response, have areas. Problems are split and drawn by their text (`core.intervals.problem_text`), whatever their
ids.

The threshold is fitted on other responses than those reported; `threshold=oracle`, fitted on the reported ones, is an
upper bound and no result.
"""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np

from freeprm.core.intervals import problem_text
from freeprm.core.rewards import aggregator
from freeprm.core.selectors import UNNAMED, WHOLE, named
from freeprm.core.step_metrics import (
    Estimate,
    MetricName,
    ScoredSteps,
    difference,
    estimates,
    fit_threshold,
    predict_first_error,
    response_areas,
)
from freeprm.errors import ConfigError, DataError
from freeprm.formats._attaching import read_scored
from freeprm.io.rows import OnBad, Row
from freeprm.io.runs import RunFolder
from freeprm.settings import EvaluateSettings
from freeprm.stages.base import RunResult, stage
from freeprm.types import Cost, Metric, Rollout

Rows = dict[str, list[Rollout]]
"""By scorer."""


@stage(EvaluateSettings)
def evaluate(inputs: Sequence[Path], settings: EvaluateSettings, out: Path) -> RunResult:
    """ProcessBench F1 at a threshold fitted on other responses, and metrics without a threshold.

    The inputs are rows with `step_scores` or `score`, and `first_error` (null: none) or `correct`, in any format; the
    scores may come from elsewhere.
    """
    dev, scores = [Path(file) for file in settings.dev], [Path(file) for file in settings.scores]
    for name in settings.aggregators:
        aggregator(name)
    if dev and settings.threshold is not None:
        raise ConfigError("dev and threshold are both given; a threshold is either fitted or given")
    if not 0 < settings.dev_share < 1:
        raise ConfigError(f"dev_share is {settings.dev_share}; expected a share between 0 and 1")
    with RunFolder(out, stage="evaluate", settings=settings.deciding(), inputs=[*inputs, *dev, *scores]) as run:
        if not run.complete:
            _evaluate(run, inputs, settings, dev, scores)
    return RunResult.load(out)


def _evaluate(
    run: RunFolder, inputs: Sequence[Path], settings: EvaluateSettings, dev: Sequence[Path], scores: Sequence[Path]
) -> None:
    counts: Counter[str] = Counter()
    options, threshold = settings.score_options, settings.threshold
    read = partial(_read, columns=settings.columns, on_bad=settings.on_bad, counts=counts)
    rows, fitted_on = read(inputs, scores=scores, options=options), Rows()
    if dev:
        fitted_on = read(dev, scores=(), options=options if "column" in options else {})
        _refuse_shared_problems(rows, fitted_on)
    measured = _with_step_truth(rows)
    _check_truth(rows, measured, dev, threshold)
    if threshold is None and not dev and measured:
        fitted_on, rows = _split(rows, settings.dev_share, settings.seed)
    source = "given" if threshold is not None else "dev" if dev else "split"
    _count(rows, fitted_on, counts)
    test, train = _with_step_truth(rows), _with_step_truth(fitted_on)
    thresholds: dict[str, dict[str, float]] = {}
    metrics: list[Metric] = []
    for scorer in measured:
        parts = test.get(scorer, []), train.get(scorer, [])
        fits = _fits(scorer, *parts, fit_needed=threshold is None, source=source)
        given = {} if threshold is None else {"threshold=given": threshold}
        thresholds[scorer] = {**given, **{str(fit.selector): fit.value for fit in fits}}
        metrics += fits
    for group, members in [(None, rows), *_groups(rows, settings.by, counts)]:
        metrics += _metrics(
            members, thresholds, aggregators=settings.aggregators, seed=settings.seed, group=group, counts=counts
        )
    run.write_metrics(metrics)
    run.rewrite("predictions", _predictions(test, thresholds, f"threshold={source}"))
    run.finish(cost=Cost(), counts=+counts)


def _read(
    inputs: Sequence[Path], *, columns: Mapping[str, str] | None, on_bad: OnBad, counts: Counter[str],
    scores: Sequence[Path], options: Mapping[str, Any],
) -> Rows:  # fmt: skip
    elsewhere = bool(scores or options)
    read = read_scored(inputs, columns=columns, on_bad=on_bad, scores=scores, options=options)
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
        rows.setdefault(rollout.scorer or UNNAMED, []).append(rollout)
    if not rows:
        raise DataError(f"{', '.join(map(str, inputs))}: no response with scores that could be evaluated")
    return rows


def _flaw(row: Rollout) -> str | None:
    """Why a row cannot be evaluated, or None."""
    if not row.step_scores:
        return "no step_scores; score the responses first" if row.score is None or row.step_scores is not None else None
    error = row.extra.get("first_error")
    if error is not None and (isinstance(error, bool) or not isinstance(error, int) or error < 0):
        return f"first_error is {error!r}; expected a 0-based index, or null where all steps are right"
    if error is not None and error >= len(row.step_scores):
        return f"first_error is {error} with {len(row.step_scores)} step_scores; expected scores for the same steps"
    return None


def _with_step_truth(rows: Rows) -> Rows:
    """The rows with step scores and true first errors, of scorers that have any."""
    found = {
        scorer: [row for row in part if row.step_scores and "first_error" in row.extra] for scorer, part in rows.items()
    }
    return {scorer: part for scorer, part in found.items() if part}


def _check_truth(rows: Rows, measured: Rows, dev: Sequence[Path], threshold: float | None) -> None:
    if measured:
        return
    if dev or threshold is not None:
        raise DataError(
            f"{'dev' if dev else 'threshold'}: no response has step_scores and first_error, which it is for; expected "
            "first_error, the 0-based index of the first wrong step, null where all are right"
        )
    if all(row.correct is None for part in rows.values() for row in part):
        raise DataError(
            "no response has first_error (with step_scores), nor a label (correct); expected one of them to evaluate "
            "scores by: grade the responses, or bring the first wrong step"
        )


def _count(rows: Rows, fitted_on: Rows, counts: Counter[str]) -> None:
    located, all_rows = _with_step_truth(rows), [row for part in rows.values() for row in part]
    counts["responses"] = len(all_rows)
    counts["problems"] = len({problem_text(row.prompt) for row in all_rows})
    counts["responses that thresholds were fitted on"] = sum(map(len, _with_step_truth(fitted_on).values()))
    if located:
        counts["without step_scores or first_error, in response areas only"] = len(all_rows) - sum(
            map(len, located.values())
        )
    counts["without label, left out of the response areas"] = sum(row.correct is None for row in all_rows)


def _refuse_shared_problems(rows: Rows, dev: Rows) -> None:
    test = {problem_text(row.prompt) for part in rows.values() for row in part}
    shared = {row.problem_id for part in dev.values() for row in part if problem_text(row.prompt) in test}
    if shared:
        raise DataError(
            f"dev shares {len(shared)} problems with the inputs, by their text, e.g. {min(shared)!r}; fit the "
            "threshold on others"
        )


def _split(rows: Rows, dev_share: float, seed: int) -> tuple[Rows, Rows]:
    """Dev and test rows, split by the problem's text, the same for all scorers."""
    problems = sorted({problem_text(row.prompt) for part in rows.values() for row in part})
    n_dev = min(max(1, round(dev_share * len(problems))), len(problems) - 1)
    if n_dev < 1:
        raise DataError("all responses are to one problem, by its text, which cannot be split; give dev or threshold")
    dev = {problems[index] for index in np.random.default_rng(seed).permutation(len(problems))[:n_dev]}

    def part_of(wanted: bool) -> Rows:
        return {
            scorer: [row for row in part if (problem_text(row.prompt) in dev) is wanted]
            for scorer, part in rows.items()
        }

    return part_of(True), part_of(False)


def _fits(
    scorer: str, test: Sequence[Rollout], dev: Sequence[Rollout], *, fit_needed: bool, source: str
) -> list[Metric]:
    """A scorer's fitted thresholds; the oracle's only if it is defined."""
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
        problems=[problem_text(row.prompt) for row in rows],
    )


def _areas(rows: Sequence[Rollout], aggregators: Sequence[str], seed: int) -> dict[MetricName, Estimate]:
    """Areas by each aggregator of step scores, and by single scores, over the rows that have them."""
    functions = {name: aggregator(name) for name in aggregators}
    found: dict[MetricName, Estimate] = {}
    for name in (*functions, WHOLE):
        have = [row for row in rows if (row.score is not None if name == WHOLE else row.step_scores)]
        if have:
            values = [(row.score or 0.0) if name == WHOLE else functions[name](row.step_scores or ()) for row in have]
            found |= response_areas(
                {name: values}, correct=[row.correct for row in have],
                problems=[problem_text(row.prompt) for row in have], seed=seed,
            )  # fmt: skip
    return found


def _metrics(
    rows: Rows, thresholds: Mapping[str, Mapping[str, float]], *, aggregators: Sequence[str], seed: int,
    group: str | None, counts: Counter[str],
) -> Iterator[Metric]:  # fmt: skip
    found: dict[str, dict[MetricName, Estimate]] = {}
    located = _with_step_truth(rows)
    for scorer, part in rows.items():
        found[scorer] = {}
        if scorer in located:
            found[scorer] |= estimates(_scored(located[scorer]), thresholds=thresholds[scorer], seed=seed)
            if MetricName("step_auc", None) not in found[scorer]:
                counts[f"without errors, or with nothing else: {scorer}, {group or 'all'}"] = len(part)
        found[scorer] |= _areas(part, aggregators, seed)
        for name, estimate in found[scorer].items():
            yield estimate.metric(name, scorer=scorer, seed=seed, group=group)
    for first, second in combinations(found, 2):
        if _keys(rows[first]) != _keys(rows[second]):
            counts[f"not the same responses, not compared: {first}, {second}"] = 1
            continue
        for name in [name for name in found[first] if name in found[second]]:
            gap = difference(found[first][name], found[second][name])
            renamed = MetricName(f"{name.metric}_difference", name.selector)
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
