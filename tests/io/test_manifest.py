"""What manifests keep: costs, whole there and back and from earlier versions; the time of sessions; finite metrics."""

import json
import math
import time
from dataclasses import asdict

import pytest

from costs import charge
from freeprm.errors import NonFiniteError, RunFolderError
from freeprm.io import manifest
from freeprm.io.manifest import Stopwatch, check_metric, read_cost, timed, total_seconds
from freeprm.types import Cost, Metric
from patience import PATIENCE


def test_a_cost_is_read_back_as_it_was_written():
    cost = Cost(
        generated_tokens=3, seconds=1.25, gpu_seconds=2.5, devices=("NVIDIA H200", "NVIDIA H200"),
        charges=(charge("decode", 3, 6 * 10**20 + 1, 7, seconds=0.1), charge("reference forward", 0, None)),
    )  # fmt: skip
    read = read_cost(json.loads(json.dumps(asdict(cost))))
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


def test_the_last_sitting_is_timed_and_earlier_ones_stand():
    watch = Stopwatch()
    earlier = [{"started": "2026-01-01T00:00:00+00:00", "seconds": 2.5}]
    begun = watch.begin(earlier, repaired=["rows.jsonl"])
    assert begun[0] == earlier[0]
    assert (begun[1]["seconds"], begun[1]["repaired"]) == (0.0, ["rows.jsonl"])
    time.sleep(0.05)
    now = watch.read(begun)
    assert now[0] == earlier[0]
    assert 0.05 <= now[1]["seconds"] < PATIENCE
    assert total_seconds(now) == pytest.approx(2.5 + now[1]["seconds"])
    assert "repaired" not in watch.begin([], repaired=[])[0]


def test_time_is_due_to_be_written_down_now_and_then(monkeypatch: pytest.MonkeyPatch):
    watch = Stopwatch()
    assert not watch.is_due()
    monkeypatch.setattr(manifest, "SAVE_SECONDS", 0.0)
    assert watch.is_due()


def test_finite_metrics_pass():
    check_metric(Metric(metric="accuracy", value=0.5, low=None, high=0.6, count=2))


@pytest.mark.parametrize("field", ["value", "low", "high"])
def test_nan_and_infinity_are_refused_with_the_name_of_the_metric(field: str):
    for number in (math.nan, math.inf):
        bounds = {"value": 0.5, "low": 0.4, "high": 0.6, field: number}
        with pytest.raises(NonFiniteError, match=rf"accuracy \(ce, min\): {field} is {number}"):
            check_metric(Metric(metric="accuracy", scorer="ce", selector="min", count=3, **bounds))
