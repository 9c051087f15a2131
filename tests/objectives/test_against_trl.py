"""Our losses against TRL's own code, fed the same log-probabilities.

TRL computes a loss inside its trainers. Its loss methods are called here on a stand-in for the trainer that carries
the settings they read; the stand-in's model returns given log-probabilities. What TRL 1.16 has no longer is the
unpaired BCO trainer; its paired form without a shift (`bco_pair`) is the sum of our CE over both responses.
"""

from collections import defaultdict
from types import SimpleNamespace

import pytest
import torch

from freeprm.objectives.bco import BCO
from freeprm.objectives.ce import CE
from freeprm.objectives.dpo import DPO
from freeprm.objectives.ipo import IPO
from freeprm.objectives.kto import KTO
from freeprm.objectives.nca import NCA
from freeprm.objectives.simpo import SimPO

pytest.importorskip("trl", minversion="1.16", reason="compares with TRL's trainers: pip install 'freeprm[test]'")

BETA = 0.3
LENGTH = 6
PAIRS = [  # (tokens of the chosen, of the rejected response)
    (4, 2),
    (1, 5),
    (3, 3),
]


def log_probs(seed, lengths):
    """(N, LENGTH) token log-probabilities, zero after each response's end, as TRL's fused head returns them."""
    values = -3 * torch.rand(len(lengths), LENGTH, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    return values * mask(lengths)


def mask(lengths):
    return (torch.arange(LENGTH) < torch.tensor(lengths)[:, None]).to(torch.float64)


def stand_in(**settings):
    """What TRL's loss methods read of their trainer."""
    accelerator = SimpleNamespace(
        device=torch.device("cpu"), gather=lambda value: value, gather_for_metrics=lambda value: value
    )
    return SimpleNamespace(
        model=SimpleNamespace(training=False), accelerator=accelerator, beta=BETA, aux_loss_enabled=False,
        precompute_ref_logps=True, _metrics=defaultdict(lambda: defaultdict(list)), _total_train_tokens=0, _tp_size=1,
        **settings,
    )  # fmt: skip


def model_returning(values):
    nothing = torch.zeros_like(values)
    outputs = SimpleNamespace(log_probs=values, entropy=nothing, mean_logits=nothing, is_top1=nothing.bool())
    return lambda **_: outputs


def with_prompt(lengths):
    """(N, 1 + LENGTH) completion mask after a prompt of one token."""
    return torch.cat([torch.zeros(len(lengths), 1), mask(lengths)], dim=1).long()


def trl_dpo(loss_type, pair, policy, reference):
    from trl.trainer.dpo_trainer import DPOTrainer

    trainer = stand_in(
        ld_alpha=None, f_divergence_type="reverse_kl", loss_types=[loss_type], loss_weights=[1.0], use_weighting=False
    )
    ref_chosen, ref_rejected = reference.sum(1).chunk(2)
    completion_mask = with_prompt(pair)
    inputs = {
        "input_ids": torch.zeros_like(completion_mask), "attention_mask": torch.ones_like(completion_mask),
        "completion_mask": completion_mask, "ref_chosen_logps": ref_chosen, "ref_rejected_logps": ref_rejected,
    }  # fmt: skip
    return DPOTrainer._compute_loss(trainer, model_returning(policy), inputs, False).item()


def our_batch(batch_of, lengths, token_rewards, labels, **more):
    rows = [row[:length].tolist() for row, length in zip(token_rewards, lengths, strict=True)]
    return batch_of(rows, labels, **more)


@pytest.mark.parametrize("pair", PAIRS)
@pytest.mark.parametrize(
    ("loss_type", "objective", "scale"),
    [
        ("sigmoid", DPO(), 1.0),
        ("nca_pair", NCA(), 1.0),
        ("ipo", IPO(per_token=True), BETA**-2),  # TRL's is in log-ratios, ours in rewards
        ("sigmoid_norm", SimPO(gamma=0.0), 1.0),
    ],
)
def test_pair_losses_are_those_of_trl(batch_of, pair, loss_type, objective, scale):
    policy, reference = log_probs(1, pair), log_probs(2, pair)
    ours = objective.losses(our_batch(batch_of, pair, BETA * (policy - reference), [True, False])).item()
    assert scale * ours == pytest.approx(trl_dpo(loss_type, pair, policy, reference), rel=1e-9)


@pytest.mark.parametrize("pair", PAIRS)
@pytest.mark.parametrize("objective", [CE(), BCO(delta=0.0)])
def test_ce_over_a_pair_is_bco_pair_of_trl(batch_of, pair, objective):
    policy, reference = log_probs(3, pair), log_probs(4, pair)
    ours = objective.losses(our_batch(batch_of, pair, BETA * (policy - reference), [True, False])).sum().item()
    assert ours == pytest.approx(trl_dpo("bco_pair", pair, policy, reference), rel=1e-9)


@pytest.mark.parametrize("divergence", [1.7, -0.4])
def test_kto_is_that_of_trl(batch_of, divergence):
    from trl.trainer.kto_trainer import KTOTrainer

    lengths, labels = [4, 1, 3, 6], [True, False, False, True]
    policy, reference = log_probs(5, lengths), log_probs(6, lengths)
    # TRL estimates the divergence from mismatched prompts and responses; here their log-ratios average `divergence`.
    ref_kl = torch.tensor([-9.0, -4.0, -7.5, -2.5], dtype=torch.float64)
    policy_kl = ref_kl + divergence + torch.tensor([0.5, -0.5, 1.0, -1.0])
    trainer = stand_in(
        calculate_KL=True, loss_type="kto", desirable_weight=1.2, undesirable_weight=0.7,
        _compute_kl_logps=lambda model, batch: policy_kl,
    )  # fmt: skip
    completion_mask = with_prompt(lengths)
    inputs = {
        "input_ids": torch.zeros_like(completion_mask), "attention_mask": torch.ones_like(completion_mask),
        "completion_mask": completion_mask, "label": torch.tensor(labels),
        "ref_logps": reference.sum(1), "ref_KL_logps": ref_kl,
    }  # fmt: skip
    theirs = KTOTrainer._compute_loss(trainer, model_returning(policy), inputs, False).item()
    objective = KTO(desirable_weight=1.2, undesirable_weight=0.7)
    batch = our_batch(batch_of, lengths, BETA * (policy - reference), labels, kl=BETA * divergence)
    assert objective.losses(batch).mean().item() == pytest.approx(theirs, rel=1e-9)


@pytest.mark.parametrize("pair", PAIRS)
def test_simpo_without_reference_is_that_of_trl(batch_of, pair):
    from trl.experimental.cpo import CPOTrainer

    policy = log_probs(7, pair)
    averages = policy.sum(1) / torch.tensor(pair)
    trainer = stand_in(alpha=0.0, loss_type="simpo", simpo_gamma=0.4, label_smoothing=0.0)
    theirs, _, _ = CPOTrainer.cpo_loss(trainer, averages[:1], averages[1:])
    ours = SimPO(gamma=0.4).losses(our_batch(batch_of, pair, BETA * policy, [True, False]))
    assert ours.item() == pytest.approx(theirs.item(), rel=1e-9)
