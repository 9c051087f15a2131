"""`freeprm rl`: problems and a policy in; the trained policy, its reward model and evaluations on the way out.

out/                    the policy, as transformers loads it
out/prm/                the reward model as it ended, for `freeprm score --prm`
out/evaluations.jsonl   the outcomes of each problem at each evaluation, before training (step 0) and after it
out/log.json            what TRL logged
out/metrics.json        accuracy before and after, with intervals over problems
"""

import logging
import os
from collections.abc import Mapping, Sequence
from contextlib import ExitStack, nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from transformers import (
    PrinterCallback,
    ProgressCallback,
    TrainerCallback,
    TrainerControl,
    TrainerState,
    TrainingArguments,
    set_seed,
)
from trl.trainer.grpo_config import GRPOConfig

from datasets import Dataset
from freeprm.core.flops import ModelShape, charge, forward_charges, generation_charges, training_flops
from freeprm.core.intervals import bootstrap, paired_difference, problem_text
from freeprm.core.ledger import POLICY, REFERENCE, TRAINING
from freeprm.datasets._reading import problems_hash
from freeprm.errors import ConfigError, DataError
from freeprm.io.progress import Advance, bar, tell
from freeprm.io.rows import Row, write_json
from freeprm.io.runs import RunFolder
from freeprm.models.loading import (
    Backbone,
    LoadOptions,
    default_device,
    device_name,
    load_backbone,
    load_config,
    portable,
    resolve,
    template_hash,
    weights_hash,
    weights_identity,
    without_bars,
)
from freeprm.models.prompts import told_date
from freeprm.models.reward_config import Reference, RewardConfig
from freeprm.objectives.base import objective_named
from freeprm.rl.online import STATE, OnlinePRM
from freeprm.rl.prime import Credit, PRIMETrainer
from freeprm.rl.rollouts import Drawer, Labels, dataset_rows
from freeprm.scorers.implicit import ImplicitPRM
from freeprm.settings import RLSettings, TrainSettings, checked_arguments
from freeprm.stages.base import RunResult, choose_problems, problems_of, stage
from freeprm.training.checkpoints import drop_checkpoints, last_checkpoint, naming_a_full_disk, step_of
from freeprm.training.policy import without_noise
from freeprm.training.settings import filled, multiplies_bfloat16
from freeprm.types import Cost, Metric, Problem

EVALUATIONS = "evaluations"
PRM = "prm"
_AT_ONCE = 64  # responses of a CPU's forward pass in training


@stage(RLSettings, read=problems_of)
def rl(problems: Sequence[str | Problem], settings: RLSettings, out: Path) -> RunResult:
    """Train a policy with outcomes and an online implicit process reward model; the same call resumes.

    Raises:
        ConfigError: settings that do not go together, or an objective that needs more than outcomes.
        DataError: fewer problems than are asked for, or none without an answer.
    """
    name, selected = choose_problems(problems, settings)
    held_out = _held_out(problems, settings)
    texts = {problem_text(problem.prompt) for problem in held_out}
    train = [problem for problem in selected if problem_text(problem.prompt) not in texts]
    _check(train, held_out)
    arguments = grpo_arguments(settings, out, n_train=len(train))
    source = resolve(settings.model)
    identity = {
        "problems": name, "problems_sha256": problems_hash(train), "held_out_sha256": problems_hash(held_out),
        **settings.deciding(), **weights_identity(source, role="model"),
        **({} if settings.prm is None else weights_identity(resolve(settings.prm), role="prm")),
    }  # fmt: skip
    is_main = arguments.process_index == 0
    folder = RunFolder(out, stage="rl", settings=identity)
    with folder if is_main else nullcontext():
        if folder.complete:
            return RunResult.load(out)
        with without_bars():
            trainer = _fit(settings, arguments, train, held_out, folder if is_main else None)
            trainer.save_model(str(out))
            if trainer.online is not None and is_main:
                trainer.online.save(out / PRM)
        log = trainer.state.log_history
        if is_main:
            write_json(out / "log.json", list(log))
            rows = folder.rows(EVALUATIONS)
            folder.write_metrics(_metrics(rows, settings))
            unjudged = sum(float(entry.get("unjudged", 0.0)) for entry in log) * settings.prompts * settings.n
            counts = {
                "responses drawn": settings.steps * settings.prompts * settings.n,
                "responses that could not be judged": round(unjudged),
                "problems": len(train), "problems held out": len(held_out),
                "problems left out of training, as they are evaluated on": len(selected) - len(train),
            }  # fmt: skip
            models = {PRM: str(out / PRM)} if trainer.online is not None else {}
            folder.finish(cost=_cost(trainer, settings, log), counts=counts, models=models)
            if "save_total_limit" not in settings.trainer:
                drop_checkpoints(out)
        trainer.accelerator.wait_for_everyone()  # until there is a result to be read
    return RunResult.load(out)


