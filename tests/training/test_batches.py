from collections import Counter
from dataclasses import replace

import numpy as np
import pytest
import torch

import stepped
import tiny
from freeprm.errors import ConfigError, NonFiniteError
from freeprm.io.plugins import load
from freeprm.models.encoding import encode
from freeprm.models.logprobs import token_logprobs
from freeprm.models.values import Valuation, load_valued, token_values
from freeprm.training.batches import Example, LogRatios, Values, collate_groups, reward_of, step_reader
from freeprm.training.settings import TrainSettings
from freeprm.training.steps import StepReader, in_tokens


def example(n_responses: int, *, problem: int = 0) -> Example:
    """The first responses to a problem of the toy task; reference log-probabilities count the tokens."""
    encoded = encode(tiny.tokenizer(), tiny.rollouts(problem + 1)[4 * problem :][:n_responses])
    return Example(
        encoded=tuple(encoded),
        labels=(True, False, True, False)[:n_responses],
        ref_logps=tuple(torch.arange(item.n_response, dtype=torch.float32) for item in encoded),
    )


def test_a_batch_lays_examples_side_by_side():
    one, two = example(2), example(3, problem=1)
    batch = collate_groups([one, two])
    assert batch.encoded == [*one.encoded, *two.encoded]
    assert batch.labels.tolist() == [True, False, True, False, True]
    assert batch.groups.tolist() == [0, 0, 1, 1, 1]
    lengths = [item.n_response for item in batch.encoded]
    assert torch.bincount(batch.rows).tolist() == lengths
    assert batch.ref_logps.tolist() == [float(t) for length in lengths for t in range(length)]
    assert batch.mismatched == []


def test_tokens_know_their_step_and_steps_are_counted_through(example_of_steps):
    one, two = example_of_steps(0), example_of_steps(1)
    batch = collate_groups([one, two])
    assert torch.bincount(batch.rows).tolist() == [item.n_response for item in batch.encoded]
    ends = [own.ends for part in (one, two) for own in part.steps]
    lengths = [int(n) for own in ends for n in np.diff(own, prepend=-1)]
    assert torch.bincount(batch.steps).tolist() == lengths
    assert batch.steps.tolist() == sorted(batch.steps.tolist())
    assert len(batch.step_labels) == len(lengths)


def test_places_stand_for_tokens_where_values_are_read(example_of_steps):
    one = example_of_steps(0)
    read = replace(one, ref_logps=(), places=tuple(own.ends for own in one.steps))
    batch = collate_groups([read, read])
    n_steps = [len(own.ends) for own in one.steps] * 2
    assert torch.bincount(batch.rows).tolist() == n_steps
    assert batch.steps.tolist() == list(range(sum(n_steps)))
    assert batch.places == [*read.places, *read.places]
    assert len(batch.ref_logps) == 0


@pytest.fixture
def example_of_steps():
    """An example of the toy task with steps."""

    def make(problem: int) -> Example:
        made = stepped.rollouts(problem + 1)[4 * problem :]
        reader = StepReader(splitter="auto", labels="hard")
        encoded = encode(tiny.tokenizer(), made)
        steps = [
            in_tokens(reader.in_text(rollout), item, rollout.response, Counter())
            for rollout, item in zip(made, encoded, strict=True)
        ]
        return replace(example(4, problem=problem), encoded=tuple(encoded), steps=tuple(steps))

    return make


def test_pairs_of_an_example_are_right_times_wrong():
    assert [example(n).n_pairs for n in (1, 2, 3, 4)] == [0, 1, 2, 4]


def test_an_example_is_as_long_as_its_longest_response():
    assert example(4).longest == max(len(item.ids) for item in example(4).encoded)


def settings(**how: object) -> TrainSettings:
    return TrainSettings(model="m", **how)


def reward(objective: str = "ce", **how: object):
    return reward_of(settings(**how), load("objectives", objective)())


def test_a_log_ratio_has_a_beta_and_perhaps_a_reference():
    assert reward() == LogRatios(beta=0.05, with_reference=True)
    assert reward(beta=2.0, with_reference=False) == LogRatios(beta=2.0, with_reference=False)
    assert reward().valuation is None


