import pytest

import tiny
from freeprm.errors import ModelError
from freeprm.models.prompts import render_prompt, starts_with_bos, turn_end

CONVERSATION = ({"role": "system", "content": "Be brief."}, {"role": "user", "content": "2 + 2?"})


def test_a_plain_prompt_is_the_text_and_a_line_break():
    assert render_prompt(tiny.tokenizer(), "2 + 2?") == "2 + 2?\n"


def test_a_text_becomes_one_user_turn_up_to_and_with_the_assistants_header():
    rendered = render_prompt(tiny.tokenizer(template=tiny.LLAMA3), "2 + 2?")
    assert rendered == (
        "<s><|start_header_id|>user<|end_header_id|>\n\n2 + 2?<|eot_id|>"
        "<|start_header_id|>assistant<|end_header_id|>\n\n"
    )


def test_a_conversation_is_rendered_turn_by_turn(qwen_tokenizer):
    rendered = render_prompt(qwen_tokenizer, CONVERSATION)
    assert rendered.startswith("<|im_start|>system\nBe brief.<|im_end|>\n<|im_start|>user\n2 + 2?<|im_end|>\n")
    assert rendered.endswith("<|im_start|>assistant\n")


def test_a_conversation_without_a_chat_template_is_refused():
    with pytest.raises(ModelError, match="no chat template; give prompts as plain text"):
        render_prompt(tiny.tokenizer(), CONVERSATION)


def test_a_conversation_that_the_template_refuses_is_named():
    strict = "{% if messages[0]['role'] != 'user' %}{{ raise_exception('user first') }}{% endif %}"
    with pytest.raises(ModelError, match="refuses a conversation of system, user: user first"):
        render_prompt(tiny.tokenizer(template=strict), CONVERSATION)


def test_a_turn_ends_with_qwens_token_and_without_the_line_break_after_it(qwen_tokenizer):
    assert turn_end(qwen_tokenizer) == "<|im_end|>"


def test_a_turn_ends_with_llama_3s_token():
    assert turn_end(tiny.tokenizer(template=tiny.LLAMA3)) == "<|eot_id|>"


def test_a_turn_ends_with_end_of_sequence_where_there_is_no_template():
    assert turn_end(tiny.tokenizer()) == "</s>"


def test_a_turn_ends_with_end_of_sequence_where_the_template_writes_no_end():
    plain = "{% for m in messages %}{{ m['role'] }}: {{ m['content'] }}\n{% endfor %}"
    assert turn_end(tiny.tokenizer(template=plain)) == "<|eot_id|>"


def test_a_turn_ends_with_an_added_token_that_is_not_a_special_one():
    tokenizer = tiny.tokenizer(template="{% for m in messages %}{{ m['content'] }}<end>\n{% endfor %}")
    tokenizer.add_tokens(["<end>"])
    assert turn_end(tokenizer) == "<end>"


def test_a_turn_has_no_end_where_the_tokenizer_has_none():
    tokenizer = tiny.tokenizer()
    tokenizer.eos_token = None
    assert turn_end(tokenizer) == ""


def test_only_a_tokenizer_that_adds_a_beginning_by_itself_starts_with_one(stories):
    from transformers import AutoTokenizer

    assert starts_with_bos(AutoTokenizer.from_pretrained(stories))
    assert not starts_with_bos(tiny.tokenizer())
