"""A few steps of training under a clock: what is measured, and that TRL's trainers compute the same."""

import pytest

from benchmarks.training_runs import Plan, TrainingRun, run_ours, run_plain, run_trl
from benchmarks.workloads import Workload, random_groups, random_model, word_tokenizer

WORK = Workload(size="0.9M", vocabulary=300, prompts=7, n=2, prompt_tokens=9, response_tokens=20)
TRL_WORK = Workload(size="0.9M", vocabulary=300, prompts=6, n=2, prompt_tokens=9, response_tokens=30)


def test_seconds_have_the_share_of_the_reference_that_the_measured_steps_used():
    run = TrainingRun(reference_seconds=8.0, step_seconds=(1.0, 2.0, 3.0), ref_logps=(), losses=(), grad_norms=())
    assert run.seconds(n_steps=4) == 6 + 8 * 3 / 4


def test_a_run_takes_the_whole_batches_of_its_plan_and_measures_all_but_the_first(tmp_path):
    plan = Plan(objective="ce", groups=tuple(random_groups(WORK)), groups_a_batch=2)
    run = run_ours(random_model(WORK), word_tokenizer(WORK.vocabulary), plan, out=tmp_path)
    assert plan.n_steps == len(run.losses) == len(run.grad_norms) == 3  # 7 groups in twos
    assert len(run.step_seconds) == 2
    assert len(run.ref_logps) == 14
    assert all(norm > 0 for norm in run.grad_norms)


@pytest.mark.parametrize("bf16", [False, True])
def test_three_steps_of_the_plain_loop_have_the_same_losses_gradients_and_reference(bf16, tmp_path):
    plan = Plan(
        objective="ce", groups=tuple(random_groups(WORK)), groups_a_batch=2, learning_rate=1e-4, bf16=bf16
    )  # fmt: skip
    tokenizer = word_tokenizer(WORK.vocabulary)
    ours, theirs = (train(random_model(WORK), tokenizer, plan, out=tmp_path) for train in (run_ours, run_plain))
    rel = 0.1 if bf16 else 1e-4
    assert len(theirs.losses) == len(theirs.step_seconds) + 1 == plan.n_steps == 3
    assert ours.losses == pytest.approx(theirs.losses, rel=rel)
    assert ours.losses[0] != pytest.approx(ours.losses[2], rel=1e-4)  # so that the steps are compared too
    assert ours.grad_norms == pytest.approx(theirs.grad_norms, rel=10 * rel)
    assert ours.ref_logps == pytest.approx(theirs.ref_logps, rel=1e-2 if bf16 else 1e-5)


@pytest.mark.parametrize("objective", ["dpo", "kto"])
def test_three_steps_of_trl_have_the_same_losses_gradients_and_reference(objective, tmp_path):
    pytest.importorskip("trl", minversion="1.16", reason="compares with TRL's trainers: pip install 'freeprm[bench]'")
    plan = Plan(objective=objective, groups=tuple(random_groups(TRL_WORK)), groups_a_batch=2, learning_rate=1e-4)
    tokenizer = word_tokenizer(TRL_WORK.vocabulary)
    ours = run_ours(random_model(TRL_WORK), tokenizer, plan, out=tmp_path / "ours")
    theirs = run_trl(random_model(TRL_WORK), tokenizer, plan, out=tmp_path / "theirs", checkpointing=False)
    assert len(ours.losses) == len(theirs.losses) == plan.n_steps == 3
    assert ours.losses == pytest.approx(theirs.losses, rel=1e-4)
    assert ours.losses[0] != pytest.approx(ours.losses[2], rel=1e-4)  # so that the steps are compared too
    assert ours.grad_norms == pytest.approx(theirs.grad_norms, rel=1e-3)
    assert ours.ref_logps == pytest.approx(theirs.ref_logps, rel=1e-5)
    assert [len(run.step_seconds) for run in (ours, theirs)] == [2, 2]  # between the ends of three steps
