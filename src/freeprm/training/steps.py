"""The steps of a training response with their labels: found in its row, then in its tokens.

Steps are those of the row's column `steps` (texts), else what the splitter cuts. Labels are `step_labels` (true, false
or null: hard) or `step_values` (0 to 1, or null: soft). Both are known by the response's text, so that rows are refused
or left out before anything is encoded; what the context then cuts off is dropped with its label, and counted.
"""

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from math import nan
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from freeprm.core.steps import Reasoning, answer_start, given_steps, steps_in, token_spans
from freeprm.errors import RecordError, SpanError
from freeprm.models.encoding import Encoded, Ints
from freeprm.models.scoring_input import response_name
from freeprm.types import Rollout, Span


class TextSteps(NamedTuple):
    """K steps in the text of a response."""

    spans: list[Span]
    """They tile the text, or its end from the answer on."""
    labels: list[float]
    """(K,) 1 right, 0 wrong, NaN not known; all NaN where none are asked for."""

    @property
    def outcome(self) -> bool:
        """What the labels say of the response, where nothing else does: the last label that is known.

        By completions it is the outcome itself, since behind the last step nothing is left to complete.
        """
        return next(label >= 0.5 for label in reversed(self.labels) if label == label)  # NaN equals nothing


class TokenSteps(NamedTuple):
    """The steps of a response that have a token, of those that the model reads."""

    ends: Ints
    """(K,) the last token of each, ascending; the last one is the response's."""
    labels: NDArray[np.float32]
    """(K,) as in `TextSteps`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class StepReader:
    """Reads the steps of rows.

    Args:
        splitter: of responses without a column `steps`.
        labels: `hard` or `soft`; None where no labels are needed.
        reasoning: see `core.steps.steps_in`; steps of what is excluded have labels, which are not looked at.
    """

    splitter: str
    labels: str | None
    reasoning: Reasoning = "include"

    @property
    def column(self) -> str | None:
        """Where the labels are."""
        return None if self.labels is None else _COLUMNS[self.labels].name

    def in_text(self, rollout: Rollout) -> TextSteps | None:
        """The steps of a response; None where labels are needed and it has none.

        Raises:
            RecordError: the steps are not the response's, or labels that do not fit them; names problem and sample.
        """
        labels = None if self.labels is None else _labels(rollout, _COLUMNS[self.labels])
        if self.labels is not None and labels is None:
            return None
        given = rollout.extra.get("steps")
        if given is None:
            whole = "apart" if self.reasoning == "exclude" else self.reasoning
            spans = steps_in(rollout.response, self.splitter, whole)
            origin = f"that splitter {self.splitter!r} finds; give them in a column 'steps', or choose another splitter"
        else:
            spans, origin = _given(rollout, given), "of column 'steps'"
        if labels is not None and len(labels) != len(spans):
            raise RecordError(
                f"{response_name(rollout)}: {self.column}: has {len(labels)} labels; expected one for each of the "
                f"{len(spans)} steps {origin}",
                reason=f"another number of {self.column} than steps",
            )
        found = TextSteps(spans, labels or [nan] * len(spans))
        return _of_answer(found, rollout.response) if self.reasoning == "exclude" else found


def in_tokens(steps: TextSteps, item: Encoded, response: str, counts: Counter[str]) -> TokenSteps:
    """The tokens of a response's steps, as far as the model reads it; adds labels that are lost to `counts`."""
    covered = item.spans
    text = response[: covered[-1].stop]  # less than the response only if that was cut
    begun = [span for span in steps.spans if span.start < len(text)]
    clipped = [Span(start, min(stop, len(text))) for start, stop in begun]
    whole = [len(response[:stop].rstrip()) <= len(text) for _, stop in begun]
    tokens = token_spans(covered, clipped, text=text, start=begun[0].start if begun else 0)
    labels = [label if kept else nan for label, kept in zip(steps.labels, whole, strict=False)]
    here = [index for index, span in enumerate(tokens) if span.stop > span.start]
    lost = Counter({
        "step labels cut off by the context": _known(steps.labels) - _known(labels),
        "step labels of steps without a token of their own": _known(labels) - _known([labels[i] for i in here]),
    })  # fmt: skip
    counts.update(+lost)
    return TokenSteps(
        ends=np.array([tokens[index].stop - 1 for index in here], dtype=np.int32),
        labels=np.array([labels[index] for index in here], dtype=np.float32),
    )


def _of_answer(steps: TextSteps, response: str) -> TextSteps:
    """The steps that end behind the reasoning, the first one from there on."""
    start = answer_start(response)
    begin = len(response) if start is None else start
    kept = [index for index, span in enumerate(steps.spans) if span.stop > begin]
    spans = [Span(max(begin, steps.spans[index].start), steps.spans[index].stop) for index in kept]
    return TextSteps(spans, [steps.labels[index] for index in kept])


class _Labels(NamedTuple):
    """A column of labels."""

    name: str
    expected: str
    fits: Callable[[Any], bool]
    """Whether a label, where there is one, is what is expected."""


_COLUMNS: Mapping[str, _Labels] = {
    "hard": _Labels(
        "step_labels", "true, false or null for each step", lambda value: isinstance(value, bool)
    ),
    "soft": _Labels(
        "step_values", "a number from 0 to 1, or null, for each step",
        lambda value: isinstance(value, int | float) and not isinstance(value, bool) and 0 <= value <= 1,
    ),
}  # fmt: skip


def _labels(rollout: Rollout, column: _Labels) -> list[float] | None:
    """The labels of a row, NaN where not known; None where none is."""
    given = rollout.extra.get(column.name)
    if given is None:
        return None
    name = response_name(rollout)
    reason = f"{column.name} is not {column.expected}"
    if not isinstance(given, Sequence) or isinstance(given, str):
        raise RecordError(f"{name}: {column.name}: is {given!r}; expected a list: {column.expected}", reason=reason)
    for index, value in enumerate(given):
        if value is not None and not column.fits(value):
            raise RecordError(
                f"{name}: {column.name}: has {value!r} for step {index}; expected {column.expected}", reason=reason
            )
    labels = [nan if value is None else float(value) for value in given]
    return labels if _known(labels) else None


def _given(rollout: Rollout, given: Any) -> list[Span]:
    name = response_name(rollout)
    if not isinstance(given, Sequence) or not all(isinstance(step, str) for step in given):
        raise RecordError(f"{name}: steps: is {given!r}; expected a list of texts", reason="steps is no list of texts")
    try:
        return given_steps(rollout.response, given)
    except SpanError as error:
        raise RecordError(f"{name}: steps: {error}", reason="steps that are not the response's") from error


def _known(labels: Sequence[float]) -> int:
    """How many labels there are."""
    return sum(label == label for label in labels)  # NaN equals nothing
