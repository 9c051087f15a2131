"""The benchmark of training."""

from dataclasses import replace

import pytest

from benchmarks import training
from benchmarks.rows import BenchmarkError
from benchmarks.training_runs import TrainingRun


@pytest.mark.slow
@pytest.mark.parametrize("objective", ["dpo", "kto"])
def test_training_has_a_row_for_trl_and_one_for_its_defaults(objective, work, well_formed):
    pytest.importorskip("trl", minversion="1.16", reason="compares with TRL: pip install 'freeprm[bench]'")
    work = replace(work, prompts=4, n=2)
    peers = (training.TRL, training.AS_IT_COMES)
    case = training.Case(
        work=work, objective=objective, groups_a_batch=2, peers=peers, target=training.TARGETS[objective]
    )
    rows = [well_formed(row) for row in training.measure(case)]
    assert [row.name.partition(":")[0] for row in rows] == [
        f"training/{objective}, TRL", f"training/{objective}, TRL as it comes",
    ]  # fmt: skip
    assert {row.target for row in rows} == {training.TARGETS[objective]}


def test_training_has_a_row_for_a_plain_loop(work, well_formed):
    work = replace(work, prompts=4)
    case = training.Case(
        work=work, objective="ce", groups_a_batch=2, peers=(training.PLAIN,), rounds=2, subject="real/training "
    )
    (row,) = training.measure(case)
    assert well_formed(row).name == f"real/training ce, plain Hugging Face: {work}"
    assert row.details["rounds"] == 2
    assert row.details["loss_difference"] < training.EXACT.loss


def test_without_trl_its_row_says_so(work, monkeypatch):
    monkeypatch.setattr(training, "trl_version", lambda: None)
    case = training.Case(work=replace(work, prompts=4, n=2), objective="dpo", groups_a_batch=2)
    (row,) = training.measure(case)
    assert row.ours > 0
    assert (row.peer, row.ratio, row.met) == (None, None, None)
    assert "pip install 'freeprm[bench]'" in row.missing


def test_training_refuses_other_numbers():
    run = TrainingRun(
        reference_seconds=1.0, step_seconds=(1.0,), ref_logps=(-5.0,), losses=(0.69, 0.68), grad_norms=(2.0, 2.0)
    )
    assert training.check_same(run, run, [10])["loss_difference"] == 0
    with pytest.raises(BenchmarkError, match="loss differs"):
        training.check_same(run, replace(run, losses=(0.69, 0.60)), [10])
    with pytest.raises(BenchmarkError, match="grad_norm differs"):
        training.check_same(run, replace(run, grad_norms=(2.0, 0.0)), [10])
    rounded = replace(run, ref_logps=(-5.1,), losses=(0.69, 0.67))
    assert training.check_same(run, rounded, [10], tolerance=training.ROUNDED)["logp_difference"] == pytest.approx(0.01)
    with pytest.raises(BenchmarkError, match="logp differs"):
        training.check_same(run, replace(run, ref_logps=(-5.1,)), [10])  # 0.01 nats a token
