"""Select: scored rollouts in; the choice of every selector and its accuracy out.

    out/metrics.json      accuracies (fractions, 0..1), pass@k, paired differences, the share of tied choices, with 95 %
                          intervals over problems
    out/selections.jsonl  a row for each problem and selector: the chosen sample and answer
    out/accuracies.jsonl  a row for each problem, selector and n: the chances that its choice is right and is tied

Accuracies are expectations over ties, uniform over all that share the first place; the choice in `selections` is the
first of them. The weights of a vote follow from the kind of its scores (`core.score_kinds`): the rows' `score_kind`,
which `freeprm score` writes, the caller's setting, or the range of the scores.

Works on rollouts with scores, ours or others', in any format, and on rollouts beside a server's answers; without
scores, the majority vote, pass@k and the bounds `oracle` and `random` remain.
"""

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import NamedTuple

from freeprm.core.answers import equivalent, key_among
from freeprm.core.rewards import aggregator
from freeprm.core.score_kinds import ScoreKind, Weighed, check_kinds, weightings
from freeprm.core.selectors import (
    Candidates,
    Chosen,
    Sample,
    Selector,
    SelectorAtN,
    Subsets,
    accuracy_metrics,
    bounds,
    candidates,
    choose,
    difference_metrics,
    merge_scorers,
    problems_by_value,
)
from freeprm.core.voting import Weighting, pass_at_k
from freeprm.core.voting import weighting as weighting_named
from freeprm.errors import ConfigError, DataError
from freeprm.formats._attaching import read_scored
from freeprm.io.rows import Row
from freeprm.io.runs import RunFolder
from freeprm.settings import SelectSettings
from freeprm.stages.base import Judge, RunResult, completed, sample_sizes, stage
from freeprm.types import Cost, Metric, Rollout

DRAWS = 256
"""Random subsets for a vote; their noise was 4 % of the standard error over 200 problems (16 of 64 samples)."""


@stage(SelectSettings)
def select(inputs: Sequence[Path], settings: SelectSettings, out: Path) -> RunResult:
    """Best-of-n and weighted vote by every scorer, beside majority vote, pass@k, oracle and random choice.

    The inputs are rollouts with scores of one or several scorers; rows without scores are samples as well.
    """
    for name in settings.aggregators:
        aggregator(name)
    kinds = check_kinds(settings.score_kinds, settings.weighting)
    if not settings.weight_scale > 0:
        raise ConfigError(f"weight_scale is {settings.weight_scale}; expected a number above 0")
    scores = [Path(file) for file in settings.scores]
    identity = {**settings.deciding(), "score_kinds": kinds}
    with RunFolder(out, stage="select", settings=identity, inputs=[*inputs, *scores]) as run:
        if not run.complete:
            _select(run, inputs, settings, kinds, scores)
    return RunResult.load(out)


def _select(
    run: RunFolder, inputs: Sequence[Path], settings: SelectSettings, kinds: Mapping[str, ScoreKind],
    scores: Sequence[Path],
) -> None:  # fmt: skip
    seed, subsets = settings.seed, settings.subsets
    read = read_scored(
        inputs, columns=settings.columns, on_bad=settings.on_bad, scores=scores, options=settings.score_options
    )
    counts = Counter(read.skipped)
    weighed = weightings(read.rollouts, weighting=settings.weighting, kinds=kinds)
    counts.update(
        {f"votes of {name} weighted by {how.weighting}: {how.why}": how.n_rows for name, how in weighed.items()}
    )
    weigh = {scorer: _scaled(weighting_named(how.weighting), settings.weight_scale) for scorer, how in weighed.items()}
    problems = [
        candidates(
            samples,
            aggregators=settings.aggregators,
            key=key_among((sample.rollout.pred for sample in samples), form=settings.answers_by == "form"),
        )
        for samples in _completed(merge_scorers(read.rollouts), counts)
    ]
    _count(problems, counts)
    sizes = _sizes(settings.n, problems, counts)
    tables = _tables(problems, sizes, weigh=weigh, subsets=subsets, seed=seed)
    metrics = [*tables.metrics(seed), *difference_metrics(tables.accuracy, seed=seed)]
    metrics += accuracy_metrics(tables.tied, metric="tied", seed=seed)
    for group, members in _groups(problems, settings.by, counts):
        metrics += tables.metrics(seed, group=group, problems=members)
    run.write_metrics([_with_weighting(metric, weighed) for metric in metrics])
    run.rewrite("accuracies", tables.rows())
    shown = sizes if subsets == "first" else [None]
    run.rewrite("selections", _rows(problems, shown, weigh=weigh, subsets=subsets, seed=seed))
    run.finish(cost=Cost(), counts=+counts)


class _Tables(NamedTuple):
    accuracy: dict[SelectorAtN, dict[str, float]]
    tied: dict[SelectorAtN, dict[str, float]]
    pass_at_k: dict[SelectorAtN, dict[str, float]]

    def metrics(self, seed: int, *, group: str | None = None, problems: frozenset[str] | None = None) -> list[Metric]:
        chances = accuracy_metrics(self.pass_at_k, metric="pass_at_k", seed=seed, problems=problems, group=group)
        return [
            *accuracy_metrics(self.accuracy, seed=seed, problems=problems, group=group),
            *(replace(metric, selector=None) for metric in chances),
        ]

    def rows(self) -> Iterator[Row]:
        """The accuracies of single problems."""
        for cell, by_problem in self.accuracy.items():
            for problem_id, accuracy in by_problem.items():
                tied = {"tied": self.tied[cell][problem_id]} if cell in self.tied else {}
                chosen = {"scorer": cell.selector.scorer, "selector": cell.selector.name, "n": cell.n}
                yield {"problem_id": problem_id, **chosen, "accuracy": accuracy, **tied}


