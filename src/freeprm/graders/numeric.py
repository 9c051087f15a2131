"""Numbers within a tolerance: `1,234.5`, `5 km`, `$5`, `1/3`, `\\frac{\\sqrt{2}}{2}`, `x = 2`."""

from dataclasses import dataclass
from fractions import Fraction

from freeprm.core.answers import Verdict
from freeprm.core.answers.extraction import tidy
from freeprm.core.answers.limits import exceeded_limit
from freeprm.core.answers.parsing import parse
from freeprm.core.answers.relations import stated
from freeprm.core.answers.tokens import ParseError
from freeprm.core.answers.values import Interpretation, NoValueError, constant, letters
from freeprm.errors import ConfigError
from freeprm.graders.base import missing


@dataclass(frozen=True, kw_only=True)
class Numeric:
    """|pred - gold| <= max(absolute, relative * |gold|)."""

    relative: float = 1e-6
    """Tolerance as a share of the gold answer."""
    absolute: float = 0.0
    """Tolerance in the unit of the answer."""
    percent: bool = False
    """`5%` is 0.05; else the sign is ignored, like a unit."""

    def __post_init__(self) -> None:
        if self.relative < 0 or self.absolute < 0:
            raise ConfigError(f"tolerances of {self.relative} and {self.absolute}; expected 0 or more")

    def __call__(self, pred: str | None, gold: str | None) -> Verdict:
        """See `Grader`."""
        absent = missing(pred, gold)
        if absent is not None:
            return absent
        answer, right = self._value(pred or ""), self._value(gold or "")
        if right is None:
            return Verdict(None, "gold answer is not a number")
        if answer is None:
            return Verdict(None, "answer is not a number")
        return Verdict(abs(answer - right) <= max(Fraction(self.absolute), Fraction(self.relative) * abs(right)), None)

    at_once = __call__  # of every pair; see `QuickGrader`

    def _value(self, text: str) -> Fraction | None:
        """The number in the text, whatever its name or unit, or None."""
        if exceeded_limit(text) is not None:
            return None
        try:
            node = stated(parse(tidy(text)))
            if letters(node):
                return None
            value = constant(node, Interpretation(ignore_signs=not self.percent))
        except (ParseError, NoValueError):
            return None
        if isinstance(value, Fraction):
            return value
        return Fraction(str(value)) if value.imag == 0 else None


PLUGIN = Numeric
