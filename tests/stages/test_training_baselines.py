"""Baselines and second stages through the training stage: from labelled rollouts to a folder that scores."""

import json
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

import stepped
import tiny
from freeprm.core.intervals import auc
from freeprm.errors import ConfigError, ModelError
from freeprm.io.rollouts import rollout_row
from freeprm.io.runs import read_manifest
from freeprm.models.loading import weights_hash
from freeprm.models.reward_config import load_reward_config
from freeprm.scorers.base import ScorerSource
from freeprm.scorers.implicit import ImplicitPRM
from freeprm.scorers.valued import Valued
from freeprm.stages.base import RunResult
from freeprm.stages.training import train
from freeprm.training.settings import load_settings
from freeprm.types import Rollout
from rounding import near

Train = Callable[..., RunResult]
QUICK = {
    "learning_rate": 3e-3, "lr_scheduler_type": "linear", "per_device_train_batch_size": 2,
    "gradient_accumulation_steps": 1, "logging_steps": 2, "use_cpu": True, "report_to": "none", "num_train_epochs": 8.0,
}  # fmt: skip
BASELINES = {
    "linear outcome reward model": {"parameterisation": "linear"},
    "linear outcome reward model, pairs": {"parameterisation": "linear", "objective": "dpo"},
    "generative outcome reward model": {"parameterisation": "tokens"},
    "Math-Shepherd": {"parameterisation": "tokens", "objective": "step_ce"},
    "Math-Shepherd, soft": {"parameterisation": "tokens", "objective": "step_ce", "step_labels": "soft"},
    "outcome-supervised verifier": {"parameterisation": "linear", "objective": "osv"},
}  # fmt: skip


