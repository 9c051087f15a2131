"""Where a beginning of a response is cut between tokens, with a tokenizer that merges words with spaces."""

import pytest
from transformers import LlamaConfig, PreTrainedTokenizerBase

from freeprm.engines._reading import Begun, begin
from freeprm.engines.base import Request
from freeprm.errors import ModelError
from freeprm.models.encoding import encode
from freeprm.types import Rollout

PROMPT = "What is 3 + 4?"


def begun(tokenizer: PreTrainedTokenizerBase, prefix: str, *, max_length: int = 500) -> Begun:
    request = Request(problem_id="p", prompt=PROMPT, prefix=prefix, sample_idxs=(0,))
    (only,) = begin(tokenizer, [request], config=LlamaConfig(vocab_size=200_000), max_length=max_length, model="m")
    return only


def whole(tokenizer: PreTrainedTokenizerBase, response: str) -> list[int]:
    rollout = Rollout(problem_id="p", sample_idx=0, prompt=PROMPT, response=response, truncated=True)
    (encoded,) = encode(tokenizer, [rollout])
    return encoded.ids.tolist()


@pytest.mark.parametrize(
    ("prefix", "rest", "read"),
    [
        ("Add them.\n\n", "The sum is 7.", "Add them.\n\n"),  # one token `.\n\n`, which ends the step
        ("Add them.\n", "The sum is 7.", "Add them.\n"),
        ("Add them. ", "The sum is 7.", "Add them."),  # ` The` opens the next step
        ("Add them.   ", "The sum is 7.", "Add them."),
        ("把它们相加。", "和是七。", "把它们相加。"),
    ],
)
def test_a_beginning_has_the_tokens_that_it_has_in_the_whole_response(
    qwen_tokenizer: PreTrainedTokenizerBase, prefix: str, rest: str, read: str
):
    found = begun(qwen_tokenizer, prefix)
    assert found.prefix == read
    assert list(found.ids) == whole(qwen_tokenizer, prefix + rest)[: len(found.ids)]
    assert list(found.ids) == whole(qwen_tokenizer, read)


def test_without_a_beginning_there_is_the_prompt_alone(qwen_tokenizer: PreTrainedTokenizerBase):
    assert begun(qwen_tokenizer, "") == Begun(tuple(whole(qwen_tokenizer, "")), "")
    assert begun(qwen_tokenizer, "  ") == Begun(tuple(whole(qwen_tokenizer, "")), "")


def test_a_beginning_that_fills_the_context_is_refused(qwen_tokenizer: PreTrainedTokenizerBase):
    n_prompt = len(whole(qwen_tokenizer, ""))
    with pytest.raises(ModelError, match=rf"problem 'p': its prompt with the beginning .* holds {n_prompt + 1}"):
        begun(qwen_tokenizer, "Add them.\n\n", max_length=n_prompt + 1)
