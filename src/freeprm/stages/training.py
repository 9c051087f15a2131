"""Train a reward model, implicit or one of the baselines: graded rollouts in, a model folder with reward.json out."""

from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from transformers import TrainingArguments

from freeprm.core.curation import Operation, recorded
from freeprm.core.flops import ModelShape
from freeprm.io.runs import RunFolder
from freeprm.models.determinism import algorithms
from freeprm.models.loading import load_config, weights_identity, without_bars
from freeprm.models.reward_config import LOG_RATIO
from freeprm.settings import TrainSettings
from freeprm.stages.base import RUNS, Inputs, RunResult, paths_of, stage
from freeprm.training.checkpoints import drop_checkpoints
from freeprm.training.forecast import DataSize, Forecast, forecast
from freeprm.training.groups import recipe_of, source_paths
from freeprm.training.model_card import describe
from freeprm.training.policy import check_memory
from freeprm.training.reference import reference_folder
from freeprm.training.running import (
    RolloutFiles,
    TrainingData,
    fit,
    read_data,
    training_cost,
    warn_of,
)
from freeprm.training.settings import prompts_per_step, training_arguments
from freeprm.training.setup import TrainingSetup, set_up_training
from freeprm.training.trainer import GroupTrainer
from freeprm.types import Cost, Metric


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainingPlan:
    """What training would do."""

    settings: TrainSettings
    """With nothing left open."""
    sources: Mapping[str, str]
    """Name of a setting that was not given -> where its value comes from; see `settings.filled`."""
    counts: Mapping[str, Any]
    """Responses that would be used, and those skipped by reason."""
    operations: list[Operation]
    """What would be done to the data, in order."""
    forecast: Forecast


@stage(TrainSettings)
def train(inputs: Sequence[Path], settings: TrainSettings, out: Path) -> RunResult:
    """Train a model so that its reward fits the labels: the policy of a log-ratio, or a model of values.

    The inputs are graded rollouts, with step labels where the objective needs them; `out` becomes a model folder.
    Whatever the settings leave open is what is published for the objective; the same call continues a run that was
    interrupted.
    """
    setup = set_up_training(settings)
    files = _files(inputs, settings)
    arguments = training_arguments(setup.settings, out, evaluates=bool(files.dev))
    folder = RunFolder(
        out, stage="train", settings=_identity(setup, arguments),
        inputs=[*inputs, *source_paths(recipe_of(setup.settings)), *files.dev],
    )  # fmt: skip
    is_main = arguments.process_index == 0
    with algorithms(deterministic=settings.deterministic), folder if is_main else nullcontext():
        if folder.complete:
            return RunResult.load(out)
        if is_main:
            folder.choice("batches", lambda: _batches(arguments))
        check_memory(setup.settings, setup.start, arguments)
        cache = out / "reference" if settings.cache is None else Path(settings.cache)
        data = read_data(setup, arguments, files, cache=cache)
        warn_of(setup, arguments, data)
        with without_bars():
            trainer = fit(setup, arguments, data)
        # In the order in which a checkpoint keeps an entry, so that an interruption does not show.
        log = [dict(sorted(row.items())) for row in trainer.state.log_history if {"loss", "eval_loss"} & row.keys()]
        metrics, cost = _metrics(log, setup.settings), _cost(trainer, setup, data)
        if is_main:
            describe(out, setup, data.preparer, counts=data.counts, log=log)
            folder.write_metrics(metrics)
            cost = folder.finish(cost=cost, counts=recorded(data.counts, data.operations), defaults=setup.sources)
            if "save_total_limit" not in settings.trainer:
                drop_checkpoints(out)
        return RunResult(folder=out, metrics=metrics, counts=data.counts, operations=data.operations, cost=cost)


def plan(inputs: Inputs, settings: TrainSettings) -> TrainingPlan:
    """What `train` would do, up to what it needs weights for: none are loaded, and nothing but rows in memory written.

    Raises:
        FreePRMError: as for `train`.
    """
    setup = set_up_training(settings)
    files = _files(paths_of(inputs, RUNS / "inputs"), settings)
    arguments = training_arguments(setup.settings, Path(), evaluates=bool(files.dev))
    data = read_data(setup, arguments, files, cache=None)
    warn_of(setup, arguments, data)
    return TrainingPlan(
        settings=setup.settings, sources=setup.sources, counts=data.counts, operations=data.operations,
        forecast=forecast(setup, arguments, DataSize.of(data.examples, arguments)),
    )  # fmt: skip


def _files(inputs: Sequence[Path], settings: TrainSettings) -> RolloutFiles:
    dev = [Path(file) for file in settings.dev]
    return RolloutFiles(inputs=inputs, dev=dev, columns=settings.columns, on_bad=settings.on_bad)


def _identity(setup: TrainingSetup, arguments: TrainingArguments) -> dict[str, Any]:
    """Everything that decides the result, besides the data; mixed precision may come of `accelerate launch` alone.

    The prompts of a step do, and not how many of them each process reads at a time.
    """
    settings, start = setup.settings, setup.start
    trainer = {name: value for name, value in settings.trainer.items() if name not in _batches(arguments)}
    mixed_precision = arguments.mixed_precision
    reference = reference_folder(settings, start) if settings.parameterisation == LOG_RATIO else None
    return {
        **settings.deciding(), "trainer": trainer, "prompts_per_step": prompts_per_step(arguments),
        **weights_identity(start, role="model"), **weights_identity(reference, role="reference"),
        **({} if mixed_precision == "no" else {"mixed_precision": mixed_precision}),
    }  # fmt: skip


def _batches(arguments: TrainingArguments) -> dict[str, int]:
    """How the prompts of a step are shared out, which may change from session to session."""
    return {
        "per_device_train_batch_size": arguments.per_device_train_batch_size,
        "gradient_accumulation_steps": arguments.gradient_accumulation_steps, "processes": arguments.world_size,
    }  # fmt: skip


_COUNTED_IN = {"step_accuracy": "labelled_steps"}


def _metrics(log: Sequence[dict[str, float]], settings: TrainSettings) -> list[Metric]:
    """The last logged of each kind: over the last steps of training, and over the held-out responses."""
    names = ("loss", "sign_accuracy", "step_accuracy", "reward_right", "reward_wrong", "margin", "kl_to_reference")
    found = []
    for kind, prefix in (("train", ""), ("dev", "eval_")):
        last = next((entry for entry in reversed(log) if prefix + "loss" in entry), {})
        found += [
            Metric(
                metric=f"{kind}_{name}", value=last[prefix + name], seed=settings.seed, scorer=settings.objective,
                count=int(last[prefix + _COUNTED_IN.get(name, "responses")]),
            )
            for name in names
            if prefix + name in last
        ]  # fmt: skip
    return found


def _cost(trainer: GroupTrainer, setup: TrainingSetup, data: TrainingData) -> Cost:
    config = load_config(setup.start, trust_remote_code=setup.settings.trust_remote_code).get_text_config()
    reward = setup.reward
    return training_cost(
        trainer, ModelShape.of(config, n_outputs=None if reward.valuation is None else 0), data.examples,
        held_out=data.held_out, reference_tokens=data.preparer.scored_tokens if reward.with_reference else None,
    )  # fmt: skip
