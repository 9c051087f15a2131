"""Mathematics: answers by what they mean; sums, integrals and the like by math-verify."""

import logging
from dataclasses import dataclass

from freeprm.core.answers import AnswerComparison, Verdict, at_once, equivalent
from freeprm.core.answers.symbolic import verified


@dataclass(frozen=True, kw_only=True)
class MathGrader(AnswerComparison):
    """Whether two answers mean the same; its options are those of `core.answers.AnswerComparison`."""

    def __call__(self, pred: str | None, gold: str | None) -> Verdict:
        """See `Grader`; whoever calls holds the limit on time."""
        return equivalent(pred, gold, how=self, seconds=None)

    def at_once(self, pred: str | None, gold: str | None) -> Verdict | None:
        """See `QuickGrader`."""
        return at_once(pred, gold, how=self)

    def warm(self) -> None:
        """See `Warm`: the imports. What the parser learns as it reads, each worker learns by itself, side by side."""
        logging.getLogger("math_verify").setLevel(logging.ERROR)  # it warns that nobody has set a limit
        verified("x", "2x", self, None)


PLUGIN = MathGrader
