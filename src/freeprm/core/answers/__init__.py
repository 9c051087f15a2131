"""Final answers: extraction from responses, comparison with the gold answer, and keys for voting.

    extraction    response -> answer            tokens, expressions, parsing, units    answer -> tree
    values        tree -> number                relations    relation -> the value of a name, or a set
    scalars, comparison    tree, tree -> verdict            vote_keys    tree -> key
    limits        refuses huge expressions      symbolic     comparison by math-verify

An answer is parsed whole and compared by its meaning; an answer outside of this language goes to math-verify, if that
is known to read all of it. What cannot be found, parsed or compared is None with a reason, never wrong; two empty
answers are not equal.
"""

import re
from fractions import Fraction

from freeprm.core.answers.comparison import compare
from freeprm.core.answers.extraction import CHOICE, tidy
from freeprm.core.answers.extraction import DEFAULT_EXTRACTORS as DEFAULT_EXTRACTORS
from freeprm.core.answers.extraction import EXTRACTORS as EXTRACTORS
from freeprm.core.answers.extraction import boxed as boxed
from freeprm.core.answers.extraction import extract as extract
from freeprm.core.answers.limits import exceeded_limit
from freeprm.core.answers.parsing import parse
from freeprm.core.answers.scalars import AnswerComparison as AnswerComparison
from freeprm.core.answers.scalars import Verdict as Verdict
from freeprm.core.answers.symbolic import is_for_engine, verified
from freeprm.core.answers.tokens import ParseError
from freeprm.core.answers.tree import Node, num
from freeprm.core.answers.vote_keys import canonical as canonical
from freeprm.core.answers.vote_keys import form_key
from freeprm.core.answers.vote_keys import key_among as key_among

TIMEOUT_SECONDS = 5
"""Limit on one call to math-verify in this process: an alarm signal, in the main thread only. See `io/sandbox.py`."""
NO_ANSWER = "no answer found"
NO_GOLD = "no gold answer"
DEFAULT = AnswerComparison()

_WHOLE = re.compile(r"-?\d{1,100}", re.ASCII)
_DECIMAL_COMMA = re.compile(r"-?\d+,\d+", re.ASCII)
_BOX = re.compile(r"\\(?:boxed|fbox)(?![a-zA-Z])")
_WORD = re.compile(r"(?<![\\a-zA-Z])[a-zA-Z]{2,}")
_PROSE = 12  # words
_STATED = re.compile(r"[A-Za-z ,']*(?:is:?|:)\s*\$([^$]+)\$\.?")  # `The sum is $2x$`


def equivalent(
    pred: str | None, gold: str | None, *, how: AnswerComparison = DEFAULT, seconds: int | None = TIMEOUT_SECONDS
) -> Verdict:
    """Whether two answers are equivalent, by `comparison.compare` or else by math-verify.

    Args:
        pred: the model's answer, LaTeX or not, with or without delimiters.
        gold: the right one. The order matters to math-verify if one of the two is an equation or a set.
        how: how answers are read and compared.
        seconds: limit on each call to math-verify, held in the main thread only; None if the caller has a limit.

    Returns:
        None with a reason if either is empty, not wholly readable or too large to evaluate (`limits.py`), or if the
        comparison fails or takes too long.
    """
    found = at_once(pred, gold, how=how)
    return found or verified(tidy(pred or ""), tidy(gold or ""), how, seconds)


def at_once(pred: str | None, gold: str | None, *, how: AnswerComparison = DEFAULT) -> Verdict | None:
    """The verdict of `equivalent` if it takes no symbolic engine, else None."""
    answer, right = tidy(pred or ""), tidy(gold or "")
    if not right:
        return Verdict(None, NO_GOLD)
    if not answer:
        return Verdict(None, NO_ANSWER)
    if answer.split() == right.split():
        return Verdict(True, None)
    if _WHOLE.fullmatch(answer) and _WHOLE.fullmatch(right):
        return Verdict(int(answer) == int(right), None)
    chosen, wanted = CHOICE.fullmatch(answer), CHOICE.fullmatch(right)
    if chosen and wanted and len(right) <= len("(C)"):
        return Verdict(chosen["letter"] == wanted["letter"], None)
    if reason := exceeded_limit(right):
        return Verdict(None, f"gold answer {reason}")
    if reason := exceeded_limit(answer):
        return Verdict(None, f"answer {reason}")
    return _compared(answer, right, how) if how.strict and len(how.read) > 1 else None


def _compared(answer: str, right: str, how: AnswerComparison) -> Verdict | None:
    trees: list[Node] = []
    texts: list[str] = []
    failure = None
    for name, text in (("gold answer", right), ("answer", answer)):
        found = _answer_in(text)
        if found is None:
            return None
        texts.append(found)
        try:
            trees.append(parse(found))
        except ParseError as error:
            unreadable = Verdict(None, f"{name} could not be parsed: it {error}")
            failure = failure or (Verdict(False, None) if how.unreadable_is_wrong else unreadable)
    if failure is None:
        gold, pred = trees
        if how.form:
            return Verdict(form_key(pred) == form_key(gold), None)
        if pred.kind == "list" and gold.kind == "num" and _DECIMAL_COMMA.fullmatch(answer):
            pred = _decimal(answer)
        elif gold.kind == "list" and pred.kind == "num" and _DECIMAL_COMMA.fullmatch(right):
            gold = _decimal(right)
        verdict = compare(pred, gold, how)
        if verdict.correct is not None:
            return verdict
        failure = Verdict(None, f"could not be compared: {verdict.reason}")
    return None if not how.form and is_for_engine(*texts) else failure


def _answer_in(text: str) -> str | None:
    """The answer in a box, a sentence or prose; None to let math-verify find it, e.g. in several boxes."""
    n_boxes = len(_BOX.findall(text))
    if n_boxes:
        return boxed(text) if n_boxes == 1 else None
    if stated := _STATED.fullmatch(text):
        return stated[1]
    return extract(text, ["marker"]) if len(_WORD.findall(text)) >= _PROSE else text


def _decimal(text: str) -> Node:
    """`1,22` as 1.22, if the other answer is a single number."""
    return num(Fraction(text.replace(",", ".")), len(text.partition(",")[2]))
