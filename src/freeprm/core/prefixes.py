"""The beginnings of responses up to each step's end, each different one of a problem once."""

from collections.abc import Sequence
from typing import NamedTuple

from freeprm.types import Span


class Prefix(NamedTuple):
    """The beginning of at least one response."""

    problem_id: str
    text: str


class Prefixes(NamedTuple):
    """Those of B responses."""

    distinct: list[Prefix]
    """In order of first appearance."""
    places: list[tuple[int, ...]]
    """(B,) for each response, which of them stands before each of its cuts: K - 1 for K steps."""

    @property
    def n_repeated(self) -> int:
        """Those that an earlier response to the same problem had too."""
        return sum(map(len, self.places)) - len(self.distinct)


def prefixes(problem_ids: Sequence[str], responses: Sequence[str], steps: Sequence[Sequence[Span]]) -> Prefixes:
    """Each different beginning of the responses up to a step's end; the whole response is none.

    Args:
        problem_ids: (B,) problem of each response.
        responses: (B,)
        steps: (B,) K spans each that tile the response.
    """
    found: dict[Prefix, int] = {}
    places = []
    for problem_id, response, spans in zip(problem_ids, responses, steps, strict=True):
        cuts = [Prefix(problem_id, response[: span.stop]) for span in spans[:-1]]
        places.append(tuple(found.setdefault(cut, len(found)) for cut in cuts))
    return Prefixes(list(found), places)
