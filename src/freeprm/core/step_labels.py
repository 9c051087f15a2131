"""The steps of a response with their labels, from whichever columns of a rollout say so."""

from collections.abc import Sequence
from typing import NamedTuple

from freeprm.core.steps import SPLITTERS, auto
from freeprm.errors import DataError
from freeprm.types import Rollout


class LabelledSteps(NamedTuple):
    """The texts of K steps, and K labels: true, false, or None where not known."""

    steps: list[str]
    labels: list[bool | None]

    @property
    def first_error(self) -> int | None:
        """Index of the first wrong step; None where none is known to be."""
        return first_error(self.labels)

    def known(self) -> tuple[list[str], list[bool]]:
        """The steps up to the first without a label, with their labels."""
        labels: list[bool] = []
        for label in self.labels:
            if label is None:
                break
            labels.append(label)
        return self.steps[: len(labels)], labels


class JudgedSteps(NamedTuple):
    """A response whose outcome and first error are known."""

    correct: bool
    labelled: LabelledSteps


def judged_steps(rollout: Rollout) -> JudgedSteps:
    """The outcome of a response, and its steps with labels that say which is the first wrong one.

    Raises:
        DataError: as `labelled_steps`; no outcome, or a step of unknown label before any wrong one. Equal messages for
            equal reasons, so that they can be counted together.
    """
    if rollout.correct is None:
        raise DataError("responses without label (correct)")
    labelled = labelled_steps(rollout)
    if None in labelled.labels[: labelled.first_error]:
        raise DataError("responses with a step of unknown label and no wrong one before it")
    return JudgedSteps(rollout.correct, labelled)


def first_error(labels: Sequence[bool | None]) -> int | None:
    """Index of the first wrong step; None where none is known to be."""
    return next((index for index, label in enumerate(labels) if label is False), None)


def steps_of(rollout: Rollout, *, count: int | None = None) -> list[str]:
    """The texts of a response's steps: those it came with, else the response as a splitter cuts it.

    Args:
        rollout: has `extra["steps"]`, which are given back as they are, or is cut, without whitespace around a step.
        count: how many there must be, where that is known: the first splitter decides that finds so many.

    Raises:
        DataError: the response is empty, or there are not `count` steps. The message says no more than that, so that
            equal ones can be counted together.
    """
    given = rollout.extra.get("steps")
    if isinstance(given, Sequence) and not isinstance(given, str) and all(isinstance(step, str) for step in given):
        cuts = [list(given)]
    else:
        splitters = [auto] if count is None else [auto, *SPLITTERS.values()]
        cuts = [
            [rollout.response[span.start : span.stop].strip() for span in cut(rollout.response)] for cut in splitters
        ]
    if not cuts[0]:
        raise DataError("empty responses")
    found = next((steps for steps in cuts if count is None or len(steps) == count), None)
    if found is None:
        raise DataError("responses with another number of steps than step labels")
    return found


def labelled_steps(rollout: Rollout) -> LabelledSteps:
    """The steps of a response with their labels (`step_labels`), or with what `first_error` tells of them.

    Steps before the first wrong one are right; of those after it nothing is known.

    Raises:
        DataError: nothing is known of the steps, or of another number of steps. The message says no more than that, so
            that equal ones can be counted together.
    """
    labels, error = rollout.extra.get("step_labels"), rollout.extra.get("first_error")
    if isinstance(labels, Sequence) and all(label is None or isinstance(label, bool) for label in labels):
        return LabelledSteps(steps_of(rollout, count=len(labels)), list(labels))
    if "first_error" not in rollout.extra:
        raise DataError("responses without step labels")
    steps = steps_of(rollout)
    if error is None:
        return LabelledSteps(steps, [True] * len(steps))
    if isinstance(error, bool) or not isinstance(error, int) or not 0 <= error < len(steps):
        raise DataError("responses whose first_error is none of their steps")
    return LabelledSteps(steps, [*[True] * error, False, *[None] * (len(steps) - error - 1)])
