"""Drawing tokens, against distributions worked out by hand; ends and texts, with real and made-up tokenizers."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import AutoTokenizer, PreTrainedTokenizerBase

from freeprm.engines.hf.drawing import draw, end_tokens, is_stopped, response_text, stop_position, uniforms
from freeprm.errors import NonFiniteError
from freeprm.models.loading import load_backbone

# Probabilities 0.5, 0.3, 0.2 at temperature 1.
LOGITS = torch.log(torch.tensor([[0.5, 0.3, 0.2]]))


def drawn(logits: torch.Tensor, numbers: list[float], *, temperature: float = 1.0, top_p: float = 1.0) -> list[int]:
    rows = logits.expand(len(numbers), -1)
    return draw(rows, torch.tensor(numbers), temperature=temperature, top_p=top_p).tolist()


def test_draw_takes_the_token_whose_share_the_number_falls_into():
    assert drawn(LOGITS, [0.0, 0.49, 0.51, 0.79, 0.81, 0.9999999]) == [0, 0, 1, 1, 2, 2]


def test_draw_at_temperature_one_half_squares_the_probabilities():
    # 0.25, 0.09, 0.04 of 0.38: shares 0.658, 0.237, 0.105, so the bounds are 0.658 and 0.895.
    assert drawn(LOGITS, [0.65, 0.67, 0.89, 0.90], temperature=0.5) == [0, 1, 1, 2]


def test_draw_with_top_p_shares_out_what_the_smallest_sufficient_set_has():
    # 0.5 < 0.6 <= 0.5 + 0.3: tokens 0 and 1 stay, with shares 0.625 and 0.375.
    assert drawn(LOGITS, [0.62, 0.63, 0.9999999], top_p=0.6) == [0, 1, 1]
    assert drawn(LOGITS, [0.0, 0.9999999], top_p=0.5) == [0, 0]
    assert drawn(LOGITS, [0.9999999], top_p=0.81) == [2]


def test_draw_never_takes_a_token_of_no_probability():
    logits = torch.tensor([[-torch.inf, 0.0, -torch.inf, 0.0, -torch.inf]])
    assert drawn(logits, [0.0, 0.4999, 0.5001, 1 - 2**-24]) == [1, 1, 3, 3]


def test_draw_without_numbers_takes_the_most_likely_token():
    assert draw(LOGITS.flip(-1), None, temperature=0.0, top_p=1.0).tolist() == [2]


def test_draw_follows_the_distribution():
    numbers = torch.from_numpy(uniforms("x", sample_idx=0, seed=0, count=20_000))
    counts = draw(LOGITS.expand(20_000, -1), numbers, temperature=1.0, top_p=1.0).bincount(minlength=3) / 20_000
    assert counts.tolist() == pytest.approx([0.5, 0.3, 0.2], abs=0.015)  # four standard deviations of 0.0035


def test_draw_takes_half_precision_logits_in_float32():
    numbers = [0.1, 0.55, 0.95]
    assert drawn(LOGITS.bfloat16(), numbers) == drawn(LOGITS.bfloat16().float(), numbers)


@pytest.mark.parametrize("bad", [torch.nan, torch.inf])
def test_draw_refuses_logits_that_are_not_finite(bad: float):
    logits = torch.tensor([[0.0, bad]])
    with pytest.raises(NonFiniteError, match="logits are NaN or infinite"):
        draw(logits, torch.tensor([0.5]), temperature=1.0, top_p=1.0)
    with pytest.raises(NonFiniteError):
        draw(logits, None, temperature=0.0, top_p=1.0)


def test_uniforms_depend_on_prompt_index_and_seed_and_on_nothing_else():
    first = uniforms("x", sample_idx=0, seed=0, count=8)
    assert np.array_equal(uniforms("x", sample_idx=0, seed=0, count=8), first)
    chat = ({"role": "user", "content": "x"},)
    others = [
        uniforms("y", sample_idx=0, seed=0, count=8),
        uniforms(chat, sample_idx=0, seed=0, count=8),
        uniforms("x", sample_idx=1, seed=0, count=8),
        uniforms("x", sample_idx=0, seed=1, count=8),
    ]
    assert not any(np.array_equal(other, first) for other in others)
    assert first.dtype == np.float32
    assert ((first >= 0) & (first < 1)).all()


def test_fewer_uniforms_are_the_first_of_more():
    assert np.array_equal(
        uniforms("x", sample_idx=0, seed=0, count=100)[:7], uniforms("x", sample_idx=0, seed=0, count=7)
    )


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
