"""`freeprm rl` on a tiny model: TRL's real trainer, our advantages."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

import tiny
from freeprm.errors import ConfigError, DataError
from freeprm.io.rows import write_rows
from freeprm.settings import RLSettings
from freeprm.stages.base import RunResult
from launching import launch
from tiny import LLAMA3, save

slow = pytest.mark.slow
SMALL = {
    "steps": 4, "prompts": 2, "n": 4, "max_new_tokens": 8, "learning_rate": 1e-2, "prm_learning_rate": 1e-2,
    "beta": 0.5, "eval_problems": 3, "eval_samples": 2, "eval_every": 3, "save_every": 2, "grader": "text",
    "extractors": ["regex:(e)"],
}  # fmt: skip


@pytest.fixture(scope="module")
def policy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save(tmp_path_factory.mktemp("policy"), template=LLAMA3)


@pytest.fixture(scope="module")
def problems(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Problems whose answer is a letter, which a random model often says by accident."""
    file = tmp_path_factory.mktemp("problems") / "problems.jsonl"
    write_rows(file, [{"problem_id": f"p{n}", "prompt": f"{n} and {n}?", "answer": "e"} for n in range(12)])
    return file


@pytest.fixture(scope="module")
def run(policy: Path, problems: Path, tmp_path_factory: pytest.TempPathFactory):
    """`freeprm rl` with small settings, in a folder of its own unless another is given."""
    from freeprm.rl.running import rl

    def one(out: Path | None = None, **how: Any):
        given: dict[str, Any] = {**SMALL, "model": str(policy), **how}
        return rl(problems, out=out or tmp_path_factory.mktemp("rl") / "run", **given)

    return one


@pytest.fixture(scope="module")
def finished(run):
    return run()


def weights(result) -> dict[str, torch.Tensor]:
    return load_file(result.folder / "model.safetensors")


