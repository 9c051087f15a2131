import random
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer, MambaConfig, MambaForCausalLM

import tiny
from freeprm.core.rewards import REWARDS, step_rewards
from freeprm.core.steps import lines, token_spans
from freeprm.errors import ConfigError, ModelError, NonFiniteError
from freeprm.models.encoding import Encoded, encode
from freeprm.models.incremental import IncrementalReader, Piece, ReadPrompt, Stepped, StepwiseRewards, WantedStep
from freeprm.models.loading import Backbone, load_backbone
from freeprm.models.logprobs import score_tokens
from rounding import assert_near, near

ROLLOUTS = tiny.rollouts(3)
"""Twelve responses of unequal length to three prompts of unequal length."""


@pytest.fixture(scope="module")
def encoded() -> list[Encoded]:
    return encode(tiny.tokenizer(), ROLLOUTS)


def prompts_of(encoded: Sequence[Encoded]) -> list[ReadPrompt]:
    """The prompt of each response; the same object for the same prompt."""
    made: dict[bytes, ReadPrompt] = {}
    return [made.setdefault((ids := item.ids[: item.n_prompt]).tobytes(), ReadPrompt(ids)) for item in encoded]


def in_pieces(
    reader: IncrementalReader, encoded: Sequence[Encoded], prompts: Sequence[ReadPrompt], seed: int = 0
) -> list[torch.Tensor]:
    """Log-probabilities of whole responses, some of which are read on by 0 to 9 tokens each round."""
    rng = random.Random(seed)
    at = [item.n_prompt for item in encoded]
    parts: list[list[torch.Tensor]] = [[] for _ in encoded]
    while unfinished := [index for index, item in enumerate(encoded) if at[index] < len(item.ids)]:
        chosen = rng.sample(unfinished, rng.randint(1, len(unfinished)))
        stops = [min(at[index] + rng.randint(0, 9), len(encoded[index].ids)) for index in chosen]
        pieces = [
            Piece(prompts[index], encoded[index].ids, at[index], stop)
            for index, stop in zip(chosen, stops, strict=True)
        ]
        for index, stop, logprobs in zip(chosen, stops, reader.read(pieces), strict=True):
            parts[index].append(logprobs)
            at[index] = stop
    return [torch.cat(part) for part in parts]


@pytest.mark.parametrize("architecture", tiny.ARCHITECTURES)
def test_pieces_give_the_log_probabilities_of_the_full_pass(architecture, encoded):
    model = tiny.language_model(architecture)
    reader = IncrementalReader(model, name="tiny")
    prompts = prompts_of(encoded)
    for seed in range(3):
        found = in_pieces(reader, encoded, prompts, seed)
        for logprobs, expected in zip(found, score_tokens(model, encoded), strict=True):
            assert_near(logprobs, expected)
        for prompt in prompts:
            reader.close(prompt)


def test_pieces_give_the_log_probabilities_of_the_full_pass_on_real_weights(stories):
    model = AutoModelForCausalLM.from_pretrained(stories)
    some = encode(AutoTokenizer.from_pretrained(stories), ROLLOUTS)
    found = in_pieces(IncrementalReader(model, name="stories"), some, prompts_of(some))
    for logprobs, expected in zip(found, score_tokens(model, some), strict=True):
        assert_near(logprobs, expected)


def test_small_batches_change_nothing(encoded, monkeypatch):
    model = tiny.language_model()
    together = in_pieces(IncrementalReader(model, name="tiny"), encoded, prompts_of(encoded))
    monkeypatch.setattr("freeprm.models.incremental._CPU_BUDGET", 1)
    alone = in_pieces(IncrementalReader(model, name="tiny"), encoded, prompts_of(encoded))
    for one, two in zip(alone, together, strict=True):
        assert_near(one, two)


def test_every_token_but_the_last_is_read_once(encoded):
    one = encoded[0]
    reader = IncrementalReader(tiny.language_model(), name="tiny")
    (prompt,) = prompts_of([one])
    middle = one.n_prompt + 4
    for _ in range(2):  # the second time all is known
        reader.read([Piece(prompt, one.ids, one.n_prompt, middle), Piece(prompt, one.ids, one.n_prompt, middle)])
        reader.read([Piece(prompt, one.ids, middle, len(one.ids))])
        assert reader.n_tokens == len(one.ids) - 1


