from dataclasses import replace
from functools import cache

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import processors
from transformers import LlamaConfig

import tiny
from freeprm.errors import DataError, ModelError
from freeprm.models.encoding import Encoded, check_vocabulary, encode, fit
from freeprm.types import Rollout

TEXTS = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=40) | st.lists(
    st.sampled_from(["Step 1: ", "so", " .\n\n", "\n", "  ", "🙂", "é", "方", "12", ".", "e\u0301"]),
    min_size=1,
    max_size=20,
).map("".join)


def rollout(response: str, *, prompt: str = "2 + 2?", truncated: bool = False) -> Rollout:
    return Rollout(problem_id="p", sample_idx=3, prompt=prompt, response=response, truncated=truncated)


@cache
def tiny_tokenizer(template: str | None = None, *, trims: bool = False):
    made = tiny.tokenizer(template=template)
    if trims:  # as some released tokenizers do: spaces are left out of a token's offsets
        made.backend_tokenizer.post_processor = processors.ByteLevel(trim_offsets=True)
    return made


@pytest.fixture(scope="session")
def stories_tokenizer(stories):
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(stories)


def assert_tiles(encoded: Encoded, response: str, *, truncated: bool) -> None:
    spans = encoded.spans if truncated else encoded.spans[:-1]
    assert len(encoded.spans) == encoded.n_response
    end = 0
    for span in spans:
        assert 0 <= span.start <= end <= span.stop, "a gap, or a step back"
        end = span.stop
    assert end == len(response)
    if not truncated:
        assert encoded.spans[-1] == (len(response), len(response))


@pytest.mark.parametrize("truncated", [False, True])
@settings(max_examples=60, deadline=None)
@given(response=TEXTS)
def test_tokens_tile_the_response_with_a_byte_level_tokenizer(truncated, response):
    for made in (tiny_tokenizer(), tiny_tokenizer(tiny.LLAMA3), tiny_tokenizer(tiny.LLAMA3, trims=True)):
        assert_tiles(encode(made, [rollout(response, truncated=truncated)])[0], response, truncated=truncated)


@settings(max_examples=60, deadline=None)
@given(response=TEXTS)
def test_tokens_tile_the_response_with_qwens_tokenizer(qwen_tokenizer, response):
    assert_tiles(encode(qwen_tokenizer, [rollout(response)])[0], response, truncated=False)


@settings(max_examples=60, deadline=None)
@given(response=TEXTS)
def test_tokens_tile_the_response_with_a_sentencepiece_tokenizer(stories_tokenizer, response):
    assert_tiles(encode(stories_tokenizer, [rollout(response)])[0], response, truncated=False)


def test_the_ids_are_those_of_the_one_full_text(qwen_tokenizer):
    response = "Step 1: 2 + 2 is four.\n\nStep 2: so 🙂.\n\n"
    encoded = encode(qwen_tokenizer, [rollout(response)])[0]
    text = (
        "<|im_start|>system\nYou are Qwen, created by Alibaba Cloud. You are a helpful assistant.<|im_end|>\n"
        f"<|im_start|>user\n2 + 2?<|im_end|>\n<|im_start|>assistant\n{response}<|im_end|>"
    )
    assert encoded.ids.tolist() == qwen_tokenizer(text)["input_ids"]
    assert qwen_tokenizer.decode(encoded.ids[encoded.n_prompt :]) == response + "<|im_end|>"


def test_a_token_that_straddles_prompt_and_response_belongs_to_the_response(qwen_tokenizer):
    encoded = encode(qwen_tokenizer, [rollout("\nfour")])[0]
    # The template ends in "assistant\n"; with the response's own line break that is the one token "\n\n".
    tokens = qwen_tokenizer.convert_ids_to_tokens(encoded.ids.tolist())
    assert tokens[encoded.n_prompt - 1 :] == ["assistant", "ĊĊ", "four", "<|im_end|>"]
    assert encoded.spans == ((0, 1), (1, 5), (5, 5))


def test_a_merged_full_stop_and_blank_line_is_one_token_of_three_characters(qwen_tokenizer):
    encoded = encode(qwen_tokenizer, [rollout("four.\n\nNext")])[0]
    assert encoded.spans == ((0, 4), (4, 7), (7, 11), (11, 11))


def test_tokens_of_one_character_share_its_span():
    encoded = encode(tiny_tokenizer(), [rollout("🙂", truncated=True)])[0]
    assert set(encoded.spans) == {(0, 1)}
    assert encoded.n_response == 4  # bytes


