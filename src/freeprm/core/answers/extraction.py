"""Extraction of a response's final answer, without its wrappers.

Everything here takes time linear in the length of the response, except the user's own expressions and functions.
"""

import re
from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache, partial
from heapq import nlargest
from itertools import islice
from typing import Any

from freeprm.core.steps import sentences
from freeprm.errors import ConfigError, PluginError
from freeprm.io.config import suggestion
from freeprm.io.plugins import load

_BOXES = 8  # boxes to search, from the last, for one that is not empty
_WRAPPERS = 16  # nested wrappers to remove

_BRACES = re.compile(r"\\(?:boxed|fbox)\s*(?:(?P<open>\{)|(?P<bare>-?\d[^\s{}$\\]*))|\\.|[{}]", re.DOTALL)
_MARKER = re.compile(
    r"\banswer(?:\s+(?:to|for|of)\b[^.\n]{0,100}?)?\s+is\b\s*[:：]?"  # The final answer is X
    r"|\banswer[*_ ]*[:：]"  # Answer: X
    r"|^\#{4}\s*(?=[-+$€£\\.\d(])(?!\d+[.)]\s)"  # #### X, where that is no heading
    r"|^(?-i:A):"  # A: X
    r"|^[#*_ \t]*final[ \t]+answer[#*_ \t]*$"  # **Final Answer**, and X on the next line
    r"|<answer>",  # <answer>X</answer>
    re.IGNORECASE | re.MULTILINE,
)
_AFTER_MARKER = re.compile(r"[\s*_]*(?P<text>\$\$.+?\$\$|\\\[.+?\\\]|[^\n]*)", re.DOTALL)
_NEXT_QUESTION = re.compile(
    r"^[#*_ \t]*(?:Q|(?:Question|Problem|Exercise)(?:[ \t]*\d+)?|Human|User|Instruction)[*_]*[ \t]*:"
    r"|^#+[ \t]*(?:Instruction|Question|Problem)\b|</s>"
    r"|<\|(?:im_start|im_end|endoftext|eot_id|end_of_text|start_header_id)\|>",
    re.MULTILINE,
)
_QUESTIONS = 8  # maximum of further questions at which a text is cut
_LEAD = re.compile(
    r"(?:(?:so|thus|hence|therefore)\b,?\s*)?(?:(?:the|my|our)\s+)?(?:(?:final|correct)\s+)?answer\s*(?:is\b|:|=)\s*:?\s*(?=\S)",
    re.IGNORECASE,
)
_FULL_STOP = re.compile(r"(?<!\\right)(?<!\\left)(?<!\.\.)(?<!\d\.)(?<!\\)[.,;。]$")
_WRAPPED = re.compile(
    r"\$\$(?P<a>[^$]+)\$\$|\$(?P<b>(?:\\\$|[^$])+)\$|\\\((?P<c>(?:(?!\\[()]).)+)\\\)|\\\[(?P<d>(?:(?!\\[\[\]]).)+)\\\]"
    r"|\\(?:text|textbf|textrm|mathrm|mathbf|mbox)\s*\{(?P<e>[^{}\\]*)\}",
    re.DOTALL,
)


CHOICE = re.compile(r"(?:\\text(?:bf)?\{)?\(?(?P<letter>[A-J])(?:\)?\}?|(?:\)|[.:]|\})\}?[\s\\].+)", re.DOTALL)
"""A letter that is chosen: `C`, `(C)`, `(C) 42`, `C. x = 42`, `\\textbf{(C)}\\ 42`."""


def boxed(response: str) -> str | None:
    r"""The content of the last `\boxed{}` or `\fbox{}` that is not empty; braces nest."""
    boxes: list[tuple[int, int]] = []
    opened: list[int | None] = []  # start of the content for a box, None for other braces
    for found in _BRACES.finditer(response):
        if found["bare"]:
            boxes.append(found.span("bare"))
        elif found["open"] or found.group() == "{":
            opened.append(found.end() if found["open"] else None)
        elif found.group() == "}" and opened and (start := opened.pop()) is not None:
            boxes.append((start, found.start()))
    last_first = nlargest(_BOXES, boxes)
    return next((answer for start, stop in last_first if (answer := tidy(response[start:stop]))), None)


