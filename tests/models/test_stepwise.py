from pathlib import Path

import numpy as np
import pytest
import torch

import tiny
from freeprm.core.rewards import REWARDS, step_rewards
from freeprm.core.steps import lines, token_spans
from freeprm.errors import ConfigError, ModelError, NonFiniteError
from freeprm.models.backbone import Backbone, load_backbone
from freeprm.models.encoding import encode
from freeprm.models.logprobs import score_tokens
from freeprm.models.stepwise import ReadPrompt, Stepped, StepwiseRewards
from rounding import near

ROLLOUTS = tiny.rollouts(1)
BETA = 0.5


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> tuple[Backbone, Backbone]:
    folder = tmp_path_factory.mktemp("models")
    policy, reference = (load_backbone(str(tiny.save(folder / str(seed), seed=seed))) for seed in (1, 0))
    return policy, reference


@pytest.fixture(scope="module")
def responses(models) -> list[Stepped]:
    return [
        Stepped(encoded=item, steps=tuple(token_spans(item.spans, lines(one.response), text=one.response)))
        for item, one in zip(encode(models[0].tokenizer, ROLLOUTS), ROLLOUTS, strict=True)
    ]


@pytest.mark.parametrize("reward", REWARDS)
def test_steps_earn_what_they_earn_in_whole_responses(reward, models, responses):
    policy, ref = (
        [logps.numpy().astype(np.float64) for logps in score_tokens(one.model, [item.encoded for item in responses])]
        for one in models
    )
    stepwise = StepwiseRewards(policy=models[0], reference=models[1], reward=reward, beta=BETA)
    prompt = ReadPrompt(responses[0].encoded)
    for index, item in enumerate(responses):
        expected = step_rewards(REWARDS[reward](policy[index], ref[index], BETA), item.steps)
        found = [stepwise.rewards([(prompt, item, step)])[0] for step in range(len(item.steps))]
        assert found == near(list(expected))


def test_only_the_models_that_a_reward_takes_are_run(models, responses):
    n_tokens = {}
    for reward in REWARDS:
        stepwise = StepwiseRewards(policy=models[0], reference=models[1], reward=reward, beta=BETA)
        stepwise.rewards([(ReadPrompt(responses[0].encoded), responses[0], 0)])
        n_tokens[reward] = stepwise.n_tokens
    assert n_tokens["with-reference"] == 2 * n_tokens["without-reference"] == 2 * n_tokens["reference-only"]


def test_a_model_that_is_its_own_reference_reads_once_and_earns_exactly_nothing(models, responses):
    both = {
        reward: StepwiseRewards(policy=models[0], reference=models[0], reward=reward, beta=1.0) for reward in REWARDS
    }
    prompts = {reward: ReadPrompt(responses[0].encoded) for reward in REWARDS}
    found = {name: one.rewards([(prompts[name], responses[0], 0)]) for name, one in both.items()}
    assert found["with-reference"] == [0.0]
    assert found["without-reference"] == found["reference-only"] != [0.0]
    assert len({one.n_tokens for one in both.values()}) == 1


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
        stepwise.rewards([(ReadPrompt(responses[2].encoded), responses[2], 0)])


def test_a_references_log_probabilities_that_are_known_are_not_read_and_others_are_read_from_the_beginning(
    models, responses
):
    item = max(responses, key=lambda one: len(one.steps))
    assert len(item.steps) >= 3
    (ref,) = score_tokens(models[1].model, [item.encoded])
    plain, taught = (
        StepwiseRewards(policy=models[0], reference=models[1], reward="with-reference", beta=BETA) for _ in range(2)
    )
    prompts = ReadPrompt(item.encoded), ReadPrompt(item.encoded)
    n_read = []
    for step, (start, stop) in enumerate(item.steps):
        known = ref[start:stop] if step < 2 else None
        (expected,) = plain.rewards([(prompts[0], item, step)])
        (found,) = taught.rewards([(prompts[1], item, step)], known=[known])
        assert found == near(expected)
        n_read.append(plain.n_tokens - taught.n_tokens)
    assert n_read[1] == item.encoded.n_prompt - 1 + item.steps[1].stop  # what the reference would have read
    assert n_read[-1] == 0
