"""What decides whether an answer is right (`Grader`)."""

from typing import Protocol

from freeprm.core.answers import Verdict


class Grader(Protocol):
    """Compares the answer found in a response with the gold answer. It may run in another process."""

    def __call__(self, pred: str | None, gold: str | None) -> Verdict:
        """True, False, or None with a reason; two empty answers are not equal."""
        ...
