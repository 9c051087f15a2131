import pytest

from freeprm.errors import SpanError
from freeprm.scorers._cutting import steps_of
from freeprm.types import Span

RESPONSE = "one\ntwo"
COVERED = [Span(0, 2), Span(2, 4), Span(4, 7), Span(7, 7)]  # "on", "e\n", "two", the end of the turn


def test_a_splitter_gives_the_characters_and_the_tokens_of_each_step():
    spans, tokens = steps_of(COVERED, RESPONSE, "lines", given=None)
    assert list(spans) == [(0, 4), (4, 7)]
    assert tokens == [(0, 2), (2, 4)]


def test_each_token_may_be_a_step():
    spans, tokens = steps_of(COVERED, RESPONSE, "tokens", given=None)
    assert spans == COVERED
    assert tokens == [(0, 1), (1, 2), (2, 3), (3, 4)]


def test_given_steps_come_before_the_splitter():
    spans, tokens = steps_of(COVERED, RESPONSE, "lines", given=["on", "e\ntwo"])
    assert list(spans) == [(0, 2), (2, 7)]
    assert tokens == [(0, 1), (1, 4)]
    with pytest.raises(SpanError):
        steps_of(COVERED, RESPONSE, "lines", given=["three"])


def test_what_the_context_did_not_hold_is_in_no_step():
    spans, tokens = steps_of(COVERED[:1], RESPONSE, "lines", given=None)
    assert list(spans) == [(0, 2)]
    assert tokens == [(0, 1)]
