"""Train a reward model, implicit or one of the baselines: graded rollouts in, a model folder with reward.json out."""

import json
import warnings
from collections import Counter
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

from transformers import PrinterCallback, ProgressCallback, TrainingArguments, set_seed

from freeprm.core.curation import Operation, recalled, recorded
from freeprm.core.flops import ModelShape
from freeprm.errors import ConfigError, PluginError
from freeprm.io.manifest import read_cost
from freeprm.io.plugins import load
from freeprm.io.rollouts import OnBad
from freeprm.io.rows import write_json
from freeprm.io.runs import RunFolder, read_manifest, read_metrics
from freeprm.models.loading import downloaded_revision, load_config, portable, resolve, template_hash, weights_hash
from freeprm.models.prompts import told_date
from freeprm.models.reward_config import LOG_RATIO, Reference, RewardConfig, save_reward_config
from freeprm.objectives.base import NEEDS, Averaging, Objective
from freeprm.training.batches import Example, Examples, Parameterization, reading_of
from freeprm.training.examples import Preparer
from freeprm.training.groups import read_groups, recipe_of, source_paths
from freeprm.training.model_card import model_card
from freeprm.training.policy import (
    Weights,
    carried_on,
    check_precision,
    count_weights,
    give_back_rounded,
    load_policy,
    trains_rounded,
)
from freeprm.training.reach import out_of_reach, too_slow
from freeprm.training.reference import reference_folder
from freeprm.training.running import ConsoleCallback, last_checkpoint, training_cost
from freeprm.training.settings import TrainSettings, filled, n_steps, training_arguments
from freeprm.training.trainer import GroupTrainer
from freeprm.types import Cost, Group, Metric


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
    begun = _begin(settings, out, evaluates=bool(dev))
    settings, start = begun.settings, begun.start
    is_main = begun.arguments.process_index == 0
    folder = RunFolder(
        out, stage="train", settings=_identity(settings, start, columns, on_bad, begun.arguments.mixed_precision),
        inputs=[*inputs, *source_paths(recipe_of(settings)), *dev],
    )  # fmt: skip
    with folder if is_main else nullcontext():
        if folder.complete:
            return _finished(out)
        data = _read(begun, inputs, dev, cache=cache or out / "reference", columns=columns, on_bad=on_bad)
        counts, operations = data.counts, data.operations
        _warn(data.examples, begun)
        trainer = _run(begun, data)
        log = [entry for entry in trainer.state.log_history if "loss" in entry or "eval_loss" in entry]
        metrics = _metrics(log, settings)
        cost = _cost(trainer, settings, start, data)
        if is_main:
            _describe(out, data.preparer, settings, counts, log)
            folder.write_metrics(metrics)
            cost = folder.finish(cost=cost, counts=recorded(counts, operations), defaults=begun.sources)
        return Trained(folder=out, metrics=metrics, counts=counts, operations=operations, log=log, cost=cost)


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
    nowhere = Path()
    begun = _begin(settings, nowhere, evaluates=bool(dev))
    resolved = begun.settings
    if begun.reading.valuation is None:  # the reference takes no part in what is counted
        begun = begun._replace(settings=replace(resolved, with_reference=False))
    data = _read(begun, inputs, dev, cache=nowhere, columns=columns, on_bad=on_bad)
    if slow := too_slow(resolved):
        warnings.warn(slow, stacklevel=2)
    return Plan(
        settings=resolved, sources=begun.sources, counts=data.counts, operations=data.operations,
        n_steps=n_steps(begun.arguments, n_examples=len(data.examples)),
        weights=count_weights(resolved, begun.start, begun.arguments),
    )  # fmt: skip


class _Begun(NamedTuple):
    """All that is known before the data is read."""

    settings: TrainSettings
    """With nothing left open."""
    sources: dict[str, str]
    objective: Objective
    reading: Parameterization
    start: Path
    """Folder of the model that training starts from."""
    arguments: TrainingArguments


