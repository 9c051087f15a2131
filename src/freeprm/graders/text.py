"""Answers as words: equal if their characters are, up to spaces and the options."""

import re
import unicodedata
from dataclasses import dataclass

from freeprm.core.answers import NO_ANSWER, NO_GOLD, Verdict
from freeprm.core.answers.extraction import tidy

_ARTICLES = re.compile(r"\b(?:a|an|the)\b", re.IGNORECASE)


@dataclass(frozen=True, kw_only=True)
class Text:
    """Equality of texts; Unicode's compatible forms (a ligature, a full-width digit) are the same."""

    ignore_case: bool = True
    """`Paris` is `paris`."""
    ignore_punctuation: bool = False
    """`forty-two!` is `fortytwo`; also that -5 is 5, so not for numbers."""
    ignore_articles: bool = False
    """`the Nile` is `Nile`."""

    def __call__(self, pred: str | None, gold: str | None) -> Verdict:
        """See `Grader`."""
        answer, right = self._plain(pred or ""), self._plain(gold or "")
        if not right:
            return Verdict(None, NO_GOLD)
        return Verdict(answer == right, None) if answer else Verdict(None, NO_ANSWER)

    at_once = __call__  # of every pair; see `QuickGrader`

    def _plain(self, text: str) -> str:
        text = unicodedata.normalize("NFKC", tidy(text))
        if self.ignore_case:
            text = text.casefold()
        if self.ignore_articles:
            text = _ARTICLES.sub(" ", text)
        if self.ignore_punctuation:
            text = "".join(letter for letter in text if not unicodedata.category(letter).startswith("P"))
        return " ".join(text.split())


PLUGIN = Text
