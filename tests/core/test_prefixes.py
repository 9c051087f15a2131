"""The beginnings of responses, each different one once."""

from freeprm.core.prefixes import Prefix, prefixes
from freeprm.types import Span


def test_prefixes_end_with_each_step_but_the_last():
    found = prefixes(["p"], ["ab cd ef"], [[Span(0, 3), Span(3, 6), Span(6, 8)]])
    assert found.distinct == [Prefix("p", "ab "), Prefix("p", "ab cd ")]
    assert found.places == [(0, 1)]
    assert found.n_repeated == 0


def test_prefixes_that_responses_to_one_problem_share_are_there_once():
    steps = [[Span(0, 1), Span(1, 2), Span(2, 3)], [Span(0, 1), Span(1, 2), Span(2, 3)], [Span(0, 1), Span(1, 3)]]
    found = prefixes(["p", "p", "q"], ["abc", "adc", "abc"], steps)
    # p: a, ab; then a again, ad; and of q, another problem, a of its own.
    assert found.distinct == [Prefix("p", "a"), Prefix("p", "ab"), Prefix("p", "ad"), Prefix("q", "a")]
    assert found.places == [(0, 1), (0, 2), (3,)]
    assert found.n_repeated == 1


def test_a_response_of_one_step_has_no_prefix():
    assert prefixes(["p"], ["abc"], [[Span(0, 3)]]).places == [()]