def _begin(settings: TrainSettings, out: Path, *, evaluates: bool) -> _Begun:
    """Fill the settings and refuse what cannot be trained."""
    objective = _objective(settings)
    start = resolve(settings.model, revision=settings.revision)
    carried = carried_on(settings, start)
    kept = [
        name
        for name in ("beta", "reference", "reference_revision")
        if getattr(carried, name) != getattr(settings, name)
    ]
    whole, sources = filled(carried)
    check_precision(whole, start)
    return _Begun(
        settings=whole, sources={**dict.fromkeys(kept, f"reward.json of {settings.model}"), **sources},
        objective=objective, reading=reading_of(whole, objective),
        start=start, arguments=training_arguments(whole, out, evaluates=evaluates),
    )  # fmt: skip


class _Data(NamedTuple):
    """What is trained on, and evaluated on."""

    preparer: Preparer
    examples: list[Example]
    held_out: list[Example]
    counts: Counter[str]
    operations: list[Operation]


def _read(
    begun: _Begun, inputs: Sequence[Path], dev: Sequence[Path], *, cache: Path, columns: Mapping[str, str] | None,
    on_bad: OnBad,
) -> _Data:  # fmt: skip
    settings, objective = begun.settings, begun.objective
    groups, counts, operations = read_groups(inputs, settings, objective, columns=columns, on_bad=on_bad)
    preparer = Preparer(
        settings, begun.start, cache, begun.arguments.distributed_state, objective=objective,
        mixed_precision=begun.arguments.mixed_precision,
    )  # fmt: skip
    examples = _examples(preparer, groups, counts)
    held_out: list[Example] = []
    if dev:
        dev_groups, dev_counts, _ = read_groups(dev, settings, objective, columns=columns, on_bad=on_bad, held_out=True)
        held_out = _examples(preparer, dev_groups, dev_counts)
        counts.update({f"dev: {what}": n for what, n in dev_counts.items()})
    return _Data(preparer, examples, held_out, counts, operations)


def _identity(
    settings: TrainSettings, start: Path, columns: Mapping[str, str] | None, on_bad: OnBad, mixed_precision: str
) -> dict[str, Any]:
    """Everything that decides the result, besides the data; mixed precision may come of `accelerate launch` alone."""
    has_reference = settings.parameterisation == LOG_RATIO
    return {
        **asdict(settings), "columns": dict(columns or {}), "on_bad": on_bad, "model_sha256": weights_hash(start),
        "reference_sha256": weights_hash(reference_folder(settings, start)) if has_reference else None,
        **({} if mixed_precision == "no" else {"mixed_precision": mixed_precision}),
    }  # fmt: skip


def _objective(settings: TrainSettings) -> Objective:
    kind = load("objectives", settings.objective)
    try:
        objective: Objective = kind(**settings.objective_options)
    except TypeError as error:
        raise ConfigError(f"objective_options of {settings.objective}: {error}") from error
    if missing := [need for need in NEEDS if not hasattr(objective, need)]:
        raise PluginError(f"objective {settings.objective}: does not say {missing[0]}; expected {', '.join(NEEDS)}")
    if objective.needs_means and not isinstance(objective, Averaging):
        raise PluginError(f"objective {settings.objective}: says needs_means; expected a method `totals` besides")
    return objective


def _examples(preparer: Preparer, groups: Sequence[Group], counts: Counter[str]) -> list[Example]:
    counts["prompts"] = len({group.problem_id for group in groups})
    return preparer.examples(groups, counts=counts)


def _run(begun: _Begun, data: _Data) -> GroupTrainer:
    """Train, from the last checkpoint where there is one, and save the model."""
    settings, arguments, reading = begun.settings, begun.arguments, begun.reading
    set_seed(settings.seed)
    out = Path(str(arguments.output_dir))
    with ConsoleCallback() as console:
        policy = load_policy(settings, begun.start, arguments.device, valuation=reading.valuation)
        trainer = GroupTrainer(
            policy, arguments, objective=begun.objective, reading=reading, train_dataset=Examples(data.examples),
            eval_dataset=Examples(data.held_out) if data.held_out else None, callbacks=[console],
        )  # fmt: skip
        for printing in (ProgressCallback, PrinterCallback):  # they print on stdout
            trainer.remove_callback(printing)
        if (trainer.is_fsdp_enabled or trainer.is_deepspeed_enabled) and trains_rounded(policy):
            raise ConfigError(
                f"dtype: is {settings.dtype!r}, and what rounding takes from weights cannot be given back to shards of "
                "them; shard float32 weights (dtype=float32, trainer.bf16=true), 16 bytes each over all GPUs"
            )
        trainer.train(resume_from_checkpoint=last_checkpoint(out))
    if trains_rounded(policy) and trainer.optimizer is not None:
        give_back_rounded(policy, trainer.optimizer)
    trainer.save_model(str(out))
    return trainer


