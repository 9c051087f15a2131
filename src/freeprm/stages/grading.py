"""Grade: rollouts in; the same rollouts with extracted answers and labels out, or the reason for a missing label.

out/rollouts.jsonl    the rows with `pred` and `correct`, or `grade_reason` where `correct` is not known; for problems
                      of the embedded world also `step_labels` and `first_error`, the exact truth of each step
out/metrics.json      the pass rate
"""

import time
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, Literal, TypeVar

from freeprm.core.answers import NO_ANSWER, Verdict
from freeprm.core.answers.extraction import EXTRACTORS, extract, extractor
from freeprm.core.intervals import wilson
from freeprm.core.step_labels import first_error
from freeprm.core.steps import step_markers
from freeprm.errors import ConfigError, DataError, RecordError
from freeprm.executors.base import Executor
from freeprm.graders.base import AnswerPair, ExtractedAnswer, QuickGrader, extracting, judging, missing
from freeprm.graders.base import grader as find_grader
from freeprm.io.files import read_rows
from freeprm.io.plugins import built
from freeprm.io.progress import bar
from freeprm.io.rollouts import read_rollouts, rollout_row
from freeprm.io.rows import Row
from freeprm.io.runs import RunFolder
from freeprm.io.sandbox import Limits, cores
from freeprm.settings import GradeSettings
from freeprm.stages.base import RunResult, stage
from freeprm.types import Cost, Metric, Rollout
from freeprm.world.problems import parse
from freeprm.world.solutions import check_steps

ROWS = "rollouts"
BLOCK = 1024
"""Answers in one block of an executor."""
T = TypeVar("T")
NoAnswer = Literal["none", "wrong"]
_FLUSH_ROWS, _FLUSH_SECONDS = 256, 1.0
_TRUNCATED, _ABANDONED = f"{NO_ANSWER}, truncated", f"{NO_ANSWER}, abandoned"


@stage(GradeSettings)
def grade(inputs: Sequence[Path], settings: GradeSettings, out: Path) -> RunResult:
    """Label every response; resumed by the same call.

    A row's own label or answer (`pred`) is kept. Each pair of answer and gold answer is judged once, in a worker
    process unless the case is simple. The interval of the pass rate is Wilson's, over responses as if they were
    independent; several to one problem are not.

    Raises:
        DataError: no row has a gold answer (or a label to keep).
    """
    executor: Executor = built("executors", settings.executor, [settings.executor_options])
    if settings.workers is not None and settings.workers < 1:
        raise ConfigError(f"workers: is {settings.workers}; expected 1 or more")
    judges = judges_of(settings, executor)
    gold = None if settings.gold is None else Path(settings.gold)
    identity = {name: value for name, value in settings.deciding().items() if name != "gold"}
    with RunFolder(out, stage="grade", settings=identity, inputs=[*inputs, *([gold] if gold else [])]) as run:
        if not run.complete:
            read = read_rollouts(inputs, columns=settings.columns, on_bad=settings.on_bad)
            rollouts = read.rollouts if gold is None else _with_gold(read.rollouts, gold)
            _check_gradable(rollouts, regrade=settings.regrade)
            if settings.regrade:
                rollouts = [replace(rollout, pred=None, correct=None) for rollout in rollouts]
            written = _write(run, rollouts, judges, settings.no_answer)
            run.write_metrics(_pass_rate(written))
            run.finish(cost=Cost(), counts=_counts(rollouts, written, read.skipped))
    return RunResult.load(out)


def judges_of(settings: GradeSettings, executor: Executor) -> "Judges":
    """The judges that settings name; a ConfigError or PluginError if there is no such grader or extractor."""
    find_grader(settings.grader, settings.grader_options)
    for name in settings.extractors:
        extractor(name)
    return Judges(
        executor=executor,
        grader=settings.grader,
        options=settings.grader_options,
        extractors=tuple(settings.extractors),
        limits=Limits(seconds=settings.timeout, memory_mib=settings.memory_mib),
        n_workers=settings.workers or (1 if executor.remote else cores()),
    )


