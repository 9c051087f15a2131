"""Costs in manifests: whole there and back, and read from manifests of earlier versions."""

import json

import pytest

from costs import charge
from freeprm.errors import RunFolderError
from freeprm.io.costs import cost_row, read_cost, timed
from freeprm.types import Cost


def test_a_cost_is_read_back_as_it_was_written():
    cost = Cost(
        generated_tokens=3, seconds=1.25, gpu_seconds=2.5, devices=("NVIDIA H200", "NVIDIA H200"),
        charges=(charge("decode", 3, 6 * 10**20 + 1, 7, seconds=0.1), charge("reference forward", 0, None)),
    )  # fmt: skip
    read = read_cost(json.loads(json.dumps(cost_row(cost))))
    assert read == cost
    assert read.charges[0].parameter_flops == 6 * 10**20 + 1  # to the last operation


def test_a_cost_from_before_charges_has_its_sum():
    old = {"prompt_tokens": 1, "generated_tokens": 2, "scored_tokens": 0, "trained_tokens": 0, "flops": 5.0}
    assert read_cost({**old, "seconds": 2.0}) == Cost(prompt_tokens=1, generated_tokens=2, flops=5.0, seconds=2.0)


def test_no_flops_for_tokens_means_that_they_were_not_known_then():
    assert read_cost({"generated_tokens": 2, "flops": 0.0}).flops is None
    assert read_cost({"generated_tokens": 0, "flops": 0.0}).flops == 0
    assert read_cost({"generated_tokens": 2, "flops": 0.0, "charges": []}).flops == 0


def test_a_cost_with_fields_of_a_newer_version_is_refused():
    with pytest.raises(RunFolderError, match=r"'joules'.*newer freeprm"):
        read_cost({"joules": 3.0})


def test_gpu_seconds_are_seconds_times_the_gpus():
    assert timed(Cost(devices=("cpu",)), 3.0).gpu_seconds == 0
    assert timed(Cost(devices=("NVIDIA H200", "NVIDIA H200", "cpu")), 3.0).gpu_seconds == 6
    assert timed(Cost(), 3.0).seconds == 3
