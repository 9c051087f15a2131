"""TRL's trainers on our batches compute what ours compute."""

import pytest

from freeprm.measurement.subjects import Workload, random_groups, random_model, word_tokenizer
from freeprm.measurement.training_runs import Plan, run_ours
from freeprm.peers.trl_trainers import run_trl

pytest.importorskip("trl", minversion="1.16", reason="compares with TRL's trainers: pip install 'freeprm[bench]'")

WORK = Workload(size="0.9M", vocabulary=300, prompts=6, n=2, prompt_tokens=9, response_tokens=30)


@pytest.mark.parametrize("objective", ["dpo", "kto"])
def test_three_steps_have_the_same_losses_gradients_and_reference(objective, tmp_path):
    plan = Plan(objective=objective, groups=tuple(random_groups(WORK)), groups_a_batch=2, learning_rate=1e-4)
    tokenizer = word_tokenizer(WORK.vocabulary)
    ours = run_ours(random_model(WORK), tokenizer, plan, out=tmp_path / "ours")
    theirs = run_trl(random_model(WORK), tokenizer, plan, out=tmp_path / "theirs", checkpointing=False)
    assert len(ours.losses) == len(theirs.losses) == plan.n_steps == 3
    assert ours.losses == pytest.approx(theirs.losses, rel=1e-4)
    assert ours.losses[0] != pytest.approx(ours.losses[2], rel=1e-4)  # so that the steps are compared too
    assert ours.grad_norms == pytest.approx(theirs.grad_norms, rel=1e-3)
    assert ours.ref_logps == pytest.approx(theirs.ref_logps, rel=1e-5)
    assert [len(run.step_seconds) for run in (ours, theirs)] == [2, 2]  # between the ends of three steps
