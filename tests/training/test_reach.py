import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from freeprm.io.plugins import load, names
from freeprm.models.encoding import Encoded
from freeprm.objectives.base import Objective
from freeprm.training.batches import Example
from freeprm.training.reach import never_warm, out_of_reach, reach, too_slow
from freeprm.training.settings import TrainSettings, filled, training_arguments
from freeprm.training.steps import TokenSteps

T = 10
"""Tokens of every response."""


def example(*surprises: float, labels: tuple[bool, ...] = (True, False)) -> Example:
    """Responses of ten tokens, each with so many nats a token under the reference, in two steps."""
    encoded = Encoded(
        name="r", ids=np.arange(1 + T, dtype=np.int32), n_prompt=1, offsets=np.zeros((T, 2), dtype=np.int32)
    )
    return Example(
        encoded=(encoded,) * len(labels), labels=labels, ref_logps=tuple(torch.full((T,), -s) for s in surprises),
        steps=tuple(
            TokenSteps(ends=np.array([4, 9], dtype=np.int32), labels=np.array([1.0, label], dtype=np.float32))
            for label in labels
        ),
    )  # fmt: skip


def objective(name: str, **options: Any) -> Objective:
    return load("objectives", name)(**options)


def test_the_reward_in_reach_is_beta_times_the_right_responses_surprise():
    labels = (True, False, True)
    examples = [example(0.4, 10.0, 0.6, labels=labels), example(0.2, 10.0, 0.8, labels=labels)]
    found = reach(examples, objective("ce"), beta=0.1)
    assert found is not None
    assert found.reward == pytest.approx(0.5)  # right responses of 4, 6, 2 and 8 nats: 5 on average


def test_the_loss_in_reach_is_that_of_a_policy_certain_of_the_right_responses():
    # Cross-entropy of rewards of +-0.1 * 10 * 0.3 nats.
    found = reach([example(0.3, 0.3)], objective("ce"), beta=0.1)
    assert found is not None
    assert (found.start, found.least) == pytest.approx((math.log(2), math.log1p(math.exp(-0.3))))
    # IPO's loss is least at its margin of 0.5 and rises beyond it, so that more reach does not look like less.
    found = reach([example(50.0, 50.0)], objective("ipo"), beta=1.0)
    assert found is not None
    assert found.start == pytest.approx(0.25)
    assert found.suffices
    # So does NCA's, which never comes near zero: -log(2/3) - log(1/3) / 2 where the wrong one is at its lowest.
    assert out_of_reach([example(50.0, 50.0)], objective("nca"), beta=0.05) is None


@pytest.mark.parametrize("name", ["ipvrm", "simpo"])
def test_margins_a_token_are_out_of_reach_at_a_beta_of_sums_and_within_it_at_their_own(name: str):
    examples = [example(0.25, 0.25)] * 3
    said = out_of_reach(examples, objective(name), beta=0.05)
    assert said is not None
    assert said.startswith("beta 0.05 lets an average right response earn 0.12 at most, because the reference is")
    assert (
        out_of_reach(examples, objective(name), beta=filled(TrainSettings(model="m", objective=name))[0].beta) is None
    )


def test_ipvrm_is_told_what_it_asks_for():
    # v = 0.05 * 0.25 nats a token against a margin of 5: log(1 + e^5) to log(1 + e^4.9875), and enough from v = 1 on.
    said = out_of_reach([example(0.25, 0.25)], objective("ipvrm"), beta=0.05)
    assert said is not None
    assert "the loss fall from 5.007 to 4.994: too little to learn from. Try a beta of 6.4 or more" in said
    assert "No beta changes that" in str(out_of_reach([example(0.0, 0.0)], objective("ce"), beta=0.05))


@pytest.mark.parametrize("name", names("objectives"))
def test_every_objective_can_move_at_its_defaults_for_responses_of_hundreds_of_nats(name: str):
    beta = filled(TrainSettings(model="m", objective=name)).settings.beta
    assert out_of_reach([example(25.0, 25.0)], objective(name), beta=beta) is None


def test_what_has_nothing_right_or_no_pair_is_not_judged():
    assert reach([example(1.0, labels=(False,))], objective("ce"), beta=0.1) is None
    assert reach([example(1.0, labels=(True,))], objective("dpo"), beta=0.1) is None


@pytest.mark.parametrize(
    ("how", "rate", "message"),
    [
        ({"lora": 16}, 5e-7, r"learning_rate 5e-07 is 10 times below what is published for adapters \(lora\), 5e-06"),
        ({"parameterisation": "linear"}, 5e-7, r"is 18 times below .* parameterisation linear, 9e-06 \(Ouyang"),
        ({}, 5e-8, "is 10 times below"),
    ],
)
def test_a_learning_rate_of_another_parameterisation_is_told(how: dict[str, Any], rate: float, message: str):
    slow = filled(TrainSettings(model="m", trainer={"learning_rate": rate}, **how)).settings
    with pytest.raises(AssertionError, match=message):
        raise AssertionError(too_slow(slow))
    assert too_slow(filled(TrainSettings(model="m", **how)).settings) is None
    assert too_slow(filled(TrainSettings(model="m", trainer={"learning_rate": 1e-3}, **how)).settings) is None


def test_one_step_that_is_all_warm_up_by_request_is_told(tmp_path: Path):
    def doubt(n_examples: int, **trainer: Any) -> str | None:
        settings = TrainSettings(model="m", trainer={"use_cpu": True, **trainer})
        return never_warm(training_arguments(settings, tmp_path), n_examples=n_examples)

    assert "learning rate is 0: no weight will move" in str(doubt(6, warmup_steps=1))  # of 8 groups a step
    assert doubt(9, warmup_steps=1) is None  # the second of two steps trains
    assert doubt(6) is doubt(6, warmup_steps=0) is None  # a share of one step is none