def test_what_responses_begin_with_alike_is_read_once():
    ids = np.arange(20, dtype=np.int32)
    other = np.concatenate([ids[:14], ids[:6]])
    prompt = ReadPrompt(ids[:8])
    reader = IncrementalReader(tiny.language_model(), name="tiny")
    reader.read([Piece(prompt, ids, 8, 14), Piece(prompt, other, 8, 14)])
    assert reader.n_tokens == 7 + 6  # the prompt but its last token; six to predict six
    first, second = reader.read([Piece(prompt, ids, 14, 20), Piece(prompt, other, 14, 20)])
    assert reader.n_tokens == 7 + 6 + 6 + 6
    assert not torch.equal(first, second)


def test_equal_beginnings_cut_at_other_places_do_not_disturb_each_other(encoded):
    one, model = encoded[1], tiny.language_model()
    reader, (prompt,) = IncrementalReader(model, name="tiny"), prompts_of([one])
    (expected,) = score_tokens(model, [one])
    start, stop = one.n_prompt, one.n_prompt + 6
    halves = [
        reader.read([Piece(prompt, one.ids, start, start + 3)]),
        reader.read([Piece(prompt, one.ids, start + 3, stop)]),
    ]
    (whole,) = reader.read([Piece(prompt, one.ids, start, stop)])
    assert_near(whole, expected[:6])
    assert_near(torch.cat([halves[0][0], halves[1][0]]), expected[:6])


def test_slots_of_a_closed_prompt_are_used_again(encoded):
    model = tiny.language_model()
    reader = IncrementalReader(model, name="tiny")
    sizes = []
    for _ in range(3):
        prompts = prompts_of(encoded)
        found = in_pieces(reader, encoded, prompts)
        sizes.append(len(reader._slots._layers[0][0]))
        for prompt in prompts:
            reader.close(prompt)
    assert len(set(sizes)) == 1
    assert len(reader._slots._free) == sizes[0] - 1  # all but the padding's
    for logprobs, expected in zip(found, score_tokens(model, encoded), strict=True):
        assert_near(logprobs, expected)


def test_a_response_may_fill_the_context():
    ids = np.arange(tiny.CONTEXT, dtype=np.int32)
    short = np.arange(12, dtype=np.int32)
    reader = IncrementalReader(tiny.language_model("gpt2"), name="tiny")
    long_one, short_one = ReadPrompt(ids[:100]), ReadPrompt(short[:10])
    found = reader.read([Piece(long_one, ids, 100, len(ids)), Piece(short_one, short, 10, 12)])
    assert [len(logprobs) for logprobs in found] == [28, 2]


def test_a_prompt_of_one_token_is_enough():
    ids = np.arange(9, dtype=np.int32)
    model = tiny.language_model()
    reader = IncrementalReader(model, name="tiny")
    prompt = ReadPrompt(ids[:1])
    found = torch.cat([reader.read([Piece(prompt, ids, start, start + 4)])[0] for start in (1, 5)])
    item = Encoded(name="one", ids=ids, n_prompt=1, offsets=np.zeros((8, 2), dtype=np.int32))
    assert_near(found, score_tokens(model, [item])[0])


def test_an_empty_piece_has_no_log_probabilities(encoded):
    one = encoded[0]
    reader, (prompt,) = IncrementalReader(tiny.language_model(), name="tiny"), prompts_of([one])
    (found,) = reader.read([Piece(prompt, one.ids, one.n_prompt, one.n_prompt)])
    assert found.shape == (0,)
    (found,) = reader.read([Piece(prompt, one.ids, one.n_prompt, one.n_prompt + 2)])
    assert found.shape == (2,)


def test_a_model_without_keys_and_values_is_refused():
    model = MambaForCausalLM(MambaConfig(vocab_size=30, hidden_size=8, num_hidden_layers=1, state_size=4))
    with pytest.raises(ModelError, match=r"mine: a MambaForCausalLM, .*cannot be read piece by piece"):
        IncrementalReader(model, name="mine")


TO_ONE_PROMPT = tiny.rollouts(1)
BETA = 0.5


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> tuple[Backbone, Backbone]:
    folder = tmp_path_factory.mktemp("models")
    policy, reference = (load_backbone(str(tiny.save(folder / str(seed), seed=seed))) for seed in (1, 0))
    return policy, reference


