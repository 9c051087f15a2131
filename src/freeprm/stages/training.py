"""Train a reward model, implicit or one of the baselines: graded rollouts in, a model folder with reward.json out."""

import json
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from freeprm.core.curation import Operation, recalled, recorded
from freeprm.core.flops import ModelShape
from freeprm.io.manifest import read_cost
from freeprm.io.rows import OnBad
from freeprm.io.runs import RunFolder, read_manifest, read_metrics
from freeprm.models.loading import load_config, weights_hash
from freeprm.models.reward_config import LOG_RATIO
from freeprm.training.groups import recipe_of, source_paths
from freeprm.training.model_card import describe
from freeprm.training.policy import Weights, count_weights
from freeprm.training.reference import reference_folder
from freeprm.training.running import Data, RolloutFiles, fit, read_data, training_cost, warn_of
from freeprm.training.settings import TrainSettings, n_steps, training_arguments
from freeprm.training.setup import TrainingSetup, set_up_training
from freeprm.training.trainer import GroupTrainer
from freeprm.types import Cost, Metric


@dataclass(frozen=True, slots=True, kw_only=True)
class Trained:
    """What training made."""

    folder: Path
    """A model folder with reward.json."""
    metrics: list[Metric]
    counts: Mapping[str, Any]
    """Responses used, and those skipped by reason."""
    operations: list[Operation]
    """What was done to the data, in order."""
    log: list[dict[str, float]]
    """What was logged, step by step."""
    cost: Cost


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """What training would do."""

    settings: TrainSettings
    """With nothing left open."""
    sources: Mapping[str, str]
    """Name of a setting that was not given -> where its value comes from; see `settings.filled`."""
    counts: Mapping[str, Any]
    """Responses that would be used, and those skipped by reason."""
    operations: list[Operation]
    """What would be done to the data, in order."""
    n_steps: int
    """Of the optimizer."""
    weights: Weights


def train(
    inputs: Sequence[Path],
    *,
    settings: TrainSettings,
    out: Path,
    columns: Mapping[str, str] | None = None,
    on_bad: OnBad = "raise",
    dev: Sequence[Path] = (),
    cache: Path | None = None,
) -> Trained:
    """Train a model so that its reward fits the labels: the policy of a log-ratio, or a model of values.

    Args:
        inputs: graded rollouts, files or run folders, with step labels where the objective needs them.
        settings: model, parameterisation, objective, beta, hyper-parameters.
        out: becomes a model folder; the same command continues a run that was interrupted.
        columns: our column name -> theirs.
        on_bad: stop at a broken record, or count it.
        dev: graded rollouts to evaluate on, where `trainer.eval_strategy` asks for it.
        cache: where reference log-probabilities are kept; `out/reference` by default.

    Raises:
        FreePRMError: see the errors of records, settings, data and models.
    """
    setup = set_up_training(settings)
    arguments = training_arguments(setup.settings, out, evaluates=bool(dev))
    files = RolloutFiles(inputs=inputs, dev=dev, columns=columns, on_bad=on_bad)
    folder = RunFolder(
        out, stage="train", settings=_identity(setup, files, arguments.mixed_precision),
        inputs=[*inputs, *source_paths(recipe_of(setup.settings)), *dev],
    )  # fmt: skip
    is_main = arguments.process_index == 0
    with folder if is_main else nullcontext():
        if folder.complete:
            return _finished(out)
        data = read_data(setup, arguments, files, cache=cache or out / "reference")
        warn_of(setup, arguments, data)
        trainer = fit(setup, arguments, data)
        log = [entry for entry in trainer.state.log_history if "loss" in entry or "eval_loss" in entry]
        metrics, cost = _metrics(log, setup.settings), _cost(trainer, setup, data)
        if is_main:
            describe(out, setup, data.preparer, counts=data.counts, log=log)
            folder.write_metrics(metrics)
            cost = folder.finish(cost=cost, counts=recorded(data.counts, data.operations), defaults=setup.sources)
        return Trained(
            folder=out, metrics=metrics, counts=data.counts, operations=data.operations, log=log, cost=cost
        )  # fmt: skip


def plan(
    inputs: Sequence[Path],
    *,
    settings: TrainSettings,
    columns: Mapping[str, str] | None = None,
    on_bad: OnBad = "raise",
    dev: Sequence[Path] = (),
) -> Plan:
    """What `train` would do, up to what it needs weights for: none are loaded, and nothing is written.

    Args:
        inputs, settings, columns, on_bad, dev: as for `train`.

    Raises:
        FreePRMError: as for `train`.
    """
    setup = set_up_training(settings)
    arguments = training_arguments(setup.settings, Path(), evaluates=bool(dev))
    files = RolloutFiles(inputs=inputs, dev=dev, columns=columns, on_bad=on_bad)
    data = read_data(setup, arguments, files, cache=None)
    warn_of(setup, arguments, data)
    return Plan(
        settings=setup.settings, sources=setup.sources, counts=data.counts, operations=data.operations,
        n_steps=n_steps(arguments, n_examples=len(data.examples)),
        weights=count_weights(setup.settings, setup.start, arguments),
    )  # fmt: skip


def _identity(setup: TrainingSetup, files: RolloutFiles, mixed_precision: str) -> dict[str, Any]:
    """Everything that decides the result, besides the data; mixed precision may come of `accelerate launch` alone."""
    settings, start = setup.settings, setup.start
    has_reference = settings.parameterisation == LOG_RATIO
    return {
        **asdict(settings), "columns": dict(files.columns or {}), "on_bad": files.on_bad,
        "model_sha256": weights_hash(start),
        "reference_sha256": weights_hash(reference_folder(settings, start)) if has_reference else None,
        **({} if mixed_precision == "no" else {"mixed_precision": mixed_precision}),
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


def _cost(trainer: GroupTrainer, setup: TrainingSetup, data: Data) -> Cost:
    config = load_config(setup.start, trust_remote_code=setup.settings.trust_remote_code).get_text_config()
    reward = setup.reward
    return training_cost(
        trainer, ModelShape.of(config, n_outputs=None if reward.valuation is None else 0), data.examples,
        held_out=data.held_out, reference_tokens=data.preparer.scored_tokens if reward.with_reference else None,
    )  # fmt: skip


def _finished(out: Path) -> Trained:
    manifest = read_manifest(out) or {}
    log = json.loads((out / "log.json").read_text(encoding="utf-8"))
    counts, operations = recalled(manifest["counts"])
    cost = read_cost(manifest["cost"])
    return Trained(folder=out, metrics=read_metrics(out), counts=counts, operations=operations, log=log, cost=cost)
