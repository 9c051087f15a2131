from dataclasses import replace
from datetime import date
from pathlib import Path

import pytest

import tiny
from freeprm.errors import ConfigError, DataError, ModelError, RewardMismatchError
from freeprm.io.conversations import as_messages
from freeprm.models.encoding import encode
from freeprm.models.loading import load_tokenizer, template_hash
from freeprm.models.prompts import (
    CLOCK_DATE,
    around,
    pin_date,
    render_prompt,
    starts_with_bos,
    take_apart,
    told_date,
    turn_end,
)
from freeprm.types import Rollout
from shapes import SHAPES

ASKED = {"role": "user", "content": "2+2?"}
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


@pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES)
def test_prompt_response_and_end_are_each_models_very_ids(shape):
    tokenizer = shape.tokenizer()
    pin_date(tokenizer, None)
    rollouts = [
        Rollout(problem_id="p", sample_idx=index, prompt=prompt, response="".join(shape.response))
        for index, prompt in enumerate(["2+2?", (ASKED,), (ASKED, {"role": "assistant", "content": "So 4"})])
    ]
    asked, as_message, begun = encode(tokenizer, rollouts)
    prompt, response = shape.ids(*shape.prompt), [*shape.ids(*shape.response), *shape.ids(shape.end)]
    assert asked.ids.tolist() == as_message.ids.tolist() == [*prompt, *response]
    assert asked.n_prompt == as_message.n_prompt == len(prompt)
    assert begun.ids.tolist() == [*shape.ids(*(shape.begun or shape.prompt), "So 4"), *response]


@pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES)
def test_what_the_assistant_has_begun_is_continued_as_transformers_does(shape):
    tokenizer = shape.tokenizer()
    pin_date(tokenizer, None)
    talk = [ASKED, {"role": "assistant", "content": "So 4"}]
    theirs = tokenizer.apply_chat_template(talk, tokenize=False, continue_final_message=True)
    assert render_prompt(tokenizer, tuple(talk)) == theirs


@pytest.mark.parametrize("shape", [shape for shape in SHAPES.values() if shape.trl], ids=lambda shape: shape.trl)
def test_the_shapes_are_those_of_the_models_own_templates(shape):
    trl = pytest.importorskip("trl", reason="compares with the templates in TRL: pip install 'freeprm[bench]'")
    path = Path(trl.__file__).parent / "chat_templates" / f"{shape.trl}.jinja"
    if not path.exists():
        pytest.skip(f"this TRL brings no {shape.trl}.jinja")
    ours, theirs = shape.tokenizer(), shape.tokenizer()
    theirs.chat_template = path.read_text(encoding="utf-8")
    for tokenizer in (ours, theirs):
        pin_date(tokenizer, None)
    answered = [ASKED, {"role": "assistant", "content": "<think>\nso\n</think>\n\n4."}, ASKED]
    for talk in ([ASKED], answered[:2], answered):
        for opened in (True, False):
            ours_text, theirs_text = (
                made.apply_chat_template(talk, tokenize=False, add_generation_prompt=opened) for made in (ours, theirs)
            )
            assert ours_text == theirs_text
    assert turn_end(theirs) == shape.end


def test_a_templates_end_may_be_a_token_that_is_only_added_before_a_named_one():
    phi = SHAPES["phi 3"].tokenizer()
    assert "<|end|>" not in phi.all_special_tokens
    assert turn_end(phi) == "<|end|>"  # and not <|endoftext|>, which follows it


def test_a_token_that_begins_with_another_one_is_taken_whole():
    tokenizer = tiny.tokenizer(template="{% for m in messages %}{{ m['content'] }}<end><x>{% endfor %}")
    tokenizer.add_tokens(["<end>", "<end><x>"])
    assert turn_end(tokenizer) == "<end><x>"


def test_whitespace_that_is_a_token_ends_no_turn():
    tokenizer = tiny.tokenizer(template="{% for m in messages %}{{ m['content'] }}\n</s>{% endfor %}")
    tokenizer.add_tokens(["\n"])
    assert turn_end(tokenizer) == "</s>"


def test_a_template_that_does_not_write_a_users_text_is_refused():
    parts = "{% for m in messages %}{% for part in m['content'] %}{{ part['text'] }}{% endfor %}</s>{% endfor %}"
    with pytest.raises(ModelError, match="does not write what the user says where that is text"):
        turn_end(tiny.tokenizer(template=parts))


@pytest.mark.parametrize("words", ["Sure: ", " Sure", "Sure:\n\n"])
def test_words_of_the_assistant_stand_as_they_are_also_where_the_template_trims(words):
    rendered = render_prompt(tiny.tokenizer(template=tiny.LLAMA3), (ASKED, {"role": "assistant", "content": words}))
    assert rendered.count("<|start_header_id|>assistant") == 1
    assert rendered.endswith("assistant<|end_header_id|>\n\n" + words)


