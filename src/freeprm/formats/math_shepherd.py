"""Math-Shepherd's rows: a question and its steps in one text, tagged step by step, beside the same text with labels.

    {"input": "Q Step 1: a ки\\nStep 2: b ки", "label": "Q Step 1: a +\\nStep 2: b -", "task": "GSM8K"}

OpenRLHF's variant (zhuzilin/Math-Shepherd) has the labels by themselves too, or only so: "value": ["+", "-"], or how
likely each step is to be right: "value": [0.9, 0.2], which becomes `step_values` (soft labels).

Read: the question ends where `Step 1: ` begins, and is the prompt; `steps` and `step_labels` are the steps between the
tags; the response is the steps, a line break between two. The labels are Monte-Carlo estimates of the steps; of the
outcome the row says nothing. The id is a hash of the question. `task` is carried along.

Written: rows with those columns, `value` where the row came with it; steps that do not begin with `Step k:` get it.
Lost are the outcome and gold answers, whitespace around the question and between steps, and steps from the first
without a label on.

Source: Wang et al. 2023, arXiv:2312.08935; peiyi9979/Math-Shepherd on the Hub.
"""

import re
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from freeprm.core.step_labels import first_error, labelled_steps
from freeprm.errors import DataError, RecordError
from freeprm.formats.base import Written, rollouts_of, write_each
from freeprm.io.columns import Fields, id_from
from freeprm.io.conversations import as_text
from freeprm.io.rows import Row, Source
from freeprm.types import Group, Rollout

TAG = "ки"
FIRST = "Step 1: "
_MARKER = re.compile(r"^\s*Step \d+:", re.MULTILINE)
_SIGNS = {True: "+", False: "-"}


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
        fields = Fields(row, source)
        text = fields.text("input")
        try:
            question, steps = _cut(text)
        except DataError as error:
            reason = f"input has {error}"
            raise RecordError(
                f"{source}: {reason}; expected a question and steps that end in {TAG}", reason=reason
            ) from error
        soft = None if fields.has("label") else _soft(fields, count=len(steps))
        labels = _labels(fields, text, count=len(steps)) if soft is None else None
        known = {"step_values": soft} if labels is None else {"step_labels": labels, "first_error": first_error(labels)}
        yield Rollout(
            problem_id=id_from(question),
            sample_idx=0,
            prompt=question,
            response="\n".join(steps),
            extra={
                "steps": steps,
                **known,
                **({"value": row["value"]} if "value" in row else {}),
                **fields.others("input", "label", "value"),
            },
        )

    def write(self, groups: Sequence[Group]) -> Written:
        """A row of each rollout with step labels.

        Raises:
            DataError: none has them.
        """
        return write_each(rollouts_of(groups), _row, needs="step labels (`step_labels` or `first_error`)")


def _cut(text: str) -> tuple[str, list[str]]:
    """The question and the steps of a tagged text; DataError says what it has that it should not."""
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


def _soft(fields: Fields, *, count: int) -> list[float] | None:
    """`value` where it says how likely steps are to be right: numbers between 0 and 1, not all of them 0 or 1."""
    value = fields.row.get("value")
    floats = isinstance(value, list) and any(isinstance(one, float) and not one.is_integer() for one in value)
    if not floats:
        return None
    expected = "{count} numbers from 0 to 1, one for each step"
    numbers = fields.numbers("value")
    if len(numbers) != count or not all(0 <= one <= 1 for one in numbers):
        raise fields.wrong("value", expected, count=count)
    return list(numbers)


def _labels(fields: Fields, text: str, *, count: int) -> list[bool]:
    from_value = fields.labels("value", count=count, of="step") if fields.has("value") else None
    if from_value is not None and not fields.has("label"):
        return from_value
    expected = f"the text of `input` with + or - in place of each {TAG}"
    labels = fields.get("label", lambda value: _signs(value, text), expected=expected)
    if from_value not in (None, labels):
        raise fields.wrong("value", "the labels that `label` has")
    return labels


def _signs(value: Any, text: str) -> list[bool]:
    """The signs that stand in a text where another has its tags."""
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