def _write(run: RunFolder, rollouts: Sequence[Rollout], judges: "Judges", no_answer: NoAnswer) -> list[Row]:
    """Grade and append the missing rows; returns all."""
    done = run.rows(ROWS)
    written = [*done]
    labels = Counter(row.get("correct") for row in done)
    with bar("grade", len(rollouts), unit="responses", done=len(done)) as advance:
        for rows in _by_time(graded(rollouts, done, judges, no_answer)):
            run.append(ROWS, rows)
            labels.update(row.get("correct") for row in rows)
            advance(len(rows), note=f"pass rate {labels[True] / max(labels[True] + labels[False], 1):.1%}")
            written += rows
    return written


def _with_gold(rollouts: Iterable[Rollout], gold: Path) -> list[Rollout]:
    answers: dict[str, str] = {}
    for source, row in read_rows(gold):
        if isinstance(row, RecordError):
            raise row
        if row.get("problem_id") is None or row.get("answer") is None:
            raise RecordError(f"{source}: expected a problem with `problem_id` and `answer`; it has {', '.join(row)}")
        answers[str(row["problem_id"])] = str(row["answer"])
    return [replace(item, answer=answers.get(item.problem_id, item.answer)) for item in rollouts]


def _check_gradable(rollouts: Sequence[Rollout], *, regrade: bool) -> None:
    if all(item.answer is None and (regrade or item.correct is None) for item in rollouts):
        label = "" if regrade else " nor a label (`correct`)"
        raise DataError(
            f"none of {len(rollouts)} rows has a gold answer (`answer`){label}; map another column with --map "
            "answer=COLUMN, or give a file of problems with their answers as gold"
        )


@dataclass(frozen=True, kw_only=True)
class Judges:
    """Extracts and judges answers."""

    executor: Executor
    grader: str
    options: Mapping[str, Any]
    extractors: tuple[str, ...]
    limits: Limits
    n_workers: int

    def found(self, responses: Sequence[str]) -> dict[str, ExtractedAnswer]:
        """The answer in each response; the user's own extractors run in processes with limits."""
        if {*self.extractors} <= {*EXTRACTORS}:
            return {response: ExtractedAnswer(extract(response, self.extractors), None) for response in responses}
        make = partial(extracting, self.extractors, n_workers=self.n_workers, limits=self.limits)
        return dict(self.executor.run(make, self._blocks(responses)))

    def verdicts(self, pairs: Sequence[AnswerPair]) -> Iterator[tuple[AnswerPair, Verdict]]:
        """Verdicts of the simple cases, then of the others as they are finished."""
        judge = find_grader(self.grader, self.options)
        others = []
        for pair in pairs:
            verdict = judge.at_once(*pair) if isinstance(judge, QuickGrader) else None
            if verdict is None:
                others.append(pair)
            else:
                yield pair, verdict
        make = partial(judging, self.grader, self.options, n_workers=self.n_workers, limits=self.limits)
        yield from self.executor.run(make, self._blocks(others))

    def _blocks(self, items: Sequence[T]) -> list[Sequence[T]]:
        size = self.executor.block or BLOCK
        return [items[start : start + size] for start in range(0, len(items), size)]