def _tables(
    problems: Sequence[Candidates], sizes: Sequence[int], *, weigh: Mapping[str, Weighting], subsets: Subsets, seed: int
) -> _Tables:
    tables = _Tables({}, {}, {})
    limits = {
        problem.problem_id: bounds(
            problem, [n for n in sizes if n <= len(problem.rollouts)], subsets=subsets, draws=DRAWS, seed=seed
        )
        for problem in problems
    }
    for n in sizes:
        for problem in problems:
            if len(problem.rollouts) < n:
                continue
            choices = choose(problem, n, weigh=weigh, subsets=subsets, draws=DRAWS, seed=seed)
            values = {selector: choice.accuracy for selector, choice in choices.items()}
            for selector, accuracy in {**limits[problem.problem_id][n], **values}.items():
                tables.accuracy.setdefault(SelectorAtN(selector, n), {})[problem.problem_id] = accuracy
            for selector, choice in choices.items():
                tables.tied.setdefault(SelectorAtN(selector, n), {})[problem.problem_id] = choice.tied
            chance = pass_at_k(len(problem.rollouts), int(problem.correct.sum()), n)
            tables.pass_at_k.setdefault(SelectorAtN(Selector(None, "oracle"), n), {})[problem.problem_id] = chance
    return tables


def _rows(
    problems: Sequence[Candidates],
    sizes: Sequence[int | None],
    *,
    weigh: Mapping[str, Weighting],
    subsets: Subsets,
    seed: int,
) -> Iterator[Row]:
    """A row for each choice among the first n samples, or all; a vote's sample is the first with its answer."""
    for problem in problems:
        for n in sizes:
            choices = choose(problem, n, weigh=weigh, subsets=subsets, draws=DRAWS, seed=seed)
            for selector, choice in choices.items():
                yield _row(problem, selector, choice, len(choice.samples))


def _row(problem: Candidates, selector: Selector, choice: Chosen, n: int) -> Row:
    chosen = None if choice.sample is None else problem.rollouts[choice.sample]
    return {
        "problem_id": problem.problem_id,
        "scorer": selector.scorer,
        "selector": selector.name,
        "n": n,
        "sample_idx": chosen.sample_idx if chosen else None,
        "answer": chosen.pred if chosen else None,
        "correct": choice.is_right,
        "tied": choice.tied > 0,
    }


def _scaled(weigh: Weighting, scale: float) -> Weighting:
    return lambda scores: weigh(scores * scale)


def _with_weighting(metric: Metric, weighed: Mapping[str, Weighed]) -> Metric:
    """A vote's metric with its weighting; a difference of two scorers has none."""
    how = weighed.get(metric.scorer or "")
    votes = metric.selector is not None and metric.selector.startswith("weighted_vote/")
    return replace(metric, weighting=how.weighting) if how is not None and votes else metric


def _completed(problems: Iterable[Sequence[Sample]], counts: Counter[str]) -> Iterator[list[Sample]]:
    """The samples with missing answers and labels added, unless grading has refused them."""
    judged = cache(equivalent)  # samples repeat each other's answers
    for samples in problems:
        yield [sample._replace(rollout=_complete(sample.rollout, judged, counts)) for sample in samples]


def _complete(rollout: Rollout, judge: Judge, counts: Counter[str]) -> Rollout:
    made = completed(rollout, judge)
    if rollout.pred is None:
        counts["answers extracted here"] += made.pred is not None
    if rollout.correct is None and (refused := rollout.extra.get("grade_reason")) is not None:
        counts[f"left without label by grade: {refused}"] += 1
    elif rollout.correct is None:
        counts["labels derived here"] += made.correct is not None
    return made


def _count(problems: Sequence[Candidates], counts: Counter[str]) -> None:
    scorers = {scorer for problem in problems for scorer, _ in problem.scores}
    for problem in problems:
        counts["problems"] += 1
        counts["responses"] += len(problem.rollouts)
        counts["without answer, never vote"] += int((~problem.has_answer).sum())
        counts["without label, counted as not correct"] += sum(row.correct is None for row in problem.rollouts)
        counts["answers whose responses have different labels"] += problem.n_mixed_answers
        for scorer in scorers:
            scored = [len(scores.samples) for (name, _), scores in problem.scores.items() if name == scorer]
            counts[f"not scored by {scorer}"] += len(problem.rollouts) - max(scored, default=0)
    if counts["without label, counted as not correct"] == counts["responses"]:
        raise DataError("no response has a label, nor an answer to derive it from; grade the rollouts first")


def _sizes(n: Sequence[int] | None, problems: Sequence[Candidates], counts: Counter[str]) -> list[int]:
    """The values of n, ascending; counts problems with fewer samples."""
    available = [len(problem.rollouts) for problem in problems]
    sizes = sample_sizes(n, available, default=lambda most: (*(1 << power for power in range(most.bit_length())), most))
    for size in sizes:
        counts[f"problems left out at n={size}, with fewer samples"] = sum(count < size for count in available)
    return sizes


def _groups(
    problems: Sequence[Candidates], by: Sequence[str], counts: Counter[str]
) -> Iterator[tuple[str, frozenset[str]]]:
    for column in by:
        extras = {problem.problem_id: problem.rollouts[0].extra for problem in problems}
        values = {problem: extra[column] for problem, extra in extras.items() if extra.get(column) is not None}
        if not values:
            known = ", ".join(sorted({name for extra in extras.values() for name in extra})) or "none"
            raise ConfigError(f"by: no row has a column {column!r}; further columns there are: {known}")
        counts[f"problems without {column}"] = len(problems) - len(values)
        yield from problems_by_value(values, column).items()
