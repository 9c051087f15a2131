"""A few steps of training under a clock; how they agree with TRL's is tested with the peers."""

from freeprm.measurement.subjects import Workload, random_groups, random_model, word_tokenizer
from freeprm.measurement.training_runs import Plan, TrainingRun, run_ours

WORK = Workload(size="0.9M", vocabulary=300, prompts=7, n=2, prompt_tokens=9, response_tokens=20)


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
