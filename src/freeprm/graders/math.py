"""Mathematics: answers by their meaning; sums, integrals and the like by math-verify."""

import logging
from dataclasses import dataclass

from freeprm.core.answers import AnswerComparison, Verdict, at_once, equivalent
from freeprm.core.answers.symbolic import verified


@dataclass(frozen=True, kw_only=True)
class MathGrader(AnswerComparison):
    """Whether two answers are equivalent; its options are those of `core.answers.AnswerComparison`."""

    def __call__(self, pred: str | None, gold: str | None) -> Verdict:
        """See `Grader`; without a time limit of its own."""
        return equivalent(pred, gold, how=self, seconds=None)

    def at_once(self, pred: str | None, gold: str | None) -> Verdict | None:
        """See `QuickGrader`."""
        return at_once(pred, gold, how=self)

    def warm(self) -> None:
        """See `Warm`: the imports."""
        logging.getLogger("math_verify").setLevel(logging.ERROR)  # it warns that nobody has set a limit
        verified("x", "2x", self, None)


PLUGIN = MathGrader
