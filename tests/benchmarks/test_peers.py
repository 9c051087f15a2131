"""The peers' ways to log-probabilities give our numbers."""

import pytest
import torch

from benchmarks.peers import generated_tokens, plain_logprobs, released_scores, scorer_text
from benchmarks.workloads import Workload, random_model, random_rollouts, word_tokenizer
from freeprm.models.encoding import encode
from freeprm.models.logprobs import score_tokens
from rounding import assert_near

WORK = Workload(size="0.9M", vocabulary=300, prompts=2, n=5, prompt_tokens=9, response_tokens=80)


@pytest.fixture(scope="module")
def subject():
    return random_model(WORK), word_tokenizer(WORK.vocabulary), random_rollouts(WORK)


def test_the_released_scorers_way_gives_our_log_probabilities(subject):
    model, tokenizer, rollouts = subject
    texts = [scorer_text(tokenizer, rollout) for rollout in rollouts]
    theirs = [scored.token_logprobs for scored in released_scores(model, tokenizer, texts)]
    ours = score_tokens(model, encode(tokenizer, rollouts))
    assert_near(torch.cat(theirs), torch.cat(ours))


def test_the_plain_way_gives_our_log_probabilities(subject):
    model, tokenizer, rollouts = subject
    encoded = encode(tokenizer, rollouts)
    theirs = plain_logprobs(model, encoded, batch_size=3)
    assert_near(torch.cat(theirs), torch.cat(score_tokens(model, encoded)))


def test_steps_end_where_their_words_end(subject):
    model, tokenizer, rollouts = subject
    text = scorer_text(tokenizer, rollouts[0])
    assert "".join(text.steps) == rollouts[0].response
    (scored,) = released_scores(model, tokenizer, [text])
    words = [len(step.split()) for step in text.steps]  # a word is a token
    assert list(scored.boundaries) == [sum(words[: count + 1]) for count in range(len(words))]
    assert len(scored.token_logprobs) == sum(words) + 1  # and the end of the sequence


def test_generated_tokens_are_counted_up_to_the_end_token(subject):
    model, tokenizer, rollouts = subject
    given = {"n": 3, "temperature": 1.0, "max_new_tokens": 5}
    count = generated_tokens(model, tokenizer, [rollouts[0].prompt, "w4 w5"], **given)
    assert 2 * 3 <= count <= 2 * 3 * 5
