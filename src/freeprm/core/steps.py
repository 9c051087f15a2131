"""Cutting a response into steps, and steps into token ranges.

A splitter is a function from a text to character spans that tile it: nothing is rewritten, left out or counted twice.
Whitespace between two steps belongs to the first of them. To add a splitter, write the function and name it in
`SPLITTERS`.

In an unfinished text, a cut is settled if the splitter makes it whatever follows. Splitters look no further than the
first character behind a cut, or the end of the marker behind it, and no cut depends on a later one. So the settled cuts
are those that remain when a letter is appended: it is in no marker, it completes none, and it undoes cuts that only the
end of the text makes (`Step 2` may become `Step 21 apples`). This does not hold for `auto`: a marker far below changes
all cuts above.
"""

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Literal, NamedTuple

from freeprm.errors import ConfigError, SpanError
from freeprm.io.config import suggestion
from freeprm.types import Span

Splitter = Callable[[str], list[Span]]

Reasoning = Literal["include", "exclude", "apart"]
"""What becomes of a section of reasoning before the answer; see `steps_in`."""
TOKENS = "tokens"
"""The name of one step a token. It cuts token ids, not text, so scorers handle it themselves."""

# `Step 3:`, `## Step 3: ...`, `**Step 3:**`, `- Step 3.`, and `### Step 3` alone on its line.
_MARKER = re.compile(
    r"^[^\S\n]*(?P<marker>(?:#{1,6}[^\S\n]*|[-*•>][^\S\n]+)?[*_]{0,3}step[^\S\n]*\d+"
    r"(?:[*_]{0,3}[^\S\n]*(?:[:.)–—-]|$)|[*_]{2,3}))",
    re.IGNORECASE | re.MULTILINE,
)
_STOP = re.compile(r"(?:(?<![.!?])(?P<mark>[.!?]+)(?:[\"'”’)\]}*_]|\$|\\[\])])*+\s++|[。！？][”’」』）]*+\s*+)(?=\S)")
_WORD_BEFORE = re.compile(r"[^\W_](?:[\w.]*[^\W_])?$")
_ABBREVIATIONS = frozenset({
    "E.g", "I.e", "al", "approx", "cf", "e.g", "eq", "eqs", "fig", "i.e", "pp", "resp", "viz", "vs",
    "Dr", "Eq", "Eqs", "Fig", "Figs", "Jr", "Mr", "Mrs", "Ms", "Prof", "Sr", "St", "Thm",
})  # fmt: skip
_ENUMERATOR = re.compile(r"[^\S\n]*(?:[-*•>#]+[^\S\n]+)?[*_]{0,3}(?:\(?(?:\d{1,3}|[A-Za-z])|[Ss]tep \d{1,3})$")
_THOUGHTS = r"[^<>\[\]\s]*(?:think|thought|reason)[^<>\[\]\s/]*[>\]]"
_OPENS = re.compile(rf"\s*[<\[](?!/){_THOUGHTS}", re.IGNORECASE)
_CLOSES = re.compile(rf"(?:[<\[]/|<\|END_){_THOUGHTS}\s*", re.IGNORECASE)
_OPENS_SENTENCE = frozenset("*#_>`$\\([{\"'“‘«-•|")


def step_markers(text: str) -> list[Span]:
    """Cut before each marker that opens a line, such as `Step 3:`, `## Step 3:` or `**Step 3:**`.

    Text before the first marker belongs to the first step; without a marker there is one step.
    """
    return _tiles(text, [found.start("marker") for found in _MARKER.finditer(text)][1:])


def lines(text: str) -> list[Span]:
    """Cut after each newline; blank lines stay with the line before them."""
    return _tiles(text, _ends_of_whitespace(text, n_newlines=1))


def blank_lines(text: str) -> list[Span]:
    """Cut after each run of blank lines."""
    return _tiles(text, _ends_of_whitespace(text, n_newlines=2))


def sentences(text: str) -> list[Span]:
    """Cut after `.`, `!` or `?` with whitespace and something that opens a sentence behind it.

    That is a capital, a digit, Markdown or LaTeX. Decimals, abbreviations (`e.g.`, `Dr.`) and numbers or
    letters that enumerate lines (`1.`, `(b)`) end no sentence.
    """
    return _tiles(text, [found.end() for found in _STOP.finditer(text) if _ends_sentence(text, found)])


def auto(text: str) -> list[Span]:
    """Step markers if there is at least one, else blank lines if there are any, else lines."""
    if _MARKER.search(text):
        return step_markers(text)
    paragraphs = blank_lines(text)
    return paragraphs if len(paragraphs) > 1 else lines(text)


