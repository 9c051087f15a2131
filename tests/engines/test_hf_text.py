"""Ends and texts of responses, with real and made-up tokenizers."""

from collections.abc import Callable
from pathlib import Path

import pytest
from transformers import AutoTokenizer, PreTrainedTokenizerBase

from freeprm.engines.hf.text import end_tokens, is_stopped, response_text, stop_position
from freeprm.models.backbone import load_backbone


def test_end_tokens_are_the_templates_the_tokenizers_and_the_models(save_tiny: Callable[..., Path]):
    # The template ends turns with </s>, id 0; the model names 0 and 5.
    folder = save_tiny(eos_token_id=[0, 5])
    assert end_tokens(load_backbone(str(folder))).tolist() == [0, 5]


def test_text_of_a_response_joins_its_prompt_without_losing_spaces(
    qwen_tokenizer: PreTrainedTokenizerBase, stories: Path
):
    for tokenizer in (qwen_tokenizer, AutoTokenizer.from_pretrained(stories)):
        ids = tokenizer("Once upon a time, there was a cat.", add_special_tokens=False)["input_ids"]
        whole = tokenizer.decode(ids)
        for cut in range(1, len(ids) - 1):
            text = response_text(tokenizer, ids[:cut], ids[cut:])
            assert whole.endswith(text)
            assert tokenizer.decode(ids[:cut]) + text == whole


def test_stop_position_is_where_the_first_of_them_begins():
    assert stop_position("a b c", ["c", "b c", "d"]) == 2
    assert stop_position("a b c", ["d"]) is None
    assert stop_position("a b c", []) is None


@pytest.mark.parametrize(("stop", "expected"), [("cat", True), ("a cat.", True), ("dog", False), ("upon", True)])
def test_a_stop_string_is_found_across_tokens(qwen_tokenizer: PreTrainedTokenizerBase, stop: str, expected: bool):
    prompt, ids = (qwen_tokenizer(text)["input_ids"] for text in ("Tell:", "Once upon a time, a cat."))
    assert is_stopped(qwen_tokenizer, prompt, ids, [stop]) is expected
