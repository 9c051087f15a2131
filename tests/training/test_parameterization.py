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
from freeprm.training.examples import Example, collate
from freeprm.training.parameterization import LogRatios, Values, reading_of, step_reader
from freeprm.training.settings import TrainSettings


def settings(**how: object) -> TrainSettings:
    return TrainSettings(model="m", **how)


def reading(objective: str = "ce", **how: object):
    return reading_of(settings(**how), load("objectives", objective)())


def test_a_log_ratio_has_a_beta_and_perhaps_a_reference():
    assert reading() == LogRatios(beta=0.05, with_reference=True)
    assert reading(beta=2.0, with_reference=False) == LogRatios(beta=2.0, with_reference=False)
    assert reading().valuation is None


@pytest.mark.parametrize(
    ("objective", "read_at"),
    [("ce", "response"), ("dpo", "response"), ("osv", "steps"), ("step_ce", "steps"), ("step_kto", "steps")],
)
def test_values_are_read_where_the_objective_needs_them(objective, read_at):
    assert reading(objective, parameterisation="linear").valuation == Valuation(
        parameterisation="linear", read_at=read_at
    )


def test_values_may_be_read_at_steps_for_any_objective_and_are_judged_by_the_settings_tokens():
    valuation = reading("ipvrm", parameterisation="tokens", read_at="steps", judgement=("yes", "no")).valuation
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
        reading_of(
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


def example(encoded, **fields) -> Example:
    return Example(encoded=tuple(encoded), labels=(True, False, True, False), **fields)


def test_log_ratios_are_of_every_token(encoded):
    model = tiny.language_model()
    logps = token_logprobs(model, encoded).detach()
    refs = tuple(torch.full((item.n_response,), -1.5) for item in encoded)
    batch = collate([example(encoded, ref_logps=refs)])["batch"]
    rewards = LogRatios(beta=2.0).token_rewards(model, batch)
    torch.testing.assert_close(rewards, 2.0 * (logps + 1.5))


def test_token_rewards_of_values_are_their_differences_inside_each_response(encoded, model_folder):
    valuation = Valuation(parameterisation="tokens", read_at="steps", judgement=("+", "-"))
    model = load_valued(str(model_folder), valuation).model
    places = tuple(np.array(sorted({2, 5, item.n_response - 1}), dtype=np.int32) for item in encoded)
    rewards = Values(valuation=valuation).token_rewards(model, collate([example(encoded, places=places)])["batch"])
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
        Values(valuation=valuation).token_rewards(model, collate([example(encoded, places=places)])["batch"])