SPLITTERS: Mapping[str, Splitter] = {
    splitter.__name__: splitter for splitter in (auto, step_markers, lines, blank_lines, sentences)
}
"""Splitters of text by name."""


def splitter(name: str) -> Splitter:
    """The splitter of this name.

    Raises:
        ConfigError: there is none; "tokens" is a granularity of scorers, not a splitter of text.
    """
    if name in SPLITTERS:
        return SPLITTERS[name]
    known = f"expected one of {', '.join(SPLITTERS)}, or {TOKENS!r} where scores are asked for by token"
    raise ConfigError(f"splitter {name!r}: {known}.{suggestion(name, {*SPLITTERS, TOKENS} - {name})}")


def steps_in(text: str, name: str, reasoning: Reasoning = "include") -> list[Span]:
    """Spans of the steps that a splitter cuts.

    Args:
        text: a response.
        name: of the splitter.
        reasoning: `include` takes the text as one; `apart` cuts the reasoning and the answer behind it one by one, so
            that no step holds of both, and markers in the answer do not decide about the reasoning; `exclude` cuts the
            answer alone.

    Returns:
        K spans that tile the text; with `exclude`, the text from `answer_start` on.
    """
    cut = splitter(name)
    if reasoning == "include":
        return cut(text)
    start = answer_start(text)
    at = len(text) if start is None else start
    answer = [Span(at + begin, at + stop) for begin, stop in cut(text[at:])]
    return answer if reasoning == "exclude" else [*cut(text[:at]), *answer]


def answer_start(text: str) -> int | None:
    """Where a response's answer begins, behind its section of reasoning and the whitespace after it.

    The section ends with the first closing tag: `</think>`, `[/THINK]`, `<|END_THINKING|>`, `</reasoning>`. Its opening
    tag may stand in the prompt.

    Returns:
        0 without such a section; None where it is opened and never closed.
    """
    closed = _CLOSES.search(text)
    if closed is not None:
        return closed.end()
    return None if _OPENS.match(text) else 0


def given_steps(text: str, steps: Sequence[str]) -> list[Span]:
    """Spans of the caller's steps in the text, each with the whitespace behind it.

    Args:
        steps: K texts, in order, with nothing but whitespace between them.

    Returns:
        K spans that tile the text.

    Raises:
        SpanError: a step is empty or is not where the one before ends, or text is left over.
    """
    starts, at = [], 0
    for index, step in enumerate(steps):
        wanted = step.strip()
        if not wanted:
            raise SpanError(f"step {index} is empty; leave it out")
        at = _skip_whitespace(text, at)
        if not text.startswith(wanted, at):
            raise SpanError(
                f"step {index}, {_shown(wanted)}, is not at character {at}, where the response goes on with "
                f"{_shown(text[at:])}; expected the steps in order, with only whitespace between them"
            )
        starts.append(at)
        at += len(wanted)
    at = _skip_whitespace(text, at)
    if at < len(text) or len(steps) < bool(text):
        raise SpanError(f"the steps end at character {at}, but the response goes on with {_shown(text[at:])}")
    return _tiles(text, starts[1:])


def token_spans(tokens: Sequence[Span], steps: Sequence[Span], *, text: str, start: int = 0) -> list[Span]:
    """The tokens of each step.

    A token belongs to the step that holds its first character that is not whitespace, or its first
    character where it is all whitespace: ` The` to the sentence that it opens, `.\\n\\n` to the one that it
    ends. Empty tokens at the end of the text (end of turn) belong to the last step. A step inside a token
    that began in an earlier step has no token: its range is empty and its reward, an empty sum, is zero.

    Args:
        tokens: (T,) characters of the text that each token covers, in order.
        steps: K character spans that tile the text.
        text: what both are spans of.
        start: where in the text tokens and steps begin.

    Returns:
        K ranges of token indices, tiling 0..T.

    Raises:
        SpanError: the steps do not tile the text, or there are tokens but no steps.
    """
    check_tiling(steps, len(text), start=start)
    if tokens and not steps:
        raise SpanError(f"{len(tokens)} tokens but no steps; leave out an empty response")
    ranges, n_taken = [], 0
    for index, step in enumerate(steps):
        first, last = n_taken, index == len(steps) - 1
        while n_taken < len(tokens) and (last or _first_character(tokens[n_taken], text) < step.stop):
            n_taken += 1
        ranges.append(Span(first, n_taken))
    return ranges


def check_tiling(spans: Sequence[Span], length: int, *, start: int = 0) -> None:
    """Raise a SpanError for the first span, counted from 0, that breaks the tiling of start..length."""
    end = start
    for index, span in enumerate(spans):
        if span.start != end:
            before = f"step {index - 1} ends at {end}" if index else f"the response starts at {start}"
            rule = "spans must not overlap" if span.start < end else "spans must leave no gap"
            raise SpanError(f"step {index} starts at {span.start} but {before}; {rule}")
        if span.stop < span.start:
            raise SpanError(f"step {index} starts at {span.start} but stops at {span.stop}, before its start")
        end = span.stop
    if end != length:
        raise SpanError(f"the last step ends at {end} but the response at {length}; spans must cover all of it")