@pytest.fixture(scope="session")
def start(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny.save(tmp_path_factory.mktemp("start"), template=tiny.LLAMA3)


@pytest.fixture
def run(start: Path, tmp_path: Path) -> Train:
    """Train on the toy task into `tmp_path / out`; keywords are settings."""

    def one(
        rollouts: Sequence[Rollout] | None = None, *, out: str = "out", trainer: Any = None, **how: Any
    ) -> RunResult:
        rows = [rollout_row(rollout) for rollout in (stepped.rollouts(8) if rollouts is None else rollouts)]
        data = tmp_path / f"{out}.jsonl"
        data.write_text("".join(json.dumps(row) + "\n" for row in rows))
        options = {"model": str(start), **how, "trainer": {**QUICK, **(trainer or {})}}
        return train.run([data], replace(load_settings(options=options), out=tmp_path / out))

    return one


def scored(folder: Path, rollouts: Sequence[Rollout]) -> list[tuple[float, ...]]:
    """Each response's step scores, or its one score."""
    found, _ = Valued.load(ScorerSource(source=str(folder))).score_rollouts(rollouts)
    return [one.step_scores or (one.score,) for one in found.values()]


@pytest.mark.parametrize("name", BASELINES)
def test_a_baseline_learns_from_the_same_rollouts_and_scores_others(run, name):
    made = run(**BASELINES[name])
    first, *_, last = made.log
    assert last["loss"] < 0.7 * first["loss"]
    config = load_reward_config(made.folder)
    assert (config.reference, config.beta) == (None, 1.0)
    assert config.parameterisation == BASELINES[name]["parameterisation"]
    assert config.judgement == (("+", "-") if config.parameterisation == "tokens" else None)
    assert made.cost.scored_tokens == 0  # no reference pass
    assert "kl_to_reference" not in last
    held_out = stepped.rollouts(5, seed=9)
    scores = scored(made.folder, held_out)
    ranking = auc([score[-1] for score in scores], [bool(rollout.correct) for rollout in held_out])
    assert ranking > 0.85
    at_steps = config.read_at == "steps"
    assert [len(score) for score in scores] == [len(r.extra["steps"]) if at_steps else 1 for r in held_out]


def test_a_process_reward_model_scores_each_step_by_its_own_label(run):
    folder = run(parameterisation="tokens", objective="step_ce").folder
    held_out = stepped.rollouts(5, seed=9)
    agreeing = [
        (value > 0) == label
        for values, rollout in zip(scored(folder, held_out), held_out, strict=True)
        for value, label in zip(values, rollout.extra["step_labels"], strict=True)
    ]
    assert sum(agreeing) / len(agreeing) > 0.9


def test_a_fresh_head_says_exactly_0_before_its_first_update(run):
    made = run(parameterisation="linear", trainer={"max_steps": 1, "learning_rate": 0.0})
    assert {value for values in scored(made.folder, stepped.rollouts(2)) for value in values} == {0.0}


def test_the_verifier_goes_on_with_its_head_on_labels_of_steps(run):
    osv = run(out="osv", parameterisation="linear", objective="osv")
    second = run(
        out="second", model=str(osv.folder), parameterisation="linear", objective="step_ce",
        trainer={"max_steps": 1, "learning_rate": 0.0},
    )  # fmt: skip
    head = "score.weight"
    before, after = (load_file(folder / "model.safetensors")[head] for folder in (osv.folder, second.folder))
    assert before.any()
    assert torch.equal(before, after)
    assert load_reward_config(second.folder).base == str(osv.folder.resolve())


def test_the_verifier_is_no_policy(run):
    osv = run(out="osv", parameterisation="linear", objective="osv", trainer={"max_steps": 1})
    with pytest.raises(ConfigError, match=r"gives values .* but is to be trained as 'log_ratio'"):
        run(out="second", model=str(osv.folder), objective="step_kto")


def test_a_second_stage_keeps_the_first_ones_reference_and_beta_and_raises_right_steps(run, start):
    first = run(out="first", beta=0.5)
    with pytest.warns(UserWarning, match="is trained on with its own reference"):
        second = run(out="second", model=str(first.folder), objective="step_kto")
    config = load_reward_config(second.folder)
    assert (config.reference.source, config.reference.weights_sha256) == (str(start), weights_hash(start))
    assert (config.beta, config.base) == (0.5, str(first.folder.resolve()))
    assert abs(second.log[0]["margin"]) > 0.5  # it starts from the rewards that it gave, and not from zero
    assert read_manifest(second.folder)["settings"]["reference"] == str(start)
    gaps = [step_gap(made.folder) for made in (first, second)]
    assert gaps[1] > gaps[0]


def step_gap(folder: Path) -> float:
    """Mean reward of right steps less that of wrong ones, on held-out responses."""
    prm, rewards = ImplicitPRM.from_pretrained(folder), {True: [], False: []}
    for rollout in stepped.rollouts(5, seed=9):
        score = prm.score(rollout.prompt, [rollout.response], steps=[rollout.extra["steps"]])[0]
        for reward, label in zip(score.step_rewards, rollout.extra["step_labels"], strict=True):
            rewards[label].append(reward)
    return sum(rewards[True]) / len(rewards[True]) - sum(rewards[False]) / len(rewards[False])


@pytest.mark.parametrize("name", ["linear outcome reward model", "Math-Shepherd"])
def test_adapters_are_saved_with_the_head_and_score(run, name):
    made = run(**BASELINES[name], lora=4)
    assert (made.folder / "adapter_model.safetensors").exists()
    assert not (made.folder / "model.safetensors").exists()
    assert made.log[-1]["loss"] < 0.6
    found = scored(made.folder, stepped.rollouts(2))
    assert {value > 0 for values in found for value in values} == {True, False}


def test_activation_checkpointing_changes_nothing(run):
    plain, checkpointed = (
        run(out=out, parameterisation="linear", trainer={"max_steps": 3, "activation_checkpointing": on}).log[-1][
            "loss"
        ]
        for out, on in (("plain", False), ("checkpointed", True))
    )
    assert plain == near(checkpointed)


def test_a_judgement_that_is_not_one_token_is_refused(run):
    with pytest.raises(ModelError, match="'wholly right' splits into"):
        run(parameterisation="tokens", judgement=("wholly right", "-"))


def test_what_was_left_out_is_told(run):
    made = stepped.rollouts(4)
    result = run([*made[1:], *stepped.with_columns(made[:1], step_labels=None)], objective="step_ce",
                 parameterisation="tokens", trainer={"max_steps": 1})  # fmt: skip
    assert result.counts["skipped: responses without step labels"] == 1
    assert result.counts["labelled steps"] == sum(len(rollout.extra["steps"]) for rollout in made[1:])


def test_the_accuracy_of_steps_is_counted_in_steps(run):
    made = run(objective="step_ce", parameterisation="tokens", trainer={"max_steps": 4})
    accuracy, loss = (
        next(one for one in made.metrics if one.metric == name) for name in ("train_step_accuracy", "train_loss")
    )
    assert loss.count == 16  # two updates of two groups of four
    assert accuracy.count == made.log[-1]["labelled_steps"] > 16
