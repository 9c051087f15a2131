"""Multiple choice: the letter, in the spellings that responses use.

`C`, `c`, `(C)`, `C)`, `[C]`, `C. 42`, `(C) 42`, `\\textbf{(C)}\\ 42`, `Option C`, `choice (c)`, `The answer is C`.
"""

import re
from dataclasses import dataclass

from freeprm.core.answers import Verdict
from freeprm.core.answers.extraction import tidy
from freeprm.errors import ConfigError
from freeprm.graders.base import missing

_STYLE = re.compile(
    r"\\(?:text|textbf|textrm|mathrm|mathbf|mbox|boxed)\s*\{|\\[!,;: ]|[{}$*`~]|\\(?:left|right)(?![a-z])"
)
_LEAD = re.compile(
    r"(?:the\s+)?(?:correct\s+|right\s+|final\s+)?(?:answer|option|choice)(?:\s+is)?\s*:?\s*", re.IGNORECASE
)
_ONE = re.compile(r"[(\[]?(?P<letter>[A-Za-z])(?:[)\]]|[.:)]|(?=\s*$))(?P<behind>.*)", re.DOTALL)
_SEVERAL = re.compile(r"\s*(?:,|;|/|&|\band\b)\s*|\s+", re.IGNORECASE)


@dataclass(frozen=True, kw_only=True)
class Choice:
    """Whether the same letter is chosen."""

    letters: str = "ABCDEFGHIJ"
    """The possible choices."""
    several: bool = False
    """Answers are sets of letters, `A, C` or `AC`, all of which must be right."""

    def __post_init__(self) -> None:
        if not self.letters.isalpha() or len({*self.letters.upper()}) < len(self.letters):
            raise ConfigError(f"letters: is {self.letters!r}; expected letters, each once, e.g. ABCDE")

    def __call__(self, pred: str | None, gold: str | None) -> Verdict:
        """See `Grader`."""
        absent = missing(pred, gold)
        if absent is not None:
            return absent
        chosen, right = self._chosen(pred or ""), self._chosen(gold or "")
        if not right:
            return Verdict(None, f"gold answer is not a choice of {self.letters}")
        return Verdict(chosen == right, None) if chosen else Verdict(None, f"answer is not a choice of {self.letters}")

    at_once = __call__  # of every pair; see `QuickGrader`

    def _chosen(self, text: str) -> frozenset[str]:
        text = _STYLE.sub(" ", tidy(text)).strip()
        text = _LEAD.sub("", text, count=1).strip() if _LEAD.match(text) else text
        found = _ONE.fullmatch(text)
        listed = self._list(text) if self.several else []
        chosen = listed or ([found["letter"]] if found else [])
        letters = frozenset(letter.upper() for letter in chosen)
        return letters if letters <= {*self.letters.upper()} else frozenset()

    def _list(self, text: str) -> list[str]:
        """`A, C`, `(A) and (C)` or `AC` as letters; none for any other text."""
        parts = [part.strip("()[].") for part in _SEVERAL.split(text) if part]
        if len(parts) == 1 and parts[0].isupper():
            parts = [*parts[0]]
        return parts if all(len(part) == 1 and part.isalpha() for part in parts) else []


PLUGIN = Choice
