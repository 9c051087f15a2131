"""The records that flow between stages."""

import math
import pickle
from dataclasses import FrozenInstanceError, fields

import pytest

from costs import charge
from freeprm.types import NOT_ITEMISED, Cost, Metric, ResponseScore, Rollout, Span, group_rollouts


def rollout(problem_id: str, sample_idx: int, **more: object) -> Rollout:
    return Rollout(problem_id=problem_id, sample_idx=sample_idx, prompt=f"{problem_id}?", response="", **more)  # type: ignore[arg-type]  # test data


def test_rollouts_are_grouped_by_problem_in_order_of_appearance_and_samples_in_order():
    groups = group_rollouts([rollout("b", 1), rollout("a", 0), rollout("b", 0)])
    assert [(group.problem_id, [item.sample_idx for item in group.rollouts]) for group in groups] == [
        ("b", [0, 1]), ("a", [0]),
    ]  # fmt: skip
    assert groups[0].prompt == "b?"
    assert group_rollouts([]) == []


def test_a_sample_that_several_scorers_scored_counts_once_in_a_group():
    (group,) = group_rollouts([rollout("a", 0, scorer="x"), rollout("a", 1, scorer="x"), rollout("a", 0, scorer="y")])
    assert [(item.sample_idx, item.scorer) for item in group.rollouts] == [(0, "x"), (1, "x")]


def test_costs_add_up_field_by_field():
    one = Cost(prompt_tokens=1, generated_tokens=2, scored_tokens=3, trained_tokens=4, flops=5.0, seconds=6.0)
    assert one + one == Cost(
        prompt_tokens=2, generated_tokens=4, scored_tokens=6, trained_tokens=8, flops=10.0, seconds=12.0
    )
    assert sum([one], Cost()) == one


def test_costs_with_charges_are_the_sum_of_these_also_after_they_are_added():
    drawn = Cost(generated_tokens=3, charges=(charge("decode", 3, 60, 4),), devices=("cpu",))
    scored = Cost(scored_tokens=5, charges=(charge("policy forward", 5, 100, 10), charge("decode", 1, 20, 1)))
    both = drawn + scored
    assert drawn.flops == 64
    assert scored.flops == 131
    assert both.flops == 195
    assert both.charges == (charge("decode", 4, 80, 5), charge("policy forward", 5, 100, 10))
    assert both.devices == ("cpu",)
    # A sum of which nothing more is known is an item of its own, and counts as the parameters'.
    assert (both + Cost(scored_tokens=7, flops=5.0)).charges[-1] == charge(NOT_ITEMISED, 7, 5)
    assert (both + Cost(seconds=1.0)).charges == both.charges


def test_a_cost_is_not_known_where_a_charge_is_not():
    unknown = Cost(charges=(charge("decode", 3, None), charge("prefill", 1, 20)))
    assert unknown.flops is None
    assert (unknown + Cost(charges=(charge("decode", 1, 20),))).flops is None
    assert (Cost(flops=None, scored_tokens=2) + Cost(charges=(charge("decode", 1, 20),))).flops is None


def test_seconds_of_a_charge_are_known_where_those_of_its_parts_are():
    timed, untimed = charge("decode", 1, 2, seconds=1.5), charge("decode", 1, 2)
    assert (timed + timed).seconds == 3
    assert (timed + untimed).seconds is None


def test_devices_of_a_sum_are_the_most_that_were_held_at_a_time():
    one, two = Cost(devices=("cpu",)), Cost(devices=("NVIDIA H200", "NVIDIA H200"))
    assert (one + two + two + one).devices == ("NVIDIA H200", "NVIDIA H200", "cpu")


def test_p_correct_is_the_sigmoid_of_q_and_does_not_overflow():
    spans = (Span(0, 1),) * 4
    score = ResponseScore(
        steps=spans, step_rewards=(0.0,) * 4, q_values=(0.0, math.log(3), -1000.0, 1000.0), reward=0.0,
        tokens=spans, token_rewards=(0.0,) * 4,
    )  # fmt: skip
    # 1 / (1 + exp(-log 3)) = 1 / (1 + 1/3) = 3/4
    assert score.p_correct == pytest.approx((0.5, 0.75, 0.0, 1.0))


def test_a_metric_has_the_fields_that_tools_read_in_metrics_json():
    named = {item.name for item in fields(Metric)}
    assert named == {
        "metric", "scorer", "selector", "n", "value", "low", "high", "count", "seed", "group", "weighting",
    }  # fmt: skip


def test_records_are_frozen_and_travel_between_processes():
    item = rollout("a", 0, extra={"level": 3})
    with pytest.raises(FrozenInstanceError):
        item.correct = True  # type: ignore[misc]  # that is what is tested
    assert pickle.loads(pickle.dumps(item)) == item