def _held_out(problems: Sequence[str | Problem], settings: RLSettings) -> list[Problem]:
    if not settings.eval_problems:
        return []
    _, chosen = choose_problems(
        problems, replace(settings, split=settings.eval_split, n_problems=settings.eval_problems)
    )
    return chosen


def _check(train: Sequence[Problem], held_out: Sequence[Problem]) -> None:
    if not train:
        raise DataError(
            f"there is nothing to train on: all problems are among the {len(held_out)} that are evaluated on; give "
            "more, or fewer --eval-problems"
        )
    for problem in (*train, *held_out):
        if problem.answer is None:
            raise DataError(f"problem {problem.problem_id!r}: has no answer, so its responses cannot be labelled")


def grpo_arguments(settings: RLSettings, out: Path, *, n_train: int) -> GRPOConfig:
    """TRL's arguments; a step takes `prompts` groups of `n` responses, over all processes.

    Raises:
        ConfigError: fields that TRL refuses, or that are ours to decide.
    """
    if settings.prompts > n_train:
        raise ConfigError(f"prompts: is {settings.prompts} a step, but there are {n_train} problems to train on")
    trainer = checked_arguments(settings.trainer, GRPOConfig, _DECIDED)
    on_cpu = default_device(None).type == "cpu"
    n_processes = int(os.environ.get("WORLD_SIZE", "1"))
    own, left = divmod(settings.prompts * settings.n, n_processes)
    if left:
        raise ConfigError(
            f"prompts: is {settings.prompts}, times n {settings.n} responses a step, which {n_processes} processes "
            "cannot share evenly"
        )
    size = trainer.get("per_device_train_batch_size") or _divisor(own, _AT_ONCE if on_cpu else settings.n)
    given: dict[str, Any] = {
        "use_cpu": on_cpu, "per_device_train_batch_size": size,
        "per_device_eval_batch_size": settings.eval_samples * 16,
        "loss_type": "bnpo", "beta": 0.0, "lr_scheduler_type": "constant", "logging_steps": 1,
        "save_total_limit": 1, "report_to": "none", "disable_tqdm": True, "dataloader_pin_memory": False,
        "bf16": not on_cpu and multiplies_bfloat16(), "gradient_checkpointing": not on_cpu, **trainer,
    }  # fmt: skip
    evaluates = settings.eval_problems > 0
    try:
        return GRPOConfig(
            output_dir=str(out), seed=settings.seed, max_steps=settings.steps, learning_rate=settings.learning_rate,
            num_generations=settings.n, num_generations_eval=settings.eval_samples, temperature=settings.temperature,
            top_p=settings.top_p,
            max_completion_length=settings.max_new_tokens, scale_rewards="none",
            eval_strategy="steps" if evaluates else "no", eval_steps=settings.eval_every,
            save_strategy="steps",
            save_steps=settings.save_every, remove_unused_columns=False,
            gradient_accumulation_steps=own // size, **given,
        )  # fmt: skip
    except (ValueError, TypeError) as error:
        raise ConfigError(f"trainer: {error}") from error


_DECIDED = {
    "output_dir": "use --out", "seed": "use --seed", "max_steps": "use --steps", "learning_rate": "use --learning-rate",
    "num_generations": "use --n", "num_generations_eval": "use --eval-samples", "temperature": "use --temperature",
    "top_p": "use --top-p", "max_completion_length": "use --max-new-tokens", "eval_steps": "use --eval-every",
    "eval_strategy": "use --eval-every", "eval_on_start": "use --eval-problems", "save_steps": "use --save-every",
    "save_strategy": "use --save-every", "scale_rewards": "advantages are whitened over a step",
    "gradient_accumulation_steps": "a step takes --prompts times --n; use trainer.per_device_train_batch_size",
    "remove_unused_columns": "labels need them", "resume_from_checkpoint": "the same command resumes",
}  # fmt: skip


