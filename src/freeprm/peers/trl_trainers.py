"""TRL's DPO and KTO trainers, from its package, on the same responses in the same batches.

The reference's log-probabilities are computed before training, as TRL's option `precompute_ref_log_probs` does it.
"""

import warnings
from collections.abc import Callable, Sequence
from contextlib import redirect_stderr
from importlib.metadata import version
from importlib.util import find_spec
from io import StringIO
from pathlib import Path
from typing import Any

from transformers import PreTrainedModel, PreTrainedTokenizerBase

from freeprm.errors import MissingExtraError
from freeprm.measurement.timing import timed
from freeprm.measurement.training_runs import BETA, Plan, StepClock, TrainingRun, shared_arguments
from freeprm.models.prompts import render_prompt
from freeprm.types import Group


def trl_version() -> str | None:
    """The installed version, None where there is none."""
    return version("trl") if find_spec("trl") else None


def import_trainers() -> dict[str, tuple[type, Callable[..., Any]]]:
    """TRL's trainer and its configuration, for each objective.

    Raises:
        MissingExtraError: TRL is not installed.
    """
    if trl_version() is None:
        raise MissingExtraError("TRL is not installed; to compare with its trainers: pip install 'freeprm[bench]'")
    from trl.trainer.dpo_config import DPOConfig
    from trl.trainer.dpo_trainer import DPOTrainer
    from trl.trainer.kto_config import KTOConfig
    from trl.trainer.kto_trainer import KTOTrainer

    return {"dpo": (DPOTrainer, DPOConfig), "kto": (KTOTrainer, KTOConfig)}


def run_trl(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, plan: Plan, *, out: Path, checkpointing: bool
) -> TrainingRun:
    """Train with TRL's trainer; the model is changed.

    Args:
        model: the policy, and the reference before its first step.
        tokenizer: of the model.
        plan: what is trained; for `dpo` each group is one right and one wrong response.
        out: a folder for what the trainer writes.
        checkpointing: recompute activations in the backward pass, which is what TRL does unless told otherwise.

    Raises:
        MissingExtraError: TRL is not installed.
    """
    trainers = import_trainers()
    from datasets.utils.logging import disable_progress_bar

    from datasets import Dataset

    disable_progress_bar()
    base, config = trainers[plan.objective]
    rows_of, a_batch = {
        "dpo": (_pairs, plan.groups_a_batch),
        "kto": (_labelled, plan.groups_a_batch * len(plan.groups[0].rollouts)),
    }[plan.objective]
    spent: list[float] = []

    class Timed(base):  # type: ignore[misc, valid-type]  # TRL has no types
        """The trainer, its reference's pass under a clock."""

        def compute_ref_log_probs(self, *args: Any, **kwargs: Any) -> Any:
            """As the parent."""
            result: list[Any] = []
            spent.append(timed(lambda: result.append(super(Timed, self).compute_ref_log_probs(*args, **kwargs))))
            return result[0]

    with warnings.catch_warnings(), redirect_stderr(StringIO()):  # a bar, and names that transformers has deprecated
        warnings.simplefilter("ignore", FutureWarning)
        trainer = Timed(
            model=model, processing_class=tokenizer, train_dataset=Dataset.from_list(rows_of(tokenizer, plan.groups)),
            args=config(
                output_dir=str(out), per_device_train_batch_size=a_batch, precompute_ref_log_probs=True, beta=BETA,
                max_length=None, gradient_checkpointing=checkpointing, **shared_arguments(plan, model),
            ),
        )  # fmt: skip
    columns = trainer.train_dataset.with_format(None)
    if plan.objective == "dpo":
        both = zip(columns["ref_chosen_logps"], columns["ref_rejected_logps"], strict=True)
        sums = [float(value) for pair in both for value in pair]
    else:
        sums = [float(value) for value in columns["ref_logps"]]
    return StepClock().run(trainer, reference_seconds=sum(spent), ref_logps=sums)


def _pairs(tokenizer: PreTrainedTokenizerBase, groups: Sequence[Group]) -> list[dict[str, str]]:
    rows = []
    for group in groups:
        right, wrong = sorted(group.rollouts, key=lambda rollout: not rollout.correct)
        prompt = render_prompt(tokenizer, group.prompt)
        rows.append({"prompt": prompt, "chosen": right.response, "rejected": wrong.response})
    return rows


def _labelled(tokenizer: PreTrainedTokenizerBase, groups: Sequence[Group]) -> list[dict[str, Any]]:
    return [
        {
            "prompt": render_prompt(tokenizer, group.prompt),
            "completion": rollout.response,
            "label": rollout.correct is True,
        }
        for group in groups
        for rollout in group.rollouts
    ]
