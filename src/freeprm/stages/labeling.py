"""Label steps: graded rollouts in; the same with a label for each step out, and the errors of the labels.

out/rollouts.jsonl    the rows with `steps`, `step_labels`, `step_values`, `first_error` and `step_labeler`; the row's
                      earlier step labels are the truth: `true_step_labels`, `true_first_error`
out/metrics.json      errors of the labels, if there is a truth
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from freeprm.core.intervals import problem_text
from freeprm.core.step_labels import LabelledResponse, first_error, label_errors, labelled_steps, steps_of
from freeprm.core.steps import given_steps
from freeprm.core.steps import splitter as splitter_named
from freeprm.errors import DataError, SpanError
from freeprm.formats._reading import read_responses
from freeprm.io.plugins import built
from freeprm.io.rollouts import read_rollouts, rollout_row
from freeprm.io.runs import RunFolder
from freeprm.labelers.base import Divided, Labeler, Notebook, StepLabels
from freeprm.settings import LabelSettings
from freeprm.stages.base import RunResult, stage
from freeprm.types import Rollout

ROWS = "rollouts"
_ESTIMATES = ("step_labels", "first_error", "step_values", "step_completions", "step_labeler")
"""Columns that a labeler fills."""
_TRUTH = {"step_labels": "true_step_labels", "first_error": "true_first_error"}


@stage(LabelSettings)
def label(inputs: Sequence[Path], settings: LabelSettings, out: Path) -> RunResult:
    """Label every step of every response; resumed by the same call, with the same rows.

    A response that cannot be labelled keeps its row without labels, and is counted by reason. The metrics are the
    errors of the labels, if there is a truth.
    """
    splitter, seed = settings.splitter, settings.seed
    if splitter is not None:
        splitter_named(splitter)
    labeler: Labeler = built("labelers", settings.labeler, [settings.options])
    reference = None if settings.reference is None else Path(settings.reference)
    decided = {name: value for name, value in settings.deciding().items() if name != "options"}
    identity = {**decided, **labeler.identity()}
    with RunFolder(out, stage="label", settings=identity, inputs=[*inputs, *([reference] if reference else [])]) as run:
        if run.complete:
            return RunResult.load(out)
        read, counts = read_responses(inputs, columns=settings.columns, on_bad=settings.on_bad)
        rollouts = [_with_truth(rollout) for rollout in read]
        rollouts = rollouts if reference is None else _with_reference(rollouts, reference)
        divided = {index: item for index, rollout in enumerate(rollouts) if (item := _divided(rollout, splitter))}
        notebook = Notebook(known=run.parts(), note=run.log_part)
        done = labeler.label(list(divided.values()), seed=seed, notebook=notebook)
        indices = list(divided)
        labels = {indices[number]: labelled for number, labelled in done.labels.items()}
        rows = [
            _labelled(rollout, divided.get(index), labels.get(index), settings.labeler)
            for index, rollout in enumerate(rollouts)
        ]
        run.rewrite(ROWS, [rollout_row(row) for row in rows])
        counts = _counts(rollouts, divided, labels) + counts + done.counts
        run.write_metrics(label_errors(_judged(rows, labels, counts), labeler=settings.labeler, seed=seed))
        run.finish(cost=done.cost, counts=counts, models=labeler.models())
    return RunResult.load(out)


def _with_truth(rollout: Rollout) -> Rollout:
    """The row's own step labels as the truth; a labeler's estimates are dropped."""
    extra = dict(rollout.extra)
    if "step_labeler" not in extra:
        extra |= {theirs: extra[name] for name, theirs in _TRUTH.items() if name in extra}
    return replace(rollout, extra={name: value for name, value in extra.items() if name not in _ESTIMATES})


def _with_reference(rollouts: Sequence[Rollout], reference: Path) -> list[Rollout]:
    """The rollouts with the reference's soft labels as the truth.

    Raises:
        DataError: the reference lacks a response, has another one, or has no soft labels.
    """
    known = {(item.problem_id, item.sample_idx): item for item in read_rollouts([reference]).rollouts}
    found = []
    for rollout in rollouts:
        other = known.get((rollout.problem_id, rollout.sample_idx))
        if other is None or other.response != rollout.response:
            raise DataError(
                f"{reference}: problem {rollout.problem_id!r}, sample {rollout.sample_idx}: "
                f"{'is not there' if other is None else 'is another response'}; expected labels of the same responses"
            )
        values = other.extra.get("step_values")
        found.append(replace(rollout, extra={**rollout.extra, "true_step_values": values}))
    if all(rollout.extra["true_step_values"] is None for rollout in found):
        raise DataError(f"{reference}: no response has `step_values`; expected what `freeprm label` wrote")
    return found


def _divided(rollout: Rollout, splitter: str | None) -> Divided | None:
    """The rollout with its steps; None if it is empty.

    Raises:
        SpanError: the row's own steps are not those of its response; names it.
    """
    if not rollout.response.strip():
        return None
    try:
        spans = given_steps(rollout.response, _texts(rollout, splitter))
    except SpanError as error:
        raise SpanError(f"problem {rollout.problem_id!r}, sample {rollout.sample_idx}: {error}") from error
    texts = [rollout.response[span.start : span.stop].strip() for span in spans]
    return Divided(rollout=replace(rollout, extra={**rollout.extra, "steps": texts}), steps=tuple(spans))


def _texts(rollout: Rollout, splitter: str | None) -> list[str]:
    if splitter is not None and "steps" not in rollout.extra:
        return [rollout.response[span.start : span.stop] for span in splitter_named(splitter)(rollout.response)]
    truth = rollout.extra.get("true_step_labels")
    try:
        return steps_of(rollout, count=len(truth) if isinstance(truth, list) else None)
    except DataError:  # no splitter finds as many; then the labels are of other steps
        return steps_of(rollout)


def _labelled(rollout: Rollout, divided: Divided | None, labels: StepLabels | None, labeler: str) -> Rollout:
    """The response with its labels, if it has any."""
    if divided is None or labels is None:
        return rollout
    columns = {
        "steps": divided.rollout.extra["steps"], "step_labels": list(labels.labels),
        "step_values": list(labels.values), "first_error": first_error(labels.labels), "step_labeler": labeler,
        **labels.columns,
    }  # fmt: skip
    return replace(rollout, extra={**rollout.extra, **columns})


def _counts(
    rollouts: Sequence[Rollout], divided: Mapping[int, Divided], labels: Mapping[int, StepLabels]
) -> Counter[str]:
    steps = Counter(label for labelled in labels.values() for label in labelled.labels)
    return +Counter({
        "responses": len(rollouts),
        "labelled": len(labels),
        "not labelled: empty": len(rollouts) - len(divided),
        "steps labelled": steps[True] + steps[False],
        "steps labelled wrong": steps[False],
        "steps without a label": steps[None],
    })  # fmt: skip


def _judged(rows: Sequence[Rollout], labels: Mapping[int, StepLabels], counts: Counter[str]) -> list[LabelledResponse]:
    """The labels with their truth; adds the responses whose truth is of other steps to `counts`."""
    judged = []
    for index, labelled in labels.items():
        row = rows[index]
        truth, values = _truth(row), row.extra.get("true_step_values")
        n_steps = len(labelled.labels)
        unlike = [known for known in (truth, values) if known is not None and len(known) != n_steps]
        counts["responses whose true labels are of other steps"] += bool(unlike)
        judged.append(
            LabelledResponse(
                problem=problem_text(row.prompt), labels=labelled.labels, values=labelled.values,
                truth=None if unlike else truth, true_values=None if unlike else values,
            )
        )  # fmt: skip
    counts -= Counter()  # without zeros
    return judged


def _truth(row: Rollout) -> list[bool | None] | None:
    """The known labels of the steps, or None."""
    known = {name: row.extra[theirs] for name, theirs in _TRUTH.items() if theirs in row.extra}
    try:
        return labelled_steps(replace(row, extra={"steps": row.extra["steps"], **known})).labels if known else None
    except DataError:  # as of another number of steps
        return list(known.get("step_labels") or [None])
