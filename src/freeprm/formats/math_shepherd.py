"""Math-Shepherd's rows: a question and its steps in one text with a tag after each step, and the same text with labels.

The question, which ends at `Step 1: `, is the prompt; the steps are between the tags. The labels are Monte-Carlo
estimates; the row has no outcome. OpenRLHF's variant (zhuzilin/Math-Shepherd) has a list of labels too, or only the
list: "value": ["+", "-"], or probabilities of steps to be right: "value": [0.9, 0.2], which become `step_values` (soft
labels). In writing, steps that do not begin with `Step k:` get it.

Source: Wang et al. 2023, arXiv:2312.08935; peiyi9979/Math-Shepherd on the Hub.
"""

import re
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Annotated, Any

from freeprm.core.step_labels import first_error, labelled_steps
from freeprm.errors import DataError, RecordError
from freeprm.formats.base import STEP_LABELS, Written, rollouts_of, write_each
from freeprm.io.columns import Each, Filled, ForeignRow, Labels, Numbers, id_from
from freeprm.io.conversations import as_text
from freeprm.io.rows import Row, Source
from freeprm.types import Group, Rollout

TAG = "ки"
FIRST = "Step 1: "
_MARKER = re.compile(r"^\s*Step \d+:", re.MULTILINE)
_SIGNS = {True: "+", False: "-"}


class _Row(ForeignRow):
    input: Filled
    label: Any = None
    value: Any = None


class _Hard(ForeignRow):
    value: Annotated[Labels, Each("step")]


class _Soft(ForeignRow):
    value: Numbers


@dataclass(frozen=True, kw_only=True)
class MathShepherd:
    """Math-Shepherd, and OpenRLHF's variant of it."""

    def recognises(self, row: Row) -> bool:
        """Has `input` with tags, or with `task`, and `label` or `value`."""
        text = row.get("input")
        tagged = isinstance(text, str) and (TAG in text or "task" in row)
        return tagged and (isinstance(row.get("label"), str) or isinstance(row.get("value"), list))

    def read(self, row: Row, source: Source) -> Iterable[Rollout]:
        """The one rollout of a row.

        Raises:
            RecordError: not one `Step 1: `, a step without a tag, or labels that are not one a step.
        """
        parsed = _Row.of(row, source)
        try:
            question, steps = _cut(parsed.input)
        except DataError as error:
            reason = f"input has {error}"
            raise RecordError(
                f"{source}: {reason}; expected a question and steps that end in {TAG}", reason=reason
            ) from error
        yield Rollout(
            problem_id=id_from(question),
            sample_idx=0,
            prompt=question,
            response="\n".join(steps),
            extra={
                "steps": steps,
                **_known(parsed, row, source, len(steps)),
                **({"value": row["value"]} if "value" in row else {}),
                **parsed.others(),
            },
        )

    def write(self, groups: Sequence[Group]) -> Written:
        """A row of each rollout with step labels."""
        return write_each(rollouts_of(groups), _row, needs=STEP_LABELS)


def _cut(text: str) -> tuple[str, list[str]]:
    """The question and the steps of a tagged text; a DataError says what is wrong."""
    n_firsts = text.count(FIRST)
    if n_firsts != 1:
        raise DataError(f"{'no' if not n_firsts else 'more than one'} {FIRST.strip()!r}")
    question, _, rest = text.partition(FIRST)
    *steps, after = [piece.strip() for piece in (FIRST + rest).split(TAG)]
    if after or any(len(_MARKER.findall(step)) != 1 or not _MARKER.match(step) for step in steps):
        raise DataError("a step without its tag, or a tag without its step")
    if not question.strip() or TAG in question:
        raise DataError("no question, or a tag in it")
    return question.strip(), steps


def _known(parsed: _Row, row: Row, source: Source, count: int) -> Row:
    """The columns of the steps' labels, hard or soft."""
    if parsed.label is None and _is_soft(parsed.value):
        soft = _Soft.of(row, source)
        if len(soft.value) != count or not all(0 <= one <= 1 for one in soft.value):
            raise soft.wrong("value", "{count} numbers from 0 to 1, one for each step", count=count)
        return {"step_values": list(soft.value)}
    labels = None
    if parsed.value is not None:
        hard = _Hard.of(row, source)
        hard.check_each("step", count)
        labels = hard.value
    if parsed.label is not None or labels is None:
        try:
            signs = _signs(parsed.label, parsed.input)
        except ValueError as error:
            expected = f"the text of `input` with + or - in place of each {TAG}"
            raise parsed.wrong("label", expected, found=str(error)) from error
        if labels not in (None, signs):
            raise parsed.wrong("value", "the labels that `label` has")
        labels = signs
    return {"step_labels": labels, "first_error": first_error(labels)}


def _is_soft(value: Any) -> bool:
    """Whether there are numbers other than 0 and 1."""
    return isinstance(value, list) and any(isinstance(one, float) and not one.is_integer() for one in value)


def _signs(value: Any, text: str) -> list[bool]:
    """The signs of a text, at the positions of another text's tags."""
    *pieces, after = text.split(TAG)
    at = 0
    signs: list[bool] = []
    for piece in pieces:
        sign = value[at + len(piece) :][:1] if isinstance(value, str) and value.startswith(piece, at) else ""
        if sign not in ("+", "-"):
            raise ValueError(f"differs from `input` at step {len(signs) + 1}")
        signs.append(sign == "+")
        at += len(piece) + 1
    if value[at:].strip() != after.strip():
        raise ValueError("goes on behind the last step")
    return signs


def _row(rollout: Rollout, skipped: Counter[str]) -> Row:
    labelled = labelled_steps(rollout)
    known, labels = labelled.known()
    if not known:
        raise DataError("responses whose first step has no label")
    steps = [step.strip() for step in known]
    if not (steps[0].startswith(FIRST) and all(_MARKER.match(step) for step in steps)):
        steps = [f"Step {number}: {step}" for number, step in enumerate(steps, 1)]
    question = as_text(rollout.prompt)
    tagged = _tagged(question, steps, [TAG] * len(steps))
    try:
        _cut(tagged)
    except DataError as error:
        raise DataError(f"responses or prompts that hold the format's marks ({error})") from error
    skipped["steps from the first without a label on"] += len(labelled.steps) - len(steps)
    signs = [_SIGNS[label] for label in labels]
    row: Row = {"input": tagged, "label": _tagged(question, steps, signs)}
    row |= {"task": rollout.extra["task"]} if "task" in rollout.extra else {}
    return row | ({"value": signs} if "value" in rollout.extra else {})


def _tagged(question: str, steps: Sequence[str], tags: Sequence[str]) -> str:
    return f"{question.strip()} " + "\n".join(f"{step} {tag}" for step, tag in zip(steps, tags, strict=True))


PLUGIN = MathShepherd