def _tiles(text: str, cuts: Iterable[int]) -> list[Span]:
    """The text cut at ascending positions, without cuts that leave no visible text before them."""
    bounds = [0]
    first = _skip_whitespace(text, 0)
    bounds.extend(cut for cut in cuts if first < cut < len(text))
    return [Span(start, stop) for start, stop in zip(bounds, [*bounds[1:], len(text)], strict=True) if text]


def _ends_of_whitespace(text: str, *, n_newlines: int) -> list[int]:
    """Ends of the runs of whitespace with at least so many newlines."""
    return [found.end() for found in re.finditer(r"\s+", text) if found.group().count("\n") >= n_newlines]


def _ends_sentence(text: str, found: re.Match[str]) -> bool:
    following = text[found.end()]
    if found["mark"] is None:  # a full stop of Chinese or Japanese needs no whitespace
        return True
    if not (following.isupper() or following.isdigit() or following in _OPENS_SENTENCE):
        return False
    if found["mark"] != ".":
        return True
    before = text[max(0, found.start() - 20) : found.start()]
    opening = before.rpartition("\n")[2] if "\n" in before or found.start() <= 20 else None
    word = _WORD_BEFORE.search(before)
    is_enumerator = opening is not None and _ENUMERATOR.match(opening)
    return not is_enumerator and not (word and word.group() in _ABBREVIATIONS)


def _first_character(token: Span, text: str) -> int:
    at = _skip_whitespace(text, token.start)
    return at if at < token.stop else token.start


def _skip_whitespace(text: str, at: int) -> int:
    while at < len(text) and text[at].isspace():
        at += 1
    return at


def _shown(text: str) -> str:
    return repr(text[:40] + "..." if len(text) > 40 else text)


# Steps of an unfinished text.

SETTLING = tuple(one.__name__ for one in (step_markers, lines, blank_lines, sentences))
"""Splitters with settled cuts."""
_LETTER = "a"  # in no marker, mark or newline
_WORD = re.compile(r"(?<=[ \t\r\n])\S")


def check_settling(name: str) -> str:
    """The name; a ConfigError if there is no such splitter, or its cuts are not settled before a text ends."""
    if name not in SETTLING:
        known = ", ".join(SETTLING)
        if name != "tokens":
            splitter(name)
        raise ConfigError(
            f"splitter {name!r}: what it cuts is not known before a response ends, so no sample can be abandoned; "
            f"choose one of {known}, where the reward model was trained for such steps"
        )
    return name


def settled_steps(text: str, name: str) -> list[Span]:
    """The first steps of every text that begins with this one.

    A cut counts as settled only if a word begins there or later. So tokenizers that join no words (all that split text
    before they merge, such as byte-level BPE) always have the same tokens before it.

    Returns:
        Spans that tile the text up to the last settled cut; none if there is none.
    """
    words = [found.start() for found in _WORD.finditer(text)]
    last = words[-1] if words else 0
    cuts = [span.start for span in splitter(name)(text + _LETTER) if 0 < span.start <= last]
    return [Span(start, stop) for start, stop in zip([0, *cuts], cuts, strict=False)]


# Beginnings of responses up to a step's end.


class Prefix(NamedTuple):
    """The beginning of at least one response."""

    problem_id: str
    text: str


class Prefixes(NamedTuple):
    """The beginnings of B responses."""

    distinct: list[Prefix]
    """In order of first appearance."""
    indices: list[tuple[int, ...]]
    """(B,) for each response, the index of the prefix before each of its cuts: K - 1 for K steps."""

    @property
    def n_repeated(self) -> int:
        """Prefixes that an earlier response to the same problem has too."""
        return sum(map(len, self.indices)) - len(self.distinct)


def prefixes(problem_ids: Sequence[str], responses: Sequence[str], steps: Sequence[Sequence[Span]]) -> Prefixes:
    """The distinct beginnings of responses up to a step's end, without whole responses.

    Args:
        problem_ids: (B,) problem of each response.
        steps: (B,) K spans each that tile the response.
    """
    found: dict[Prefix, int] = {}
    indices = []
    for problem_id, response, spans in zip(problem_ids, responses, steps, strict=True):
        cuts = [Prefix(problem_id, response[: span.stop]) for span in spans[:-1]]
        indices.append(tuple(found.setdefault(cut, len(found)) for cut in cuts))
    return Prefixes(list(found), indices)