def test_a_truncated_response_gets_no_end_token():
    whole, cut = encode(tiny_tokenizer(), [rollout("four"), rollout("four", truncated=True)])
    end = tiny_tokenizer().eos_token_id
    assert whole.ids.tolist() == [*cut.ids.tolist(), end]
    assert whole.spans == (*cut.spans, (4, 4))


def test_a_pad_token_that_is_the_end_token_changes_nothing():
    plain, padded = (encode(tiny.tokenizer(pad=pad), [rollout("four")])[0] for pad in (None, "</s>"))
    assert plain.ids.tolist() == padded.ids.tolist()
    assert plain.spans == padded.spans


@pytest.mark.parametrize("template", [tiny.LLAMA3, None])
def test_there_is_one_beginning_of_sequence(template, stories_tokenizer):
    made = stories_tokenizer if template is None else tiny_tokenizer(template)
    encoded = encode(made, [rollout("four")])[0]
    assert encoded.ids[0] == made.bos_token_id
    assert encoded.ids.tolist().count(made.bos_token_id) == 1


def test_every_response_is_encoded_after_its_own_prompt():
    prompts = ["a?", "a?", "b?", "a?"]
    encoded = encode(tiny_tokenizer(), [rollout("x", prompt=prompt) for prompt in prompts])
    heads = [tiny_tokenizer().decode(item.ids[: item.n_prompt]) for item in encoded]
    assert heads == ["a?\n", "a?\n", "b?\n", "a?\n"]


def test_more_responses_than_are_tokenised_at_a_time_come_in_order():
    many = [rollout(f"{index}") for index in range(1200)]
    texts = [tiny_tokenizer().decode(item.ids[item.n_prompt : -1]) for item in encode(tiny_tokenizer(), many)]
    assert texts == [one.response for one in many]


def test_an_empty_response_has_only_its_end():
    assert encode(tiny_tokenizer(), [rollout("")])[0].spans == ((0, 0),)


def test_nothing_gives_nothing():
    assert encode(tiny_tokenizer(), []) == []


def test_an_empty_prompt_that_nothing_precedes_is_refused():
    bare = tiny.tokenizer(template="{% for m in messages %}{{ m['content'] }}{% endfor %}")
    with pytest.raises(ModelError, match=r"problem 'p', sample 3: the prompt is empty"):
        encode(bare, [rollout("four", prompt="")])


def test_a_tokenizer_without_offsets_is_refused():
    class Slow:
        is_fast, name_or_path = False, "old"

    with pytest.raises(ModelError, match="old: a tokenizer without offsets"):
        encode(Slow(), [rollout("four")])  # type: ignore[arg-type]  # a stand-in for a slow tokenizer


def sized(*lengths: int) -> list[Encoded]:
    """Responses with so many tokens behind a prompt of 5 (`2 + 2?` and a line break)."""
    return encode(tiny_tokenizer(), [rollout("~" * (length - 1)) for length in lengths])


def test_what_fits_is_kept_as_it_is():
    encoded = sized(3, 5)
    n_prompt = encoded[0].n_prompt
    fitted = fit(encoded, max_length=n_prompt + 5, too_long="error")
    assert fitted.kept == [0, 1]
    assert fitted.encoded == encoded
    assert not fitted.counts


def test_a_response_that_does_not_fit_is_an_error_that_names_it():
    with pytest.raises(DataError, match=r"problem 'p', sample 3: \d+ tokens with its prompt, but 8 are allowed"):
        fit(sized(3, 50), max_length=8, too_long="error")


def test_responses_that_do_not_fit_are_left_out_and_counted():
    encoded = sized(50, 3, 60)
    fitted = fit(encoded, max_length=encoded[1].n_prompt + 3, too_long="exclude")
    assert fitted.kept == [1]
    assert fitted.counts == {"excluded: longer than the context": 2}


def test_a_response_that_is_cut_loses_its_end_token_and_is_counted():
    encoded = sized(50)[0]
    fitted = fit([encoded], max_length=encoded.n_prompt + 4, too_long="truncate")
    assert fitted.encoded[0].ids.tolist() == encoded.ids[: encoded.n_prompt + 4].tolist()
    assert fitted.encoded[0].spans == encoded.spans[:4]
    assert fitted.counts == {"truncated to the context": 1}