def prompt_of(item: Stepped) -> ReadPrompt:
    return ReadPrompt(item.encoded.ids[: item.encoded.n_prompt])


@pytest.fixture(scope="module")
def responses(models) -> list[Stepped]:
    return [
        Stepped(encoded=item, steps=tuple(token_spans(item.spans, lines(one.response), text=one.response)))
        for item, one in zip(encode(models[0].tokenizer, TO_ONE_PROMPT), TO_ONE_PROMPT, strict=True)
    ]


@pytest.mark.parametrize("reward", REWARDS)
def test_steps_earn_what_they_earn_in_whole_responses(reward, models, responses):
    policy, ref = (
        [logps.numpy().astype(np.float64) for logps in score_tokens(one.model, [item.encoded for item in responses])]
        for one in models
    )
    stepwise = StepwiseRewards(policy=models[0], reference=models[1], reward=reward, beta=BETA)
    prompt = prompt_of(responses[0])
    for index, item in enumerate(responses):
        expected = step_rewards(REWARDS[reward](policy[index], ref[index], BETA), item.steps)
        found = [stepwise.rewards([WantedStep(prompt, item, step)])[0] for step in range(len(item.steps))]
        assert found == near(list(expected))


def test_only_the_models_that_a_reward_takes_are_run(models, responses):
    n_tokens = {}
    for reward in REWARDS:
        stepwise = StepwiseRewards(policy=models[0], reference=models[1], reward=reward, beta=BETA)
        stepwise.rewards([WantedStep(prompt_of(responses[0]), responses[0], 0)])
        n_tokens[reward] = sum(stepwise.read.values())
    assert n_tokens["with-reference"] == 2 * n_tokens["without-reference"] == 2 * n_tokens["reference-only"]


def test_a_model_that_is_its_own_reference_reads_once_and_earns_exactly_nothing(models, responses):
    both = {
        reward: StepwiseRewards(policy=models[0], reference=models[0], reward=reward, beta=1.0) for reward in REWARDS
    }
    prompts = {reward: prompt_of(responses[0]) for reward in REWARDS}
    found = {name: one.rewards([WantedStep(prompts[name], responses[0], 0)]) for name, one in both.items()}
    assert found["with-reference"] == [0.0]
    assert found["without-reference"] == found["reference-only"] != [0.0]
    assert len({sum(one.read.values()) for one in both.values()}) == 1


def test_without_its_reference_a_model_says_what_it_can_do(models):
    with pytest.raises(ModelError, match="choose 'without-reference'"):
        StepwiseRewards(policy=models[0], reference=None, reward="with-reference", beta=BETA)
    with pytest.raises(ConfigError, match="expected one of"):
        StepwiseRewards(policy=models[0], reference=None, reward="withot", beta=BETA)


def test_a_model_that_diverged_is_refused_by_response_and_step(tmp_path: Path, responses):
    broken = load_backbone(str(tiny.save(tmp_path)))
    with torch.no_grad():
        broken.model.get_output_embeddings().weight.fill_(torch.nan)
    stepwise = StepwiseRewards(policy=broken, reference=None, reward="without-reference", beta=BETA)
    with pytest.raises(NonFiniteError, match="problem 'p0', sample 2: the reward of step 0 is not finite"):
        stepwise.rewards([WantedStep(prompt_of(responses[2]), responses[2], 0)])


def test_a_references_log_probabilities_that_are_known_are_not_read_and_others_are_read_from_the_beginning(
    models, responses
):
    item = max(responses, key=lambda one: len(one.steps))
    assert len(item.steps) >= 3
    (ref,) = score_tokens(models[1].model, [item.encoded])
    plain, taught = (
        StepwiseRewards(policy=models[0], reference=models[1], reward="with-reference", beta=BETA) for _ in range(2)
    )
    prompts = prompt_of(item), prompt_of(item)
    n_read = []
    for step, (start, stop) in enumerate(item.steps):
        known = ref[start:stop] if step < 2 else None
        (expected,) = plain.rewards([WantedStep(prompts[0], item, step)])
        (found,) = taught.rewards([WantedStep(prompts[1], item, step, known)])
        assert found == near(expected)
        n_read.append(sum(plain.read.values()) - sum(taught.read.values()))
    assert n_read[1] == item.encoded.n_prompt - 1 + item.steps[1].stop  # what the reference would have read
    assert n_read[-1] == 0