def _warn(examples: Sequence[Example], begun: _Begun) -> None:
    """Warn where training cannot move its loss, and where GPUs are wasted."""
    reading, arguments = begun.reading, begun.arguments
    stuck = out_of_reach(examples, begun.objective, beta=reading.beta) if reading.with_reference else None
    for warning in (stuck, too_slow(begun.settings)):
        if warning is not None:
            warnings.warn(warning, stacklevel=3)
    if arguments.n_gpu > 1:
        warnings.warn(
            f"one process drives {arguments.n_gpu} GPUs, which is slow and fills the first one's memory. Start one a "
            "GPU with `accelerate launch -m freeprm train ...`, or show it one with CUDA_VISIBLE_DEVICES",
            stacklevel=3,
        )


def _describe(
    out: Path, preparer: Preparer, settings: TrainSettings, counts: Mapping[str, Any], log: Sequence[dict[str, float]]
) -> None:
    """Put beside the weights what a reader of the folder needs: tokenizer, reward.json, model card, log."""
    valuation = preparer.reading.valuation
    config = RewardConfig(
        beta=preparer.reading.beta,
        base=portable(settings.model),
        reference=_reference(preparer, settings),
        parameterisation=settings.parameterisation,
        read_at=valuation.read_at if valuation else None,
        judgement=valuation.judgement if valuation else None,
        trained_with_reference=preparer.reading.with_reference,
        objective=settings.objective,
        objective_options=dict(settings.objective_options),
        template_sha256=template_hash(preparer.tokenizer),
        template_date=told_date(preparer.tokenizer),
        splitter=settings.splitter,
    )
    preparer.tokenizer.save_pretrained(out)
    save_reward_config(config, out)
    card = model_card(config, settings, counts=counts, final=_last(log))
    (out / "README.md").write_text(card, encoding="utf-8")
    write_json(out / "log.json", list(log))


def _reference(preparer: Preparer, settings: TrainSettings) -> Reference | None:
    """What reward.json says of the reference; values have none."""
    if preparer.reference is None:
        return None
    return Reference(
        source=portable(settings.reference or settings.model),
        revision=downloaded_revision(preparer.reference.folder),
        weights_sha256=preparer.reference.sha256,
    )


def _last(log: Sequence[dict[str, float]], key: str = "loss") -> dict[str, float]:
    return next((entry for entry in reversed(log) if key in entry), {})


_COUNTED_IN = {"step_accuracy": "labelled_steps"}


def _metrics(log: Sequence[dict[str, float]], settings: TrainSettings) -> list[Metric]:
    """The last logged of each kind: over the last steps of training, and over the held-out responses."""
    names = ("loss", "sign_accuracy", "step_accuracy", "reward_right", "reward_wrong", "margin", "kl_to_reference")
    kinds = {"train": ("", _last(log)), "dev": ("eval_", _last(log, "eval_loss"))}
    return [
        Metric(
            metric=f"{kind}_{name}", value=last[prefix + name], seed=settings.seed, scorer=settings.objective,
            count=int(last[prefix + _COUNTED_IN.get(name, "responses")]),
        )
        for kind, (prefix, last) in kinds.items()
        for name in names
        if prefix + name in last
    ]  # fmt: skip


def _cost(trainer: GroupTrainer, settings: TrainSettings, start: Path, data: _Data) -> Cost:
    config = load_config(start, trust_remote_code=settings.trust_remote_code).get_text_config()
    preparer = data.preparer
    reading = preparer.reading
    return training_cost(
        trainer, ModelShape.of(config, n_outputs=None if reading.valuation is None else 0), data.examples,
        held_out=data.held_out, reference_tokens=preparer.scored_tokens if reading.with_reference else None,
    )  # fmt: skip


def _finished(out: Path) -> Trained:
    manifest = read_manifest(out) or {}
    log = json.loads((out / "log.json").read_text(encoding="utf-8"))
    counts, operations = recalled(manifest["counts"])
    cost = read_cost(manifest["cost"])
    return Trained(folder=out, metrics=read_metrics(out), counts=counts, operations=operations, log=log, cost=cost)
