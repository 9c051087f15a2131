import pytest

import releases
from freeprm.errors import ModelError
from freeprm.models.scoring_input import check_tokens, position_of, render, tokenise
from freeprm.types import Span


def test_a_text_is_tokenised_with_a_beginning_only_where_it_is_asked_for():
    tokenizer = releases.mistral_tokenizer()
    with_one = tokenise(tokenizer, "a ки", special=True)
    assert with_one.ids.tolist() == [1, *tokenise(tokenizer, "a ки", special=False).ids.tolist()]
    assert with_one.offsets[0].tolist() == [0, 0]


def test_the_position_is_that_of_the_token_over_the_marker():
    tokens = tokenise(releases.mistral_tokenizer(), "a ки b ки", special=True)
    assert tokens.ids.tolist().count(12902) == 2
    places = [position_of(tokens, Span(at, at + 2), expected=12902, name="x") for at in (2, 7)]
    assert places == [at for at, token in enumerate(tokens.ids) if token == 12902]


@pytest.mark.parametrize(("span", "expected"), [(Span(2, 4), 1107), (Span(0, 4), 12902), (Span(9, 9), 12902)])
def test_a_marker_that_is_not_the_one_token_is_refused(span, expected):
    tokens = tokenise(releases.mistral_tokenizer(), "a ки b ки", special=True)
    with pytest.raises(
        ModelError, match=f"response 7: the marker at character {span.start} .* read at token {expected}"
    ):
        position_of(tokens, span, expected=expected, name="response 7")


def test_tokens_are_checked_alone():
    check_tokens(releases.llama_tokenizer(), {"+": 10, "<|eot_id|>": 128009}, recipe="x")
    with pytest.raises(ModelError, match=r"'ab' splits into \[64, 65\], but x is read by token 5"):
        check_tokens(releases.llama_tokenizer(), {"ab": 5}, recipe="x")


def test_a_conversation_that_the_template_refuses_is_named():
    refusing = releases.llama_tokenizer(chat_template="{{ raise_exception('no') }}")
    with pytest.raises(ModelError, match="refuses a conversation of user: no"):
        render(refusing, [{"role": "user", "content": "a"}], date=None)