def test_a_response_whose_prompt_fills_the_context_is_left_out_rather_than_cut():
    fitted = fit(sized(3), max_length=2, too_long="truncate")
    assert fitted.kept == []
    assert fitted.counts == {"excluded: longer than the context": 1}


def test_equal_responses_keep_their_own_names_and_equal_ends_their_own_meaning():
    first, second, cut = (Rollout(problem_id="p", sample_idx=index, prompt="a?", response="b c") for index in range(3))
    one, two, three = encode(tiny.tokenizer(), [first, second, replace(cut, truncated=True)])
    assert [one.name, two.name, three.name] == [f"problem 'p', sample {index}" for index in range(3)]
    assert one.ids.tolist() == two.ids.tolist() == [*three.ids.tolist(), tiny.tokenizer().eos_token_id]


THINKING = tiny.LLAMA3.removesuffix("{% endif %}") + "<think>\n{% endif %}"
"""Llama 3's shape that opens the reasoning itself, as DeepSeek-R1's template does."""


def test_a_response_scores_the_same_tokens_whether_or_not_it_repeats_the_tag_that_the_template_opens():
    text = "we add 3 and 4\n</think>\n\nthe answer is 7"
    repeats, plain = encode(tiny.tokenizer(template=THINKING), [rollout("<think>\n" + text), rollout(text)])
    assert repeats.ids.tolist() == plain.ids.tolist()
    assert repeats.n_prompt == plain.n_prompt
    assert tiny_tokenizer().decode(repeats.ids).count("<think>") == 1
    shift = len("<think>\n")  # its characters go with the first token, and no step is left without
    assert repeats.offsets.tolist() == [[0, plain.offsets[0, 1] + shift], *(plain.offsets[1:] + shift).tolist()]


@pytest.mark.parametrize("response", ["<think>\n", "<think>", " <think>\nso", "<think> so", "so"])
@pytest.mark.parametrize("truncated", [False, True])
def test_tokens_tile_a_response_that_repeats_the_tag(truncated, response):
    encoded = encode(tiny.tokenizer(template=THINKING), [rollout(response, truncated=truncated)])[0]
    assert_tiles(encoded, response, truncated=truncated)
    assert encoded.n_response > 0
    assert tiny_tokenizer().decode(encoded.ids).count("<think>") == 1


def test_an_end_of_turn_that_the_response_brings_stands_once():
    made = tiny_tokenizer(tiny.LLAMA3)
    brings, plain, cut = encode(
        made, [rollout("four<|eot_id|>"), rollout("four"), rollout("four<|eot_id|>", truncated=True)]
    )
    assert brings.ids.tolist() == plain.ids.tolist() == cut.ids.tolist()
    assert plain.ids.tolist().count(made.eos_token_id) == 2  # the user's turn, and the response
    assert brings.spans == (*plain.spans[:-1], (4, 14))


def test_a_response_goes_on_from_the_assistants_last_words():
    talk = ({"role": "user", "content": "the sum?"}, {"role": "assistant", "content": "Sure: "})
    encoded = encode(tiny_tokenizer(tiny.LLAMA3), [rollout("the answer is 3", prompt=talk)])[0]
    text = tiny_tokenizer().decode(encoded.ids)
    assert text.endswith("<|start_header_id|>assistant<|end_header_id|>\n\nSure: the answer is 3<|eot_id|>")
    assert text.count("assistant") == 1
    assert encoded.spans[0].start == 0


def test_a_response_keeps_the_spaces_that_a_template_would_trim():
    encoded = encode(tiny_tokenizer(tiny.LLAMA3), [rollout("  four  ", prompt="  sum?  ")])[0]
    text = tiny_tokenizer().decode(encoded.ids)
    assert text.endswith("\n\nsum?<|eot_id|><|start_header_id|>assistant<|end_header_id|>\n\n  four  <|eot_id|>")


def test_a_token_that_the_model_has_no_embedding_for_is_named_with_its_response():
    encoded = encode(tiny.tokenizer(), tiny.rollouts(1))
    largest = max(int(item.ids.max()) for item in encoded)
    check_vocabulary(encoded, LlamaConfig(vocab_size=largest + 1), model="m")
    with pytest.raises(ModelError, match=rf"problem .*: token \d+ is beyond the {largest} that m has embeddings for"):
        check_vocabulary(encoded, LlamaConfig(vocab_size=largest), model="m")
