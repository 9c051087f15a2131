"""Grade: rollouts in; out the same with the answer found in each and whether it is right, or why that is not known.

out/rollouts.jsonl    the rows with `pred` and `correct`, or `grade_reason` where `correct` is not known; for problems
                      of the embedded world also `step_labels` and `first_error`, the exact truth of each step
out/metrics.json      the pass rate
"""

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache
from itertools import islice
from pathlib import Path
from typing import Any

from freeprm.core.answers import DEFAULT_EXTRACTORS, Verdict, equivalent, extract
from freeprm.core.intervals import wilson
from freeprm.core.steps import step_markers
from freeprm.errors import DataError, RecordError
from freeprm.io.formats import OnBad, read_rollouts, rollout_row
from freeprm.io.jsonl import Row, read_rows
from freeprm.io.progress import track
from freeprm.io.runs import RunFolder, read_manifest, read_metrics
from freeprm.types import Cost, Metric, Prompt, Rollout
from freeprm.world.checking import check_steps, first_error
from freeprm.world.problems import WordProblem, parse

ROWS = "rollouts"
BATCH = 256
"""Rows graded before they are written."""

Judge = Callable[[str | None, str | None], Verdict]


@dataclass(frozen=True, slots=True, kw_only=True)
class GradingResult:
    """What grading made."""

    folder: Path
    """Holds `rollouts.jsonl`."""
    metrics: list[Metric]
    """The pass rate among responses with a label; nothing where none has one."""
    counts: Mapping[str, int]
    """Responses, those graded and those whose label was kept, those ungraded and those skipped by reason."""


def grade(
    inputs: Sequence[Path],
    *,
    out: Path,
    columns: Mapping[str, str] | None = None,
    on_bad: OnBad = "raise",
    regrade: bool = False,
    extractors: Sequence[str] = DEFAULT_EXTRACTORS,
    gold: Path | None = None,
) -> GradingResult:
    """Give every response its label; resumed by the same call.

    A label or an answer (`pred`) that a row brings is kept. The interval of the pass rate is Wilson's, over
    responses as if each were drawn by itself; several to a problem are worth less than that.

    Args:
        inputs: rollouts, files or run folders.
        out: run folder.
        columns: our column name -> theirs, e.g. {"answer": "gt"}.
        on_bad: stop at the first broken record, or leave it out and count it.
        regrade: find and judge every answer anew, whatever label the row brings.
        extractors: names in `core.answers.EXTRACTORS`; the first that finds an answer decides.
        gold: problems with `problem_id` and `answer`, whose answers replace those of the rows.

    Raises:
        DataError: no row has a gold answer (or a label to keep).
        FreePRMError: see the errors of records, settings and run folders.
    """
    extract("", extractors)  # refuses an unknown name before anything is read
    settings = {"columns": dict(columns or {}), "on_bad": on_bad, "regrade": regrade, "extractors": list(extractors)}
    sources = [*inputs, *([gold] if gold else [])]
    with RunFolder(out, stage="grade", settings=settings, inputs=sources) as run:
        if run.complete:
            return GradingResult(folder=out, metrics=read_metrics(out), counts=(read_manifest(out) or {})["counts"])
        read = read_rollouts(inputs, columns=columns, on_bad=on_bad)
        rollouts = read.rollouts if gold is None else _with_gold(read.rollouts, gold)
        _check_gradable(rollouts, regrade=regrade)
        done = run.rows(ROWS)
        written = {(row["problem_id"], row["sample_idx"], row.get("scorer")) for row in done}
        todo = (row for row in rollouts if (row.problem_id, row.sample_idx, row.scorer) not in written)
        judge = cache(equivalent)  # responses repeat each other's answers
        tracked = track(todo, description="grade", total=len(rollouts) - len(done))
        while rows := [_graded(item, judge, regrade, extractors) for item in islice(tracked, BATCH)]:
            run.append(ROWS, rows)
            done += rows
        kept = 0 if regrade else sum(rollout.correct is not None for rollout in rollouts)
        counts = _counts(done, kept=kept, skipped=read.skipped)
        metrics = _pass_rate(done)
        run.write_metrics(metrics)
        run.finish(cost=Cost(), counts=counts)
    return GradingResult(folder=out, metrics=metrics, counts=counts)


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


def _graded(rollout: Rollout, judge: Judge, regrade: bool, extractors: Sequence[str]) -> Row:
    pred = rollout.pred if rollout.pred is not None and not regrade else extract(rollout.response, extractors)
    extra = {key: value for key, value in rollout.extra.items() if key != "grade_reason"}
    correct = None if regrade else rollout.correct
    if correct is None:
        correct, reason = judge(pred, rollout.answer)
        extra |= {"grade_reason": reason} if correct is None else {}
    return rollout_row(replace(rollout, pred=pred, correct=correct, extra={**extra, **_truth(rollout)}))


def _truth(rollout: Rollout) -> dict[str, Any]:
    """The label of each step and the first error, where the problem is one of the embedded world."""
    problem = _word_problem(rollout.prompt)
    if problem is None:
        return {}
    steps = [rollout.response[start:stop] for start, stop in step_markers(rollout.response)]
    labels = check_steps(problem, steps)
    return {"step_labels": labels, "first_error": first_error(labels)}


def _word_problem(prompt: Prompt) -> WordProblem | None:
    """The problem that a prompt, or the last message of a conversation, states."""
    return parse(prompt if isinstance(prompt, str) else prompt[-1]["content"])


def _counts(rows: Sequence[Row], *, kept: int, skipped: Mapping[str, int]) -> dict[str, int]:
    known = sum(row.get("correct") is not None for row in rows)
    ungraded = Counter(f"ungraded: {row['grade_reason']}" for row in rows if row.get("correct") is None)
    counts = Counter({"responses": len(rows), "graded": known - kept, "labels kept": kept, **ungraded})
    counts.update({f"skipped: {reason}": count for reason, count in skipped.items()})
    return dict(+counts)


def _pass_rate(rows: Sequence[Row]) -> list[Metric]:
    labels = [row["correct"] for row in rows if row.get("correct") is not None]
    if not labels:
        return []
    value, low, high = wilson(sum(labels), len(labels))
    return [Metric(metric="pass_rate", value=value, low=low, high=high, count=len(labels))]