@pytest.mark.parametrize(
    ("objective", "read_at"),
    [("ce", "response"), ("dpo", "response"), ("osv", "steps"), ("step_ce", "steps"), ("step_kto", "steps")],
)
def test_values_are_read_where_the_objective_needs_them(objective, read_at):
    assert reward(objective, parameterisation="linear").valuation == Valuation(
        parameterisation="linear", read_at=read_at
    )


def test_values_may_be_read_at_steps_for_any_objective_and_are_judged_by_the_settings_tokens():
    valuation = reward("ipvrm", parameterisation="tokens", read_at="steps", judgement=("yes", "no")).valuation
    assert valuation == Valuation(parameterisation="tokens", read_at="steps", judgement=("yes", "no"))


@pytest.mark.parametrize(
    ("objective", "how", "message"),
    [
        ("kto", {}, "kto: needs the divergence of a policy .* which parameterisation 'linear' does not have"),
        ("step_ce", {"read_at": "response"}, "read_at: is 'response', but step_ce looks at steps"),
        ("ce", {"reference": "r"}, "reference: parameterisation 'linear' has none"),
        ("ce", {"with_reference": False}, "reference: parameterisation 'linear' has none"),
    ],
)
def test_what_values_do_not_have_is_refused(objective, how, message):
    with pytest.raises(ConfigError, match=message):
        reward_of(
            settings(objective=objective, parameterisation="linear", **how), load("objectives", objective)()
        )  # fmt: skip


def test_steps_are_read_where_the_objective_or_the_values_are_at_them():
    def reader(objective: str, **how: object):
        return step_reader(settings(**how), load("objectives", objective)())

    assert reader("ce") is None
    assert reader("ce", parameterisation="linear") is None
    assert reader("ce", parameterisation="linear", read_at="steps").labels is None
    assert reader("osv").labels is None
    assert reader("step_kto").labels == "hard"
    assert reader("step_ce", step_labels="soft", splitter="lines").column == "step_values"


@pytest.fixture(scope="module")
def encoded():
    return encode(tiny.tokenizer(), stepped.rollouts(1))


def four_responses(encoded, **fields) -> Example:
    return Example(encoded=tuple(encoded), labels=(True, False, True, False), **fields)


def test_log_ratios_are_of_every_token(encoded):
    model = tiny.language_model()
    logps = token_logprobs(model, encoded).detach()
    refs = tuple(torch.full((item.n_response,), -1.5) for item in encoded)
    batch = collate_groups([four_responses(encoded, ref_logps=refs)])
    rewards = LogRatios(beta=2.0).token_rewards(model, batch)
    torch.testing.assert_close(rewards, 2.0 * (logps + 1.5))


def test_token_rewards_of_values_are_their_differences_inside_each_response(encoded, model_folder):
    valuation = Valuation(parameterisation="tokens", read_at="steps", judgement=("+", "-"))
    model = load_valued(str(model_folder), valuation).model
    places = tuple(np.array(sorted({2, 5, item.n_response - 1}), dtype=np.int32) for item in encoded)
    rewards = Values(valuation=valuation).token_rewards(model, collate_groups([four_responses(encoded, places=places)]))
    values = token_values(model, encoded, places)
    for row, (got, wanted) in enumerate(zip(rewards.split([3] * 4), values.split([3] * 4), strict=True)):
        torch.testing.assert_close(got.cumsum(0), wanted, msg=f"response {row}")
    assert rewards.requires_grad


def test_a_value_that_is_no_number_is_refused_with_the_name_of_its_response(encoded, model_folder):
    valuation = Valuation(parameterisation="linear", read_at="response")
    model = load_valued(str(model_folder), valuation).model
    with torch.no_grad():
        model.score.weight[:] = torch.nan
    places = tuple(np.array([item.n_response - 1], dtype=np.int32) for item in encoded)
    with pytest.raises(NonFiniteError, match="problem 'p0', sample 0: the value after its token"):
        Values(valuation=valuation).token_rewards(model, collate_groups([four_responses(encoded, places=places)]))