def _divisor(number: int, most: int) -> int:
    """The largest divisor up to a bound."""
    return next(size for size in range(min(number, most), 0, -1) if number % size == 0)


def _fit(
    settings: RLSettings, arguments: GRPOConfig, train: Sequence[Problem], held_out: Sequence[Problem],
    run: RunFolder | None,
) -> PRIMETrainer:  # fmt: skip
    """Train, from the last checkpoint where there is one."""
    set_seed(settings.seed)
    out = Path(str(arguments.output_dir))
    options = LoadOptions(device=str(arguments.device), dtype="float32")
    backbone = load_backbone(settings.model, options)
    without_noise(backbone.model)
    checkpoint = last_checkpoint(out)
    arguments.eval_on_start = bool(held_out) and checkpoint is None
    conversational = backbone.tokenizer.chat_template is not None
    rows = {
        part: Dataset.from_list(dataset_rows(problems, conversational=conversational)) if problems else None
        for part, problems in (("train", train), ("held out", held_out))
    }
    elsewhere = arguments.use_vllm or getattr(arguments, "use_transformers_continuous_batching", False)
    # TRL says that rollout_func may change, and prints each answer that cannot be judged; we pin it, and count them.
    os.environ.setdefault("TRL_EXPERIMENTAL_SILENCE", "1")
    logging.getLogger("trl").setLevel(logging.ERROR)
    with _Console(run) as console:
        trainer = PRIMETrainer(
            backbone.model, arguments, outcomes=Labels(settings),
            credit=Credit(
                outcome_weight=settings.outcome_weight, process_weight=settings.process_weight, gamma=settings.gamma,
                candidates=settings.candidates, candidate_weight=settings.candidate_weight,
                accuracies=settings.accuracies,
            ),
            online=online_prm(settings, backbone, options) if settings.process_weight else None,
            train_dataset=rows["train"], eval_dataset=rows["held out"], tokenizer=backbone.tokenizer,
            draw=None if elsewhere else Drawer(backbone, settings.params()),
            peft_config=_adapters(settings), evaluated=console.evaluated, callbacks=[console],
        )  # fmt: skip
        for printing in (ProgressCallback, PrinterCallback):  # they print on stdout
            trainer.remove_callback(printing)
        if trainer.online is not None:
            trainer.online.share = lambda gradient: trainer.accelerator.reduce(gradient, reduction="mean")
            if checkpoint:
                trainer.online.resume(torch.load(Path(checkpoint) / STATE, map_location="cpu", weights_only=True))
        if run is not None:
            step = step_of(Path(checkpoint)) if checkpoint else -1
            run.rewrite(EVALUATIONS, [row for row in run.rows(EVALUATIONS) if row["step"] <= step])
        with naming_a_full_disk(out):
            trainer.train(resume_from_checkpoint=checkpoint)
    return trainer


def online_prm(settings: RLSettings, policy: Backbone, options: LoadOptions) -> OnlinePRM:
    """The reward model of the settings: one that was trained before, or one whose rewards are still 0.

    Raises:
        ConfigError: another beta than the model's, or an objective that needs more than outcomes.
        ModelError: no reward model, or one of values.
    """
    objective = objective_named(settings.objective, settings.objective_options)
    if settings.prm is not None:
        prm = ImplicitPRM.from_pretrained(
            settings.prm, reference=settings.reference, beta=settings.beta, device=options.device, dtype="float32"
        )
    else:
        beta = filled(
            TrainSettings(model=settings.model, objective=settings.objective, beta=settings.beta)
        ).settings.beta
        assert beta is not None
        source = settings.reference or settings.model
        reference = load_backbone(source, options)
        config = RewardConfig(
            beta=beta, base=portable(settings.model),
            reference=Reference(source=portable(source), weights_sha256=weights_hash(reference.folder)),
            objective=settings.objective, objective_options=dict(settings.objective_options),
            template_sha256=template_hash(policy.tokenizer), template_date=told_date(policy.tokenizer),
        )  # fmt: skip
        prm = ImplicitPRM(config, policy=load_backbone(settings.model, options), reference=reference)
    return OnlinePRM(prm, objective, name=settings.objective, learning_rate=settings.prm_learning_rate)


def _adapters(settings: RLSettings) -> Any:
    if not settings.lora:
        return None
    from peft import LoraConfig

    return LoraConfig(r=settings.lora, lora_alpha=2 * settings.lora, target_modules="all-linear", task_type="CAUSAL_LM")