@pytest.mark.parametrize("name", ["qwen 3", "qwq and qwen 3 thinking"])
def test_reasoning_that_the_assistant_has_begun_is_left_as_it_is(name):
    words = "<think>\nso\n</think>\n\nIt is"
    rendered = render_prompt(SHAPES[name].tokenizer(), (ASKED, {"role": "assistant", "content": words}))
    assert rendered.endswith("<|im_end|>\n<|im_start|>assistant\n" + words)


def test_words_that_the_template_leaves_out_are_refused():
    deaf = "{% for m in messages if m['role'] == 'user' %}{{ m['content'] }}{% endfor %}"
    with pytest.raises(ModelError, match="does not write what the assistant says; end the prompt with what the user"):
        render_prompt(tiny.tokenizer(template=deaf), (ASKED, {"role": "assistant", "content": "Sure"}))


@pytest.mark.parametrize(
    ("head", "response", "whole"),
    [
        ("A<think>\n", "<think>\nso", "A<think>\nso"),
        ("A<think>\n", "<think>\n\nso", "A<think>\n\nso"),  # the response's second line break is its own
        ("A<think>\n", "\n<think> so", "A<think> so"),  # it goes on in its own way
        ("A<think>\n", "so <think>", "A<think>\nso <think>"),  # not at its beginning
        ("A<think>\n", "<thinking>so", "A<think>\n<thinking>so"),  # another tag
        ("A<think>\n", "<think>\n", "A<think>\n"),
        ("A[THINK]", "[THINK]so", "A[THINK]so"),
        ("A<think>\n\n</think>\n\n", "<think>so", "A<think>\n\n</think>\n\n<think>so"),  # closed again
        ("A\n", "\nso", "A\n\nso"),  # a header's line break is no tag
        ("<assistant>", "<assistant>so", "<assistant><assistant>so"),
    ],
)
def test_a_tag_of_reasoning_that_the_template_opens_stands_once(head, response, whole):
    placed = around(head, response, truncated=True, ends=("</s>",))
    assert placed.head + response[placed.n_opened :] + placed.end == whole


@pytest.mark.parametrize(
    ("response", "end"), [("so", "<e>"), ("so<e>", ""), ("so<e>\n", ""), ("so</s>", ""), ("so <e> so", "<e>")]
)
def test_an_end_that_the_response_brings_stands_once(response, end):
    assert around("A", response, truncated=False, ends=("<e>", "</s>")).end == end
    assert around("A", response, truncated=True, ends=("<e>", "</s>")).end == ""


CLOCKED = [name for name in SHAPES if name.endswith("asks the clock")]


@pytest.mark.parametrize("name", CLOCKED)
def test_a_template_that_asks_the_clock_tells_one_day_for_good(name):
    tokenizer = SHAPES[name].tokenizer()
    today = render_prompt(tokenizer, "2+2?")
    assert any(date.today().strftime(form) in today for form in ("%d %b %Y", "%B %d, %Y", "%Y-%m-%d"))
    pin_date(tokenizer, "2025-01-12")
    assert told_date(tokenizer) == "2025-01-12"
    text = render_prompt(tokenizer, "2+2?")
    assert any(day in text for day in ("12 Jan 2025", "January 12, 2025", "2025-01-12"))
    assert "today is" not in text  # the note is for us


@pytest.mark.parametrize("name", CLOCKED)
def test_the_hash_of_such_a_template_is_of_the_day_too_and_survives_saving(name, tmp_path):
    from transformers import AutoTokenizer

    one, same, other = (SHAPES[name].tokenizer() for _ in range(3))
    for tokenizer, day in ((one, None), (same, CLOCK_DATE), (other, "2025-01-12")):
        pin_date(tokenizer, day)
    assert template_hash(one) == template_hash(same) != template_hash(other)
    one.save_pretrained(tmp_path)
    again = AutoTokenizer.from_pretrained(tmp_path)
    for day in (None, CLOCK_DATE):
        pin_date(again, day)
        assert template_hash(again) == template_hash(one)
    with pytest.raises(RewardMismatchError, match="tells the day 2024-07-26, as it did in training, not 2025-01-12"):
        pin_date(again, "2025-01-12")


@pytest.mark.parametrize("name", [name for name in SHAPES if name not in CLOCKED])
def test_a_template_that_does_not_ask_the_clock_keeps_its_hash(name):
    tokenizer = SHAPES[name].tokenizer()
    before = template_hash(tokenizer)
    pin_date(tokenizer, None)
    assert template_hash(tokenizer) == before
    assert told_date(tokenizer) is None


def test_a_day_with_a_default_of_the_templates_own_can_be_chosen():
    tokenizer = SHAPES["llama 3.1"].tokenizer()
    pin_date(tokenizer, "2025-01-12")
    assert "Today Date: 12 Jan 2025\n" in render_prompt(tokenizer, "2+2?")
    assert told_date(tokenizer) == "2025-01-12"