def equal(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> bool:
    return all(torch.equal(one[name], other[name]) for name in one)


@slow
def test_a_run_leaves_a_policy_a_reward_model_and_its_evaluations(finished, policy: Path, run):
    from transformers import AutoModelForCausalLM

    from freeprm.scorers.base import load_scorer

    assert not equal(weights(finished), load_file(policy / "model.safetensors"))
    AutoModelForCausalLM.from_pretrained(finished.folder)
    assert load_scorer(finished.folder / "prm").score("1 and 1?", ["e"])[0].reward != 0.0
    rows = list(finished.rows("evaluations"))
    assert sorted({row["step"] for row in rows}) == [0, 3, 4]
    assert {(row["step"], row["n"]) for row in rows} == {(0, 2), (3, 2), (4, 2)}
    by_step = {metric.group: metric for metric in finished.metrics if metric.metric == "accuracy"}
    for step in (0, 3, 4):
        shares = [row["right"] / row["n"] for row in rows if row["step"] == step]
        assert by_step[f"step={step}"].value == pytest.approx(sum(shares) / 3)
    assert finished.counts["problems"] == 9
    assert finished.counts["responses drawn"] == 32
    assert not list(finished.folder.glob("checkpoint-*"))
    manifest = json.loads((finished.folder / "manifest.json").read_text())
    assert manifest["models"] == {"prm": str(finished.folder / "prm")}
    assert run(finished.folder).metrics == finished.metrics  # the same call does nothing
    assert [row for row in finished.log if "prm/loss" in row]


@slow
def test_a_killed_run_ends_as_an_uninterrupted_one(run, finished, tmp_path: Path, monkeypatch):
    from freeprm.rl.prime import PRIMETrainer

    real, save_model = PRIMETrainer.training_step, PRIMETrainer.save_model

    def killed(self, model, inputs, n):
        if self.state.global_step == 3:
            raise KeyboardInterrupt
        return real(self, model, inputs, n)

    def killed_at_the_end(self, output_dir=None, _internal_call=False):
        if not _internal_call:
            raise KeyboardInterrupt
        save_model(self, output_dir, _internal_call)

    for name, at in (("training_step", killed), ("save_model", killed_at_the_end)):
        monkeypatch.setattr(PRIMETrainer, name, at)
        with pytest.raises(KeyboardInterrupt):
            run(tmp_path / "run")
        monkeypatch.undo()
    resumed = run(tmp_path / "run")
    assert equal(weights(resumed), weights(finished))
    prm = [load_file(one.folder / "prm" / "model.safetensors") for one in (resumed, finished)]
    assert equal(*prm)
    assert list(resumed.rows("evaluations")) == list(finished.rows("evaluations"))


@slow
def test_a_reward_model_that_never_learns_changes_nothing(run):
    frozen, without = run(prm_learning_rate=0.0), run(process_weight=0.0)
    assert equal(weights(frozen), weights(without))
    assert not (without.folder / "prm").exists()


@slow
def test_process_rewards_and_candidates_reach_the_policy(run, finished):
    without, more = run(process_weight=0.0), run(candidates=3)
    assert not equal(weights(finished), weights(without))
    assert not equal(weights(more), weights(finished))
    assert equal(
        load_file(without.folder / "model.safetensors"), weights(run(process_weight=0.0))
    )  # the same seed, the same run


@slow
def test_advantages_are_those_of_the_formula(run, monkeypatch):
    from freeprm.rl.advantages import baseline, leave_one_out, mean_rewards, process_returns, whitened
    from freeprm.rl.prime import PRIMETrainer

    seen: list[tuple[dict[str, Any], torch.Tensor, torch.Tensor]] = []
    rewards: list[torch.Tensor] = []
    real, process = PRIMETrainer._generate_and_score_completions, PRIMETrainer._process_rewards

    def noted(self, made):
        rewards.append(process(self, made))
        return rewards[-1]

    def kept(self, inputs):
        made = real(self, inputs)
        if self.model.training:
            seen.append((made, self._outcomes.clone(), rewards[-1]))
        return made

    monkeypatch.setattr(PRIMETrainer, "_process_rewards", noted)
    monkeypatch.setattr(PRIMETrainer, "_generate_and_score_completions", kept)
    run(steps=2, outcome_weight=2.0, process_weight=0.5, eval_problems=0)
    assert len(seen) == 2
    for made, outcomes, of_process in seen:
        mask = made["completion_mask"].bool()
        baselines = baseline(mean_rewards(of_process, mask), 4)
        expected = 2 * leave_one_out(outcomes, 4)[:, None] + 0.5 * process_returns(of_process, mask, baselines)
        torch.testing.assert_close(made["advantages"], whitened(expected, mask))
    assert any(of_process.any() for _, _, of_process in seen)


@slow
def test_groups_outside_the_range_are_not_trained_on(run, policy: Path):
    none = run(
        accuracies=(1.0, 1.0), extractors=("regex:(never)",), eval_problems=0
    )  # no answer is right, so no group is used
    assert equal(weights(none), load_file(policy / "model.safetensors"))


@slow
def test_every_candidate_has_the_reward_of_scoring_it(run, monkeypatch):
    """The candidates' rewards are those of responses that end in them."""
    from freeprm.rl.prime import PRIMETrainer
    from freeprm.rl.rewards import token_rewards

    seen: list[Any] = []
    real = PRIMETrainer._candidates

    def kept(self, made, rewards, mask):
        found = real(self, made, rewards, mask)
        values = rewards.cumsum(1)[mask].double()
        row, at = 0, 2
        prompt = made["prompt_ids"][row][made["prompt_mask"][row].bool()].tolist()
        begun = made["completion_ids"][row, :at].tolist()
        ids = found["candidate_ids"][row, at].tolist()
        ends = token_rewards(self.online.prm, [prompt] * len(ids), [[*begun, one] for one in ids])
        expected = torch.stack([own[-1] for own in ends]) / values.std(unbiased=False)
        seen.append((found["candidate_advantages"][row, at], expected.float(), rewards[row, at], values))
        assert ids[0] == made["completion_ids"][row, at]
        return found

    monkeypatch.setattr(PRIMETrainer, "_candidates", kept)
    run(steps=2, candidates=4, eval_problems=0)
    for found, expected, drawn, values in seen:
        torch.testing.assert_close(found, expected, atol=1e-4, rtol=1e-3)
        assert float(found[0]) == pytest.approx(float(drawn / values.std(unbiased=False)), abs=1e-4)


@slow
def test_two_processes_train_as_one_does(run, policy: Path, problems: Path, tmp_path: Path):
    # A loss that is no mean over a micro-batch's tokens, and steps that are in proportion to the gradient.
    trainer = {"use_cpu": True, "per_device_train_batch_size": 4, "loss_type": "dr_grpo", "optim": "sgd"}
    how = {**SMALL, "model": str(policy), "learning_rate": 1.0, "prm_learning_rate": 1e-3, "trainer": trainer}
    one = run(tmp_path / "one", **how)
    given = tmp_path / "given.json"
    given.write_text(json.dumps({**how, "problems": str(problems), "out": str(tmp_path / "two")}))
    launch(Path(tiny.__file__).with_name("rl_in_processes.py"), str(given), config="ddp")
    two = RunResult.load(tmp_path / "two")
    logs = [[entry for entry in each.log if "prm/loss" in entry] for each in (one, two)]
    assert len(logs[0]) == len(logs[1]) == 4
    for ours, theirs in zip(*logs, strict=True):
        for name in ("reward", "completions/mean_length", "used", "grad_norm"):
            assert float(ours[name]) == pytest.approx(float(theirs[name]), rel=1e-3, abs=1e-6), name
    start = load_file(policy / "model.safetensors")
    ours, theirs = weights(one), weights(two)
    moved = sum(float((ours[name] - start[name]).square().sum()) for name in start) ** 0.5
    apart = sum(float((ours[name] - theirs[name]).square().sum()) for name in start) ** 0.5
    assert moved > 0
    assert apart < 1e-3 * moved
    assert list(one.rows("evaluations")) == list(two.rows("evaluations"))


@slow
def test_what_cannot_be_trained_on_is_said_before_a_model_is_loaded(run, problems: Path, tmp_path: Path):
    with pytest.raises(ConfigError, match=r"prompts: is 20 a step, but there are 9 problems"):
        run(prompts=20)
    with pytest.raises(DataError, match="nothing to train on"):
        run(eval_problems=12)
    with pytest.raises(ConfigError, match=r"trainer\.max_steps: is decided by freeprm; use --steps"):
        run(trainer={"max_steps": 3})
    with pytest.raises(ConfigError, match=r"trainer\.use_vlm: no such field of GRPOConfig"):
        run(trainer={"use_vlm": True})
    with pytest.raises(ConfigError, match="objective 'kto': needs more"):
        run(objective="kto")


@pytest.mark.parametrize(
    ("how", "told"),
    [
        ({"n": 1}, "n: is 1; expected 2 or more"),
        ({"temperature": 0.0}, "n: is 8 at temperature 0"),
        ({"outcome_weight": 0.0, "process_weight": 0.0}, "both 0"),
        ({"process_weight": 0.0, "candidates": 4}, "candidates: is for process rewards"),
        ({"process_weight": 0.0, "prm": "a"}, "prm: is for process rewards"),
        ({"gamma": 0.0}, "gamma: is 0"),
        ({"beta": -1.0}, "beta: is -1"),
        ({"accuracies": (0.8, 0.2)}, "expected two shares"),
        ({"learning_rate": float("nan")}, "learning_rate: is nan"),
        ({"engine_options": {"dtype": "float32"}}, "engine_options"),
    ],
)
def test_settings_that_make_no_sense_are_refused(how: dict[str, Any], told: str):
    with pytest.raises(ConfigError, match=told):
        RLSettings(**how)