class _Console(TrainerCallback, ExitStack):
    """Shows a bar and a line an evaluation on stderr, and keeps evaluations in the run folder."""

    def __init__(self, run: RunFolder | None):
        super().__init__()
        self._run = run
        self._advance: Advance | None = None

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Open the bar, from where an interrupted run stopped."""
        if self._run is not None:
            self._advance = self.enter_context(bar("rl", state.max_steps, unit="steps", done=state.global_step))

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        """Evaluate the last step, whichever it is."""
        if state.global_step >= state.max_steps and args.eval_strategy != "no":
            control.should_evaluate = True

    def on_log(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl,
        logs: Mapping[str, Any] | None = None, **kwargs: Any,
    ) -> None:  # fmt: skip
        """Count the step, with its share of right responses."""
        if self._advance and logs and "reward" in logs:
            sign = f", reward model {float(logs['prm/sign_accuracy']):.0%}" if "prm/sign_accuracy" in logs else ""
            self._advance(1, note=f"right {float(logs['reward']):.1%}{sign}")

    def evaluated(self, step: int, outcomes: Mapping[str, list[float]]) -> None:
        """Keep the outcomes of each problem, and say their mean."""
        if self._run is None:
            return
        rows = [
            {"step": step, "problem_id": problem, "n": len(known), "right": sum(known)}
            for problem, own in sorted(outcomes.items())
            if (known := [outcome for outcome in own if outcome == outcome])
        ]
        self._run.append(EVALUATIONS, rows)
        value, low, high = bootstrap(_shares(rows, step))
        tell(f"rl: after {step} steps {value:.1%} [{low:.1%}, {high:.1%}] right on {len(rows)} held-out problems")


def _shares(rows: Sequence[Row], step: int) -> list[float]:
    """Share of right responses to each problem at a step."""
    return [row["right"] / row["n"] for row in rows if row["step"] == step]


def _metrics(rows: Sequence[Row], settings: RLSettings) -> list[Metric]:
    """Accuracy at each evaluation, and what training gained, with intervals over problems."""
    steps = sorted({row["step"] for row in rows})
    found = []
    for step in steps:
        shares = _shares(rows, step)
        value, low, high = bootstrap(shares)
        found.append(
            Metric(
                metric="accuracy", value=value, low=low, high=high, count=len(shares), n=settings.eval_samples,
                seed=settings.seed, group=f"step={step}",
            )
        )  # fmt: skip
    if len(steps) > 1:
        first, last = (_shares(rows, step) for step in (steps[0], steps[-1]))
        value, low, high = paired_difference(last, first)
        found.append(
            Metric(
                metric="accuracy_gain", value=value, low=low, high=high, count=len(last), n=settings.eval_samples,
                seed=settings.seed,
            )
        )  # fmt: skip
    return found


def _cost(trainer: PRIMETrainer, settings: RLSettings, log: Sequence[Mapping[str, Any]]) -> Cost:
    """Tokens of training, from TRL's log: drawing, the policy's passes, and those of the reward model."""
    shape = ModelShape.of(load_config(resolve(settings.model)).get_text_config())
    steps = [entry for entry in log if "completions/mean_length" in entry and "eval_reward" not in entry]
    a_step = settings.prompts * settings.n
    generated = round(sum(float(entry["completions/mean_length"]) for entry in steps) * a_step)
    read = int(trainer.state.num_input_tokens_seen)  # prompts again for each response
    n_samples = max(1, len(steps) * a_step)
    mean = read / n_samples
    prompts = round((read - generated) / settings.n)
    learned = read if trainer.online is not None and settings.prm_learning_rate else 0
    policy = charge(TRAINING, read, training_flops(shape, read, mean, adapters=settings.lora > 0))
    charges = [
        *generation_charges(
            shape, n_prompts=len(steps) * settings.prompts, prompt_tokens=prompts, n_samples=n_samples,
            generated_tokens=generated,
        ),
        policy + charge(TRAINING, learned, training_flops(shape, learned, mean)),
    ]  # fmt: skip
    scored = 0
    if trainer.online is not None:
        charges += forward_charges(shape, {POLICY: read, REFERENCE: read}, mean)
        scored = 2 * read
    return Cost(
        prompt_tokens=prompts, generated_tokens=generated, trained_tokens=read + learned, scored_tokens=scored,
        charges=tuple(charges), devices=(device_name(None),) * trainer.args.world_size,
    )  # fmt: skip