def test_each_of_several_templates_tells_the_day():
    tokenizer = tiny.tokenizer()
    tokenizer.chat_template = {"default": "{{ strftime_now('%Y') }}", "tool_use": "{{ strftime_now( '%d') }}"}
    pin_date(tokenizer, None)
    note = "{# today is 2024-07-26 +#}"
    assert tokenizer.chat_template == {"default": note + "{{ '2024' }}", "tool_use": note + "{{ '26' }}"}


def test_what_is_no_day_or_cannot_be_told_is_refused():
    with pytest.raises(ConfigError, match="template_date: is 'May 3'; expected a day as YYYY-MM-DD"):
        pin_date(tiny.tokenizer(), "May 3")
    with pytest.raises(ModelError, match="strftime_now with a format that is not written out"):
        pin_date(tiny.tokenizer(template="{% set form = '%Y' %}{{ strftime_now(form) }}"), None)


def test_a_released_small_chat_models_ids_are_those_of_its_own_tokenizer(smollm2):
    tokenizer = load_tokenizer(smollm2)
    assert turn_end(tokenizer) == "<|im_end|>"
    encoded = encode(tokenizer, [Rollout(problem_id="p", sample_idx=0, prompt="2+2?", response="4.")])[0]
    text = tokenizer.apply_chat_template([ASKED], tokenize=False, add_generation_prompt=True) + "4.<|im_end|>"
    assert encoded.ids.tolist() == tokenizer(text, add_special_tokens=False)["input_ids"]
    assert tokenizer.decode(encoded.ids[encoded.n_prompt :]) == "4.<|im_end|>"


@pytest.mark.parametrize("padding", ["", "<|eot_id|><|eot_id|>", "\n"])
@pytest.mark.parametrize("asked", [True, False])
def test_a_rendered_conversation_taken_apart_has_the_tokens_that_it_had(padding: str, asked: bool):
    made = tiny.tokenizer(template=tiny.LLAMA3)
    turns = ({"role": "system", "content": "add"}, {"role": "user", "content": "3 and 4?"})
    for response, truncated in (("we add.\n\nso 7", False), ("we", True)):
        whole = Rollout(problem_id="p", sample_idx=0, prompt=turns, response=response, truncated=truncated)
        (expected,) = encode(made, [whole])
        text = made.decode(expected.ids) + ("" if truncated else padding)
        apart = take_apart(made, text, asked=render_prompt(made, turns) if asked else None)
        assert (apart.response, apart.truncated) == (response, truncated)
        (found,) = encode(made, [replace(whole, prompt=apart.prompt)])
        assert found.ids.tolist() == expected.ids.tolist()
        assert found.n_prompt == expected.n_prompt


def test_the_last_response_of_a_conversation_is_taken():
    made = tiny.tokenizer(template=tiny.LLAMA3)
    turns = [
        {"role": "user", "content": "a?"},
        {"role": "assistant", "content": "b"},
        {"role": "user", "content": "c?"},
    ]
    text = render_prompt(made, tuple(turns)) + "d<|eot_id|>"
    assert take_apart(made, text).response == "d"


def test_a_beginning_that_the_model_expects_is_added_and_one_that_is_there_stays_the_only_one():
    made = tiny.tokenizer(template=tiny.LLAMA3)
    text = render_prompt(made, "a?") + "b<|eot_id|>"
    for given in (text, text.removeprefix("<s>")):
        (turn,) = take_apart(made, given).prompt
        assert turn["content"] == render_prompt(made, "a?")


def test_padding_behind_a_truncated_response_is_dropped():
    made = tiny.tokenizer(template=tiny.LLAMA3, pad="<|start_header_id|>")
    text = render_prompt(made, "a?") + "b" + "<|start_header_id|>" * 3
    assert take_apart(made, text)[1:] == ("b", True)


def test_without_a_template_the_prompt_must_be_given():
    made = tiny.tokenizer()
    apart = take_apart(made, "a?\nb</s></s>", asked="a?\n")
    assert apart == (({"role": "rendered", "content": "a?\n"},), "b", False)
    with pytest.raises(DataError, match="expected the prompt that it begins with"):
        take_apart(made, "a?\nb</s>")


def test_a_rendered_prompt_is_read_as_it_stands_and_is_no_conversation_for_others():
    made = tiny.tokenizer()
    rendered = ({"role": "rendered", "content": "a?\n"},)
    plain = Rollout(problem_id="p", sample_idx=0, prompt="a?", response="b")
    one, other = encode(made, [plain, replace(plain, prompt=rendered)])
    assert one.ids.tolist() == other.ids.tolist()
    assert render_prompt(tiny.tokenizer(template=tiny.LLAMA3), rendered) == "a?\n"
    with pytest.raises(DataError, match="role 'rendered'"):
        as_messages(rendered)
    with pytest.raises(DataError, match="expected that message alone"):
        render_prompt(tiny.tokenizer(template=tiny.LLAMA3), (*rendered, ASKED))
