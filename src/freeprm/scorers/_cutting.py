"""A response cut into steps, as characters and as tokens."""

from collections.abc import Sequence

from freeprm.core.steps import TOKENS, given_steps, splitter, token_spans
from freeprm.types import Span


def steps_of(
    covered: Sequence[Span], response: str, name: str, *, given: Sequence[str] | None
) -> tuple[Sequence[Span], list[Span]]:
    """Character spans of the steps, and the token ranges that go with them.

    Args:
        covered: (T,) the characters of each token.
        response: its text; the tokens cover less of it only if it was cut to fit a context.
        name: a splitter, or "tokens".
        given: the steps' texts, instead of a splitter.

    Raises:
        SpanError: the given steps are not those of the response.
    """
    if given is None and name == TOKENS:
        return covered, [Span(index, index + 1) for index in range(len(covered))]
    text = response[: covered[-1].stop] if covered else ""
    spans = splitter(name)(text) if given is None else given_steps(response, given)
    spans = [Span(start, min(stop, len(text))) for start, stop in spans if start < len(text)]
    return spans, token_spans(covered, spans, text=text)
