import sys
from collections import Counter
from dataclasses import replace

import pytest
import torch
from accelerate import PartialState
from accelerate.utils import DistributedType
from transformers import TrainingArguments
from transformers.integrations import deepspeed

import tiny
from freeprm.errors import ConfigError, ModelError
from freeprm.io.plugins import load
from freeprm.models.encoding import encode
from freeprm.models.logprobs import score_tokens
from freeprm.models.reference_logprobs import COLUMNS, key_of, noted_of
from freeprm.training.batches import LogRatios, collate_groups
from freeprm.training.examples import GroupPreparer
from freeprm.training.policy import load_policy
from freeprm.training.reference import FrozenReference
from freeprm.training.settings import TrainSettings
from freeprm.training.setup import set_up_training
from freeprm.training.trainer import GroupTrainer
from freeprm.types import Rollout, group_rollouts

NOT_MIXED = "reference computed: noted log-probabilities are not of mixed precision"


def noted(folder) -> list[Rollout]:
    """Rollouts with the model's own log-probabilities, as sampling notes them."""
    made = tiny.rollouts(3)
    encoded = encode(tiny.tokenizer(), made)
    key = key_of(folder, tiny.tokenizer(), dtype="float32")
    logps = score_tokens(tiny.language_model(), encoded)
    noted = [
        (item.ids[item.n_prompt :].tolist(), own.tolist(), noted_of(key, item.ids[: item.n_prompt].tolist()))
        for item, own in zip(encoded, logps, strict=True)
    ]
    return [replace(one, extra=dict(zip(COLUMNS, own, strict=True))) for one, own in zip(made, noted, strict=True)]


def examples_and_counts(folder, cache, rollouts, *, mixed_precision):
    counts = Counter()
    preparer = GroupPreparer(set_up_training(TrainSettings(model=str(folder))), cache, mixed_precision=mixed_precision)
    return preparer.examples(group_rollouts(rollouts), counts=counts), counts, preparer.scored_tokens


def rewards(folder, examples, out, **precision) -> torch.Tensor:
    """(T_total,) of a policy that has not been trained, read as its trainer reads it, in batches of one and two."""
    data = examples
    told = TrainingArguments(
        output_dir=str(out), remove_unused_columns=False, report_to="none", use_cpu=True, **precision
    )
    trainer = GroupTrainer(
        load_policy(TrainSettings(model=str(folder)), folder, torch.device("cpu")),
        told, objective=load("objectives", "ce")(), reward=LogRatios(beta=0.5), train_dataset=data, eval_dataset=data,
    )  # fmt: skip
    trainer.evaluate()  # the parent prepares the model at its first use
    batches = [collate_groups([data[0]]), collate_groups([data[1], data[2]])]
    with torch.no_grad():
        return torch.cat([trainer.reward.token_rewards(trainer.model, batch) for batch in batches])


@pytest.mark.parametrize("way", ["argument", "environment"])
def test_under_autocast_every_token_of_an_untrained_policy_earns_zero(model_folder, tmp_path, monkeypatch, way):
    if way == "environment":
        monkeypatch.setenv("ACCELERATE_MIXED_PRECISION", "bf16")
    precision = {"bf16": True} if way == "argument" else {}
    rollouts = noted(model_folder)
    _, _, in_float32 = examples_and_counts(model_folder, tmp_path, tiny.rollouts(3), mixed_precision="no")
    assert in_float32 > 0
    # What was computed in float32 is no use, nor is what sampling noted in it.
    fresh, counts, tokens = examples_and_counts(model_folder, tmp_path, rollouts, mixed_precision="bf16")
    assert tokens > 0
    assert counts[NOT_MIXED] == len(rollouts)
    cached, _, none = examples_and_counts(model_folder, tmp_path, rollouts, mixed_precision="bf16")
    assert none == 0
    for examples in (fresh, cached):
        assert not rewards(model_folder, examples, tmp_path / "out", **precision).any()


def test_in_float32_noted_log_probabilities_leave_an_untrained_policy_at_the_rounding(model_folder, tmp_path):
    examples, counts, tokens = examples_and_counts(model_folder, tmp_path, noted(model_folder), mixed_precision="no")
    assert tokens == 0
    assert counts["reference taken from sampling"] == 12
    assert rewards(model_folder, examples, tmp_path / "out").abs().max() < 1e-5


def test_a_precision_that_the_reference_cannot_compute_in_is_refused(model_folder, tmp_path):
    with pytest.raises(ConfigError, match=r"mixed precision 'fp8': .* expected one of no, bf16, fp16"):
        examples_and_counts(model_folder, tmp_path, tiny.rollouts(3), mixed_precision="fp8")


def test_under_zero3_the_reference_is_loaded_whole(model_folder, tmp_path, monkeypatch):
    class Sharding:
        """The configuration of ZeRO-3, as it is alive while training is prepared."""

        def is_zero3(self) -> bool:
            return True

    plain, _, _ = examples_and_counts(model_folder, tmp_path / "plain", tiny.rollouts(3), mixed_precision="no")
    sharding = Sharding()
    monkeypatch.setattr(deepspeed, "_hf_deepspeed_config_weak_ref", None)  # as it was, afterwards
    deepspeed.set_hf_deepspeed_config(sharding)
    monkeypatch.setitem(sys.modules, "deepspeed", None)
    with pytest.raises((ImportError, ModelError), match="deepspeed"):  # the policy is sharded while it is loaded
        load_policy(TrainSettings(model=str(model_folder)), model_folder, torch.device("cpu"))
    found, _, _ = examples_and_counts(model_folder, tmp_path / "sharded", tiny.rollouts(3), mixed_precision="no")
    assert deepspeed.is_deepspeed_zero3_enabled()  # the policy still is to be
    for one, other in zip(plain, found, strict=True):
        for a, b in zip(one.ref_logps, other.ref_logps, strict=True):
            torch.testing.assert_close(a, b, atol=1e-5, rtol=0)


def test_under_deepspeed_the_references_weights_are_cast_as_the_engine_casts_the_policys(
    model_folder, tmp_path, monkeypatch
):
    process = PartialState()
    monkeypatch.setattr(process, "distributed_type", DistributedType.DEEPSPEED)
    settings = TrainSettings(model=str(model_folder))
    reference = FrozenReference(settings, model_folder, tiny.tokenizer(), tmp_path, process, mixed_precision="bf16")
    assert next(reference._load().parameters()).dtype == torch.bfloat16
    assert reference._autocast is None