def graded(rollouts: Sequence[Rollout], done: Sequence[Row], judges: Judges, no_answer: NoAnswer) -> Iterator[Row]:
    """The missing rows, in order, each as soon as it and those before it are known."""
    known = {
        AnswerPair(row["pred"], rollout.answer): Verdict(row.get("correct"), row.get("grade_reason"))
        for rollout, row in zip(rollouts, done, strict=False)
        if rollout.correct is None and rollout.answer is not None and row.get("pred") is not None
    }
    todo = rollouts[len(done) :]
    found = judges.found(list(dict.fromkeys(rollout.response for rollout in todo if rollout.pred is None)))
    answered = [
        (rollout, ExtractedAnswer(rollout.pred, None) if rollout.pred is not None else found[rollout.response])
        for rollout in todo
    ]
    needed = dict.fromkeys(
        AnswerPair(answer.pred or "", rollout.answer or "")
        for rollout, answer in answered
        if rollout.correct is None and missing(answer.pred, rollout.answer) is None
    )
    verdicts = judges.verdicts([pair for pair in needed if pair not in known])
    for rollout, answer in answered:
        pair = AnswerPair(answer.pred or "", rollout.answer or "")
        while pair in needed and pair not in known:
            known.update([next(verdicts)])
        verdict = known[pair] if pair in needed else _absent(rollout, answer, no_answer)
        yield _row(rollout, answer.pred, verdict)


def _absent(rollout: Rollout, answer: ExtractedAnswer, no_answer: NoAnswer) -> Verdict:
    """The verdict on a missing answer."""
    verdict = missing(answer.pred, rollout.answer) or Verdict(None, NO_ANSWER)
    if verdict.reason != NO_ANSWER:
        return verdict
    if answer.reason is not None:
        return Verdict(None, answer.reason)
    if rollout.extra.get("stop_reason") == "abandoned":  # by `sample --early-stop`: it might have had an answer
        return Verdict(None, _ABANDONED)
    if no_answer == "wrong":
        return Verdict(False, None)
    return Verdict(None, _TRUNCATED) if rollout.truncated else verdict


def _row(rollout: Rollout, pred: str | None, verdict: Verdict) -> Row:
    extra = {key: value for key, value in rollout.extra.items() if key != "grade_reason"}
    correct = rollout.correct
    if correct is None:
        correct = verdict.correct
        extra |= {"grade_reason": verdict.reason} if correct is None else {}
    row = rollout_row(replace(rollout, pred=pred, correct=correct, extra={**extra, **_truth(rollout)}))
    return {**row, "correct": correct}  # null if unknown


def _truth(rollout: Rollout) -> dict[str, Any]:
    """The label of each step and the first error, if the problem is one of the embedded world."""
    prompt = rollout.prompt
    problem = parse(prompt if isinstance(prompt, str) else prompt[-1]["content"])
    if problem is None:
        return {}
    steps = [rollout.response[start:stop] for start, stop in step_markers(rollout.response)]
    labels = check_steps(problem, steps)
    return {"step_labels": labels, "first_error": first_error(labels)}


def _by_time(rows: Iterable[Row]) -> Iterator[list[Row]]:
    """Rows in batches of limited size and time, so that neither writing nor an interruption costs much."""
    part: list[Row] = []
    flushed = time.perf_counter()
    for row in rows:
        part.append(row)
        if len(part) == _FLUSH_ROWS or time.perf_counter() - flushed > _FLUSH_SECONDS:
            yield part
            part, flushed = [], time.perf_counter()
    if part:
        yield part


def _counts(rollouts: Sequence[Rollout], rows: Sequence[Row], skipped: Mapping[str, int]) -> dict[str, int]:
    counts = Counter({"responses": len(rows), "graded": 0, "labels kept": 0, "truncated": 0})
    for rollout, row in zip(rollouts, rows, strict=True):
        correct = row.get("correct")
        counts["truncated"] += rollout.truncated
        if correct is None:
            counts[f"ungraded: {row['grade_reason']}"] += 1
        else:
            counts["labels kept" if rollout.correct is not None else "graded"] += 1
            counts["graded wrong without an answer"] += rollout.correct is None and row.get("pred") is None
    counts.update({f"skipped: {reason}": count for reason, count in skipped.items()})
    return dict(+counts)


def _pass_rate(rows: Sequence[Row]) -> list[Metric]:
    labels = [row["correct"] for row in rows if row.get("correct") is not None]
    if not labels:
        return []
    value, low, high = wilson(sum(labels), len(labels))
    return [Metric(metric="pass_rate", value=value, low=low, high=high, count=len(labels))]
