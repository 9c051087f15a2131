"""Steps of a text that is still being written: those that no continuation of it can change.

A cut between two steps is settled once the splitter makes it whatever comes next. All splitters here look no further
than the first character behind a cut, or the end of the marker that it stands before, and no cut depends on a later
one; a letter put behind the text therefore shows them: it is in no marker, it completes none, and it undoes those
that only the end of the text makes (`Step 2` may still become `Step 21 apples`). `auto` is not among them: a marker
far below changes how everything above is cut.

A cut is taken as settled only where a word begins, the same or a later one. So tokenizers that join no words (all
that split text before they merge, as byte-level BPE does) read what is before it as the same tokens for ever.
"""

import re

from freeprm.core.steps import blank_lines, lines, sentences, splitter, step_markers
from freeprm.errors import ConfigError
from freeprm.types import Span

SETTLING = tuple(one.__name__ for one in (step_markers, lines, blank_lines, sentences))
"""Splitters whose cuts are settled while a text is being written."""
_LETTER = "a"  # no marker, mark or newline holds it
_WORD = re.compile(r"(?<=[ \t\r\n])\S")


def check_settling(name: str) -> str:
    """The name of a splitter whose cuts can be settled before a text ends.

    Raises:
        ConfigError: another, or none of that name.
    """
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

    Args:
        text: the beginning of a response.
        name: a name in `SETTLING`.

    Returns:
        Spans that tile the text from its beginning to the last settled cut; none where there is none.
    """
    words = [found.start() for found in _WORD.finditer(text)]
    last = words[-1] if words else 0
    cuts = [span.start for span in splitter(name)(text + _LETTER) if 0 < span.start <= last]
    return [Span(start, stop) for start, stop in zip([0, *cuts], cuts, strict=False)]