def marker(response: str) -> str | None:
    """What the last `The answer is X`, `Answer: X`, `A: X`, `#### X`, `<answer>X</answer>` or `**Final Answer**` says.

    That is the rest of the sentence or formula, or the next line.
    """
    for found in reversed(list(_MARKER.finditer(response))):
        behind = _AFTER_MARKER.match(response, found.end())
        text = behind["text"].partition("</answer>")[0].strip() if behind else ""
        sentence = "is " + text  # so that `5.` in front is not taken for the number of a line
        if answer := tidy(text[: sentences(sentence)[0].stop - 3]):
            return answer
    return None


def last_number(response: str) -> str | None:
    """The last number in the text, for models that end without a marker. Not a default."""
    found = re.findall(r"-?\d+(?:,\d{3})*(?:\.\d+)?", response)
    return found[-1] if found else None


EXTRACTORS: Mapping[str, Callable[[str], str | None]] = {"boxed": boxed, "marker": marker, "last_number": last_number}
"""Ways to find the final answer; a new one is one function here."""
DEFAULT_EXTRACTORS = ("boxed", "marker")


def extract(response: str, extractors: Sequence[str] = DEFAULT_EXTRACTORS) -> str | None:
    r"""The final answer of a response: the first extractor that finds one decides.

    So a `\boxed{}` wins over a marker, wherever they stand, and the last of each kind over those before it.
    Wrappers (`$...$`, `\(...\)`, `\text{}`) and a full stop are taken off. What follows an answer and begins a next
    question (`Q:`, `Question:`, a chat template's `<|im_start|>`), as models without an end of text write, is cut off.

    Args:
        response: the text.
        extractors: see `extractor`, also for the errors raised.
    """
    functions = [extractor(name) for name in extractors]
    cuts = [found.start() for found in islice(_NEXT_QUESTION.finditer(response), _QUESTIONS)]
    for stop in [*cuts, len(response)]:
        found = (function(response[:stop]) for function in functions)
        answer = next((answer for answer in found if answer is not None), None)
        if answer is not None:
            return answer
    return None


@lru_cache(maxsize=64)
def extractor(name: str) -> Callable[[str], str | None]:
    r"""What finds answers in this way.

    Args:
        name: one of `EXTRACTORS`; `regex:PATTERN`, whose last match decides, by its first group where it has one; or
            `package.module:name`, a function of the user's own from a response to an answer or None.

    Raises:
        ConfigError: no such extractor, or the pattern is none.
        PluginError: the function cannot be imported.
    """
    kind, colon, rest = name.partition(":")
    if kind == "regex" and colon:
        try:
            return partial(_last_match, re.compile(rest, re.MULTILINE))
        except re.error as error:
            raise ConfigError(f"extractor {name!r}: {error}; expected a regular expression") from error
    if colon:
        function = load("extractors", name)
        if not callable(function):
            raise PluginError(f"{name}: is {function!r}; expected a function from a response to an answer")
        return partial(_checked, name, function)
    if name not in EXTRACTORS:
        known = f"{', '.join(EXTRACTORS)}, regex:PATTERN or package.module:name"
        raise ConfigError(f"extractor {name!r}: expected one of {known}.{suggestion(name, EXTRACTORS)}")
    return EXTRACTORS[name]


def _last_match(pattern: re.Pattern[str], response: str) -> str | None:
    answer = None
    for found in pattern.finditer(response):
        answer = tidy(found[1] or "" if pattern.groups else found[0]) or answer
    return answer


def _checked(name: str, function: Callable[[str], Any], response: str) -> str | None:
    answer = function(response)
    if not isinstance(answer, str | None):
        raise TypeError(f"{name} found an answer of type {type(answer).__name__}; expected str or None")
    return tidy(answer or "") or None


def tidy(text: str) -> str:
    """An answer without its wrappers."""
    for _ in range(_WRAPPERS):
        before, text = text, _FULL_STOP.sub("", text.strip()).strip("*`").strip()
        if found := _LEAD.match(text):
            text = text[found.end() :]
        elif found := _WRAPPED.fullmatch(text):
            text = found[found.lastgroup or 0]
        elif text.startswith(("\\boxed", "\\fbox")) and (found := _BRACES.match(text)) and found["open"]:
            inside = text[found.end() : -1]
            text = inside if text.endswith("}") and _balanced(inside) else text
        if text == before:
            break
    return text if text.strip("$\\()[]{}:") else ""


def _balanced(text: str) -> bool:
    depth = 0
    for found in _BRACES.finditer(text):
        depth += found.group().endswith("{") and found.group() != "\\{"
        depth -= found.group() == "}"
        if depth < 0:
            return False
    return depth == 0
