"""What each model read: counted, timed, and added up over parts."""

import pytest
from torch import nn

import tiny
from freeprm.core.flops import ModelShape, forward_flops
from freeprm.scorers._usage import ModelUsage, Usage, scoring_cost

SHAPE = ModelShape(n_parameters=1000, n_layers=2, attention_width=8)


def test_batches_are_counted_and_told_on():
    told, model = [], tiny.language_model()
    usage = Usage(told.append)
    passed = usage.timing("policy forward", model)
    passed(7, 2)
    passed(5, 1)
    reading = usage.models["policy forward"]
    assert usage.tokens == 12
    assert (reading.tokens, reading.place, reading.device) == (12, "cpu", "cpu")
    assert reading.seconds > 0
    assert told == [7, 5]


def test_a_model_that_read_nothing_is_there_with_no_tokens():
    usage = Usage()
    usage.timing("reference forward", nn.Linear(1, 1))
    assert usage.models == {"reference forward": ModelUsage()}


def test_parts_add_up_to_charges_by_model():
    parts = [
        {"policy forward": ModelUsage(tokens=10, seconds=1.0, place="cuda:0", device="NVIDIA H200"),
         "reference forward": ModelUsage()},
        {"policy forward": ModelUsage(tokens=20, seconds=2.0, place="cuda:0", device="NVIDIA H200"),
         "reference forward": ModelUsage(tokens=5, seconds=0.5, place="cuda:1", device="NVIDIA H200")},
    ]  # fmt: skip
    cost = scoring_cost(parts, SHAPE, mean_length=9)
    assert cost.scored_tokens == 35
    assert [(item.what, item.tokens, item.seconds) for item in cost.charges] == [
        ("policy forward", 30, 3.0), ("reference forward", 5, 0.5),
    ]  # fmt: skip
    assert cost.flops == pytest.approx(forward_flops(SHAPE, 35, 9).total)
    assert cost.devices == ("NVIDIA H200", "NVIDIA H200")  # one for each model
