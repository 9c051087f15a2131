import json
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from transformers import LlamaConfig, LlamaForCausalLM

import tiny
from freeprm.errors import ConfigError, DataError, PluginError, RewardMismatchError, RunFolderError
from freeprm.io.rollouts import rollout_row
from freeprm.io.runs import read_manifest
from freeprm.models.encoding import encode
from freeprm.models.loading import weights_hash
from freeprm.models.logprobs import n_read
from freeprm.models.prompts import render_prompt
from freeprm.models.reward_config import load_reward_config
from freeprm.scorers.implicit import ImplicitPRM
from freeprm.stages.base import RunResult
from freeprm.stages.training import plan, train
from freeprm.training.running import ConsoleCallback, fit
from freeprm.training.settings import TrainSettings, load_settings
from freeprm.training.trainer import GroupTrainer
from freeprm.types import Rollout

Train = Callable[..., RunResult]
QUICK = {
    "learning_rate": 3e-3, "lr_scheduler_type": "linear", "per_device_train_batch_size": 2,
    "gradient_accumulation_steps": 1, "logging_steps": 2, "use_cpu": True,
}  # fmt: skip
LINEAR = {"objective": "osv", "parameterisation": "linear"}


@pytest.fixture(scope="session")
def start(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny.save(tmp_path_factory.mktemp("start"), template=tiny.LLAMA3)


def write(path: Path, rollouts: Sequence[Rollout]) -> Path:
    path.write_text("".join(json.dumps(rollout_row(rollout)) + "\n" for rollout in rollouts))
    return path


def settings(start: Path, trainer: dict[str, Any] | None = None, **options: Any) -> TrainSettings:
    return load_settings(options={"model": str(start), "beta": 0.5, **options, "trainer": {**QUICK, **(trainer or {})}})


@pytest.fixture
def run(start: Path, tmp_path: Path) -> Train:
    """Train on the toy task into `tmp_path / "out"`; keywords are settings."""

    def one(
        rollouts: Sequence[Rollout] | None = None, *, dev: Sequence[Rollout] = (), out: str = "out", **how: Any
    ) -> RunResult:
        data = write(tmp_path / "rollouts.jsonl", tiny.rollouts(8) if rollouts is None else rollouts)
        held_out = [write(tmp_path / "dev.jsonl", dev)] if dev else []
        return train.run([data], replace(settings(start, **how), out=tmp_path / out, dev=held_out))

    return one


def weights(folder: Path) -> dict[str, torch.Tensor]:
    return load_file(folder / "model.safetensors")


def assert_same_weights(one: Path, other: Path) -> None:
    theirs = weights(other)
    for name, tensor in weights(one).items():
        torch.testing.assert_close(tensor, theirs[name], atol=2e-6, rtol=1e-5)


def test_a_run_makes_a_model_folder_that_scores(run, start):
    made = run()
    config = load_reward_config(made.folder)
    assert config.beta == 0.5
    assert config.objective == "ce"
    assert config.base == config.reference.source == str(start)
    assert config.reference.weights_sha256 == weights_hash(start)
    assert (made.folder / "README.md").read_text().startswith("---\nlibrary_name: transformers\n")
    scores = ImplicitPRM.from_pretrained(made.folder).score("the sum of 3 and 4?", ["Step 1: yes.\nthe answer is 7"])
    assert any(scores[0].token_rewards)


def test_a_run_tells_what_it_used_measured_and_cost(run):
    made = run(dev=tiny.rollouts(3, seed=5))
    assert made.counts == {
        "prompts": 8, "groups": 8, "right responses": 16, "wrong responses": 16, "dev: prompts": 3, "dev: groups": 3,
        "dev: right responses": 6, "dev: wrong responses": 6,
    }  # fmt: skip
    by_name = {metric.metric: metric for metric in made.metrics}
    assert {
        f"train_{n}" for n in ("loss", "sign_accuracy", "reward_right", "reward_wrong", "margin", "kl_to_reference")
    } <= {*by_name}
    assert by_name["train_loss"].count == 16  # two steps of two groups of four
    assert by_name["dev_loss"].count == 12
    assert [entry["step"] for entry in made.log if "loss" in entry] == [2, 4]
    manifest = read_manifest(made.folder)
    assert manifest["status"] == "complete"
    # The reference reads each beginning once; a step of training reads again what it shares with another step.
    tokenizer = tiny.tokenizer(template=tiny.LLAMA3)
    used, held_out = (encode(tokenizer, rows) for rows in (tiny.rollouts(8), tiny.rollouts(3, seed=5)))
    # What is held out is read by both: by the policy too, at the one evaluation.
    read = n_read(tiny.language_model(), used)
    assert made.cost.scored_tokens == read + 2 * n_read(tiny.language_model(), held_out)
    assert read <= made.cost.trained_tokens < sum(len(item.ids) for item in used)
    assert made.cost.flops > 0


def test_a_template_that_asks_the_clock_is_kept_with_the_day_that_it_told(tmp_path):
    start = tiny.save(tmp_path / "start", template=tiny.DATED)
    data = write(tmp_path / "rollouts.jsonl", tiny.rollouts(2))
    chosen = settings(start, {"max_steps": 1}, template_date="2025-01-12")
    folder = train.run([data], replace(chosen, out=tmp_path / "out")).folder
    assert load_reward_config(folder).template_date == "2025-01-12"
    policy = ImplicitPRM.from_pretrained(folder).policy
    assert render_prompt(policy.tokenizer, "?").startswith("12 Jan 2025\n")
    with pytest.raises(RewardMismatchError, match="tells the day 2025-01-12, as it did in training, not 2024-07-26"):
        train.run(
            [data], replace(settings(folder, {"max_steps": 1}, template_date="2024-07-26"), out=tmp_path / "another")
        )


def test_settings_made_in_python_train_as_those_of_the_command_line_do(start, tmp_path):
    data, trainer = write(tmp_path / "rollouts.jsonl", tiny.rollouts(2)), {"use_cpu": True, "num_train_epochs": 2.0}
    made = [
        train.run([data], replace(how, out=tmp_path / name))
        for name, how in (
            ("python", TrainSettings(model=str(start), trainer=trainer)),
            ("command", load_settings(options={"model": str(start), "trainer": trainer})),
        )
    ]
    one, other = (read_manifest(run.folder) for run in made)
    assert one["settings"] == other["settings"]
    assert one["settings"]["trainer"]["learning_rate"] == made[0].log[-1]["learning_rate"] == 5e-7
    assert made[0].log == made[1].log


def test_loggers_write_into_the_run_folder(run):
    assert list(run(trainer={"report_to": "tensorboard"}).folder.glob("runs/*/events.out.tfevents.*"))


def test_nothing_is_printed_on_stdout(run, capsys):
    run()
    printed = capsys.readouterr()
    assert printed.out == ""
    assert "step 4/4  loss" in printed.err


def test_a_finished_run_is_not_run_again(run):
    first = run()
    before = (first.folder / "model.safetensors").stat().st_mtime_ns
    again = run()
    assert (first.folder / "model.safetensors").stat().st_mtime_ns == before
    assert (again.metrics, again.counts, again.log) == (first.metrics, dict(first.counts), first.log)


def test_another_model_of_the_same_name_is_another_run(run, start, tmp_path):
    own = tiny.save(tmp_path / "own", template=tiny.LLAMA3)
    run(model=str(own))
    tiny.save(own, seed=1, template=tiny.LLAMA3)
    with pytest.raises(RunFolderError, match="model_sha256"):
        run(model=str(own))


class _Interrupt(ConsoleCallback):
    """Stops the training at a step, as Ctrl-C does."""

    at = 0

    def on_step_end(self, args, state, control, **kwargs):  # type: ignore[no-untyped-def]  # of the parent
        super().on_step_end(args, state, control, **kwargs)
        if state.global_step == self.at:
            raise KeyboardInterrupt


@pytest.mark.parametrize(
    ("how", "sampling", "at"),
    [
        ({"objective": "ce"}, "random", 3), ({"objective": "kto"}, "group_by_length", 7),
        (LINEAR, "group_by_length", 5), ({"dtype": "bfloat16", "optim": "stable_adamw"}, "random", 5),
    ],
)  # fmt: skip
def test_a_run_that_was_interrupted_ends_with_the_same_weights(run, monkeypatch, how, sampling, at):
    how = dict(how)
    often = {
        "save_steps": 2, "num_train_epochs": 2.0, "optim": how.pop("optim", "adamw_torch"),
        "train_sampling_strategy": sampling, "logging_steps": 3,
    }  # fmt: skip
    monkeypatch.setattr(_Interrupt, "at", at)  # of 8 steps, 4 an epoch
    whole = run(out="whole", trainer=often, **how)
    with monkeypatch.context() as patch:
        patch.setattr("freeprm.training.running.ConsoleCallback", _Interrupt)
        with pytest.raises(KeyboardInterrupt):
            run(out="resumed", trainer=often, **how)
    resumed = run(out="resumed", trainer=often, **how)
    assert_same_weights(whole.folder, resumed.folder)
    assert not list(resumed.folder.glob("checkpoint-*"))
    assert resumed.cost.trained_tokens == whole.cost.trained_tokens
    assert [entry["step"] for entry in resumed.log] == [entry["step"] for entry in whole.log]
    for ours, theirs in zip(resumed.log, whole.log, strict=True):  # of three steps each, some before the interruption
        assert ours == pytest.approx(theirs, abs=1e-5, rel=1e-4)


def test_a_deterministic_run_repeats_itself_to_the_bit(run, monkeypatch):
    enabled: list[bool] = []

    def noted(*given: Any) -> GroupTrainer:
        enabled.append(torch.are_deterministic_algorithms_enabled())
        return fit(*given)

    monkeypatch.setattr("freeprm.stages.training.fit", noted)
    one, other = (run(out=out, objective="kto", deterministic=True) for out in ("one", "other"))
    for name in ("model.safetensors", "metrics.json"):
        assert (one.folder / name).read_bytes() == (other.folder / name).read_bytes()
    assert one.log == other.log
    assert enabled == [True, True]
    assert not torch.are_deterministic_algorithms_enabled()
    with pytest.raises(RunFolderError, match="deterministic is True, not False"):
        run(out="one", objective="kto")
    with pytest.raises(ConfigError, match=r"trainer\.full_determinism: is decided by freeprm; use --deterministic"):
        run(out="third", trainer={"full_determinism": True})


@pytest.mark.parametrize("objective", ["dpo", "nca", "kto", "ipvrm", "bco", "ipo", "simpo"])
def test_every_objective_trains(run, objective):
    made = run(objective=objective, trainer={"max_steps": 2})
    assert load_reward_config(made.folder).objective == objective
    assert made.log[-1]["loss"] == pytest.approx(made.log[-1]["loss"])


def test_an_objective_of_somebody_elses_that_does_not_say_what_it_needs_is_refused(run):
    with pytest.raises(PluginError, match="Silent: does not say needs_steps; expected needs_pairs, needs_kl"):
        run(objective=f"{__name__}:Silent")
    with pytest.raises(PluginError, match="Wordy: says needs_means; expected a method `totals` besides"):
        run(objective=f"{__name__}:Wordy")


class Silent:
    """An objective from before there were steps."""

    needs_pairs = False
    needs_kl = False
    needs_means = False


class Wordy(Silent):
    """One that does not say of what it needs the means."""

    needs_means = True
    needs_steps = False
    needs_step_labels = False


def test_an_objective_takes_its_options(run):
    made = run(objective="kto", objective_options={"desirable_weight": 2.0}, trainer={"max_steps": 1})
    assert load_reward_config(made.folder).objective_options == {"desirable_weight": 2.0}
    with pytest.raises(ConfigError, match="objective_options of kto: "):
        run(out="other", objective="kto", objective_options={"weight": 2.0})


def test_adapters_are_saved_alone_and_score(run, start):
    made = run(lora=4)
    assert (made.folder / "adapter_model.safetensors").exists()
    assert not (made.folder / "model.safetensors").exists()
    prm = ImplicitPRM.from_pretrained(made.folder)
    assert any(prm.score("the sum of 3 and 4?", ["Step 1: yes.\nthe answer is 7"])[0].token_rewards)
    assert made.log[-1]["loss"] < 0.69


def test_adapters_train_with_gradient_checkpointing(run):
    made = run(lora=4, trainer={"activation_checkpointing": True})
    assert made.log[-1]["loss"] < 0.69


@pytest.mark.parametrize("asked_by", ["argument", "accelerate launch"])
def test_under_autocast_the_policy_starts_from_rewards_of_zero(run, monkeypatch, asked_by):
    # The reference is computed in the same precision; in float32 its rewards would start some hundredths from zero.
    if asked_by == "accelerate launch":  # what its --mixed_precision bf16 sets
        monkeypatch.setenv("ACCELERATE_MIXED_PRECISION", "bf16")
    given = {"bf16": True} if asked_by == "argument" else {}
    made = run(trainer={**given, "max_steps": 1, "logging_steps": 1})
    assert made.log[0]["reward_right"] == made.log[0]["reward_wrong"] == 0.0
    assert read_manifest(made.folder)["settings"]["mixed_precision"] == "bf16"


@pytest.fixture(scope="session")
def small_weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model with weights of sd 0.02, all of them bfloat16 numbers."""
    folder = tiny.save(tmp_path_factory.mktemp("small"), template=tiny.LLAMA3)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = LlamaForCausalLM(LlamaConfig(**tiny.sizes(initializer_range=0.02)))
    model.to(torch.bfloat16).float().save_pretrained(folder)
    return folder


SmallUpdate = Callable[..., torch.Tensor]


@pytest.fixture(scope="session")
def small_update(small_weights: Path, tmp_path_factory: pytest.TempPathFactory) -> SmallUpdate:
    """What 8 steps of 5e-7 change, as one vector of float64; adapters start alike, from one seed."""
    folder = tmp_path_factory.mktemp("updates")
    data = write(folder / "rollouts.jsonl", tiny.rollouts(8))
    steps = {
        "learning_rate": 5e-7, "lr_scheduler_type": "constant", "per_device_train_batch_size": 1,
        "save_strategy": "no", "report_to": "none",
    }  # fmt: skip

    @cache
    def update(
        *, dtype: str = "float32", lora: int = 0, bf16: bool = False, optim: str = "adamw_torch"
    ) -> torch.Tensor:
        trainer = {**steps, "bf16": bf16, "optim": optim}
        how = settings(small_weights, trainer=trainer, dtype=dtype, lora=lora)
        made = train.run(
            [data], replace(how, out=Path(tempfile.mkdtemp(dir=folder)), cache=folder / "reference")
        ).folder
        after = load_file(made / ("adapter_model.safetensors" if lora else "model.safetensors"))
        assert {weight.dtype for weight in after.values()} == {torch.float32}
        before = weights(small_weights)
        moved = [
            (weight.double() - before.get(name, torch.zeros(1)).double()).flatten()  # of adapters B starts at zero
            for name, weight in sorted(after.items())
            if "lora_A" not in name
        ]
        return torch.cat(moved)

    return update


@pytest.mark.parametrize(
    ("way", "like"),
    [
        ({"bf16": True}, {}), ({"dtype": "bfloat16", "optim": "stable_adamw"}, {}),
        ({"dtype": "bfloat16", "lora": 4}, {"lora": 4}),
    ],
    ids=["autocast", "kahan", "adapters"],
)  # fmt: skip
def test_every_way_to_train_in_16_bits_makes_the_update_of_float32(small_update, way, like):
    made, wanted = small_update(**way), small_update(**like)
    assert made.norm() / wanted.norm() == pytest.approx(1, abs=0.03)
    # A gradient below bfloat16's noise may have the other sign, and Adam's step with it: 1 % of them at 0.98.
    assert made @ wanted / (made.norm() * wanted.norm()) > 0.98


def test_16_bit_weights_under_a_plain_optimizer_are_refused_before_anything_is_read(run):
    with pytest.raises(ConfigError, match="rounded away from bfloat16 weights"):
        run([], dtype="bfloat16")


@pytest.mark.parametrize("how", [{"objective": "kto"}, LINEAR, {"lora": 4}], ids=["kto", "linear", "lora"])
def test_a_plan_tells_what_training_then_does_and_makes_nothing(start, tmp_path, how, monkeypatch):
    data = write(tmp_path / "rollouts.jsonl", tiny.rollouts(3))
    chosen = settings(start, trainer={"logging_steps": 1}, **how)
    with monkeypatch.context() as patch:
        patch.chdir(tmp_path)
        planned = plan([data], replace(chosen, dev=[data]))
        assert sorted(tmp_path.iterdir()) == [data]
    made = train.run([data], replace(chosen, out=tmp_path / "out", dev=[data]))
    assert planned.counts == made.counts
    assert planned.forecast.n_steps == max(entry["step"] for entry in made.log) == 2
    manifest = read_manifest(made.folder)
    assert manifest["defaults"] == planned.sources
    batches = manifest["choices"]["batches"]
    assert manifest["settings"]["trainer"] | batches == planned.settings.trainer | {"processes": 1}
    assert manifest["settings"]["prompts_per_step"] == batches["per_device_train_batch_size"] == 2
    assert planned.sources["trainer.adam_beta2"].startswith("Yuan et al. 2024, arXiv:2412.01981")
    assert "trainer.learning_rate" not in planned.sources
    saved = load_file(made.folder / ("adapter_model.safetensors" if "lora" in how else "model.safetensors"))
    assert planned.forecast.weights.trained == sum(weight.numel() for weight in saved.values())


def test_a_plan_counts_the_bytes_of_weights_gradients_and_optimizer(start, tmp_path):
    data = write(tmp_path / "rollouts.jsonl", tiny.rollouts(2))

    def bytes_each(trainer: dict[str, Any], **how: Any) -> float:
        weights = plan([data], settings(start, trainer=trainer, **how)).forecast.weights
        return weights.n_bytes / weights.trained

    assert bytes_each({}) == 4 + 4 + 2 * 4
    assert bytes_each({"bf16": True}) == 4 + 4 + 2 * 4 + 2  # and the copies that are multiplied
    assert bytes_each({"optim": "stable_adamw"}, dtype="bfloat16") == 2 + 2 + 2 * 2 + 2  # and what rounding takes
    adapters = plan([data], settings(start, lora=4, dtype="bfloat16")).forecast.weights
    assert adapters.n_bytes == 16 * adapters.trained + 2 * adapters.frozen
    assert plan([data], settings(start, trainer={"optim": "sgd"})).forecast.weights.n_bytes is None


def test_a_plan_says_what_a_reward_model_that_is_trained_on_decides(run, start, tmp_path):
    first = run().folder
    data = write(tmp_path / "rollouts.jsonl", tiny.rollouts(2))
    with pytest.warns(UserWarning, match="is trained on with its own reference"):
        planned = plan([data], load_settings(options={"model": str(first), "trainer": QUICK}))
    assert planned.settings.beta == 0.5
    assert planned.sources["beta"] == planned.sources["reference"] == f"reward.json of {first}"


def test_a_learning_rate_that_is_too_small_for_adapters_is_told(run):
    with pytest.warns(UserWarning, match=r"learning_rate 5e-07 is 10 times below what is published for adapters"):
        run(lora=4, trainer={"learning_rate": 5e-7, "max_steps": 1})


def test_training_goes_without_reference(run):
    made = run(with_reference=False, trainer={"max_steps": 2})
    assert not load_reward_config(made.folder).trained_with_reference
    assert made.cost.scored_tokens == 0
    assert "kl_to_reference" not in made.log[-1]


def test_a_run_of_a_single_step_moves_the_weights(run, start):
    made = run(trainer={"max_steps": 1})
    moved = weights(made.folder)
    assert any(not torch.equal(tensor, moved[name]) for name, tensor in weights(start).items())


def test_a_second_run_takes_the_references_log_probabilities_from_the_cache(start, tmp_path):
    data = write(tmp_path / "rollouts.jsonl", tiny.rollouts(4))
    costs = [
        train.run(
            data, replace(settings(start, objective=objective), out=tmp_path / objective, cache=tmp_path / "ref")
        ).cost
        for objective in ("ce", "dpo")
    ]
    assert costs[0].scored_tokens > 0
    assert costs[1].scored_tokens == 0


def test_a_reward_that_cannot_grow_is_warned_of(run):
    with pytest.warns(UserWarning, match=r"beta 0\.0001 lets an average right response earn 0\.0\d+ at most"):
        run(beta=1e-4, trainer={"max_steps": 1})


@pytest.mark.parametrize("label", [True, False])
def test_data_of_one_class_is_refused_before_a_model_is_loaded(run, label):
    with pytest.raises(DataError, match="expected at least one right and one wrong"):
        run(tiny.rollouts(2, labels=[label] * 2))


def test_groups_without_both_classes_are_counted_under_a_pairwise_objective(run):
    made = run([*tiny.rollouts(3)[:8], *tiny.rollouts(3, labels=[True, True])[4:]], objective="dpo")
    assert made.counts["skipped: groups without a wrong response"] == 1


def test_long_responses_are_counted(run):
    rollouts = tiny.rollouts(4)
    long = Rollout(problem_id="p0", sample_idx=9, prompt=rollouts[0].prompt, response="~" * 500, correct=True)
    assert run([*rollouts, long]).counts["excluded: longer than the context"] == 1


@pytest.mark.slow
def test_real_solutions_train_a_real_model(stories, real_data, tmp_path):
    rows = (real_data / "gsm8k" / "rollouts_example_model_solutions.jsonl").read_text().splitlines(keepends=True)
    data = tmp_path / "rollouts.jsonl"
    data.write_text("".join(rows[:80]))
    made = train.run([data], replace(settings(stories, trainer={"learning_rate": 1e-4}), out=tmp_path / "out"))
    assert made.counts["excluded: longer than the context"] > 0
    assert made.counts["right responses"] + made.counts["wrong responses"] > 60
    scores = ImplicitPRM.from_pretrained(made.folder).score("What is 2 + 2?", ["2 + 2 = 4\nA: 4"])
    assert len(scores[0].step_rewards) == 2
