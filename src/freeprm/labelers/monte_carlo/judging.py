"""Completions as they are kept, and how many of a prefix are right, by the means of `freeprm grade`."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from freeprm.core.answers import Verdict
from freeprm.core.extraction import EXTRACTORS, extract
from freeprm.graders._working import Found, Pair, extracting, judging
from freeprm.graders.base import QuickGrader, missing
from freeprm.graders.base import grader as find_grader
from freeprm.io.sandbox import Limits


class Completion(NamedTuple):
    """What is kept of a completion; a list in a note."""

    prefix: int
    """Which one it completes."""
    sample_idx: int
    pred: str | None
    """The answer found in prefix and completion."""
    reason: str | None
    """Why the search for one failed."""
    truncated: bool
    n_prompt: int | None
    """As `Sampled.n_prompt_tokens`, and so on."""
    n_read: int | None
    n_generated: int | None


class Tally(NamedTuple):
    """Completions of one prefix."""

    right: int = 0
    wrong: int = 0
    """Those without an answer included: they do not reach the right one."""
    without: int = 0
    """Of these, those without an answer."""
    undecided: int = 0
    """The grader or an extractor gave no verdict; they count as neither."""

    @property
    def decided(self) -> int:
        return self.right + self.wrong

    @property
    def any_right(self) -> bool | None:
        """The hard label; None where nothing was decided."""
        return self.right > 0 if self.decided else None

    @property
    def share_right(self) -> float | None:
        """The soft label; None as above."""
        return self.right / self.decided if self.decided else None


@dataclass(frozen=True, kw_only=True)
class Judges:
    """What finds and judges answers."""

    grader: str
    options: Mapping[str, Any]
    extractors: tuple[str, ...]
    n_workers: int
    limits: Limits

    def found(self, responses: Sequence[str]) -> dict[str, Found]:
        """The answer in each response; extractors of the user's own work in processes with limits."""
        different = list(dict.fromkeys(responses))
        if {*self.extractors} <= {*EXTRACTORS}:
            return {response: Found(extract(response, self.extractors), None) for response in different}
        return dict(extracting(self.extractors, n_workers=self.n_workers, limits=self.limits)(different))

    def tallies(self, completions: Sequence[Completion], golds: Sequence[str]) -> list[Tally]:
        """For each prefix.

        Args:
            completions: of all prefixes.
            golds: the gold answer of each prefix.
        """
        pairs = dict.fromkeys(
            Pair(item.pred or "", golds[item.prefix])
            for item in completions
            if missing(item.pred, golds[item.prefix]) is None
        )
        verdicts = self._verdicts(list(pairs))
        tallies = [Tally()] * len(golds)
        for item in completions:
            verdict = verdicts.get(Pair(item.pred or "", golds[item.prefix]))
            tallies[item.prefix] = _counted(tallies[item.prefix], item.reason, verdict)
        return tallies

    def _verdicts(self, pairs: Sequence[Pair]) -> dict[Pair, Verdict]:
        judge = find_grader(self.grader, self.options)
        verdicts: dict[Pair, Verdict] = {}
        for pair in pairs:
            verdict = judge.at_once(*pair) if isinstance(judge, QuickGrader) else None
            if verdict is not None:
                verdicts[pair] = verdict
        others = [pair for pair in pairs if pair not in verdicts]
        if others:
            verdicts.update(judging(self.grader, self.options, n_workers=self.n_workers, limits=self.limits)(others))
        return verdicts


def _counted(tally: Tally, reason: str | None, verdict: Verdict | None) -> Tally:
    """With one more completion.

    Args:
        tally: of those before.
        reason: why the search for its answer failed.
        verdict: None where no answer was found.
    """
    if reason is not None or (verdict is not None and verdict.correct is None):
        return tally._replace(undecided=tally.undecided + 1)
    if verdict is None:
        return tally._replace(wrong=tally.wrong + 1, without=tally.without + 1)
    return tally._replace(right=tally.right + 1) if verdict.correct else tally._replace(wrong=tally.wrong + 1)
