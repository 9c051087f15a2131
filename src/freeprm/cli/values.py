"""Values on the command line: names with commas, and `name=value` of several kinds."""

from collections.abc import Mapping, Sequence
from typing import Any, get_args

from freeprm.errors import ConfigError


def read_mapping(kind: Any, texts: Sequence[str], flag: str) -> Any:
    """`name=value` by the setting's type: texts, numbers, anything; or one text for all.

    Args:
        kind: of the setting, `Mapping[str, VALUE]` or `str | Mapping[str, str]`.
        texts: one for each use of the flag.
        flag: with its dashes, for messages.

    Raises:
        ConfigError: another form.
    """
    parts = get_args(kind)
    if str in parts and any(get_args(part) for part in parts):
        return read_kinds(texts, flag)
    value = parts[1]
    if value is float:
        return read_shares(texts, flag)
    if value is str:
        return read_map(texts, flag)
    from freeprm.io.config import read_assignments

    return read_assignments(texts)


def read_map(texts: Sequence[str], flag: str = "--map") -> dict[str, str]:
    """`ours=theirs` as a dictionary; a ConfigError without `=`, or for a second value."""
    pairs: dict[str, str] = {}
    for text in texts:
        ours, equals, theirs = text.partition("=")
        if not equals or not ours or not theirs:
            raise ConfigError(f"{flag} {text}: expected ours=theirs, e.g. {flag} correct=label")
        if pairs.setdefault(ours, theirs) != theirs:
            raise ConfigError(f"{flag} {text}: {ours} is {pairs[ours]} already")
    return pairs


def read_shares(texts: Sequence[str], flag: str) -> dict[str, float]:
    """`runs/base=0.5` as a source with its share; a ConfigError without a number, or for a repeated source."""
    shares: dict[str, float] = {}
    for text in texts:
        source, _, share = text.rpartition("=")
        try:
            number = float(share)
        except ValueError:
            source = ""
        if not source:
            raise ConfigError(f"{flag} {text}: expected ROLLOUTS=SHARE, e.g. {flag} runs/base=0.5")
        if source in shares:
            raise ConfigError(f"{flag} {text}: {source} has a share already; expected each source once")
        shares[source] = number
    return shares


def read_kinds(texts: Sequence[str], flag: str) -> str | Mapping[str, str]:
    """`KIND` for all scorers, or `SCORER=KIND` for each."""
    if len(texts) == 1 and "=" not in texts[0]:
        return texts[0]
    pairs = [text.rpartition("=") for text in texts]
    if bare := [text for text, (scorer, _, _) in zip(texts, pairs, strict=True) if not scorer]:
        raise ConfigError(f"{flag} {bare[0]}: expected SCORER=KIND, or one KIND for all scorers")
    return {scorer: kind for scorer, _, kind in pairs}


def read_names(text: str) -> list[str]:
    """`min, sum` as names; a text with a colon, which may contain commas, is one name."""
    names = [text] if ":" in text else [part.strip() for part in text.split(",")]
    if not all(names):
        raise ConfigError(f"{text!r}: expected names with commas between them, e.g. min,sum")
    return names


def read_numbers(text: str) -> list[int]:
    """`4,16,64` as numbers; a ConfigError unless they are whole numbers above 0."""
    try:
        numbers = [int(part) for part in text.split(",")]
    except ValueError as error:
        raise ConfigError(f"{text}: expected whole numbers with commas, e.g. 4,16,64") from error
    if min(numbers) < 1:
        raise ConfigError(f"{text}: expected numbers from 1")
    return numbers
