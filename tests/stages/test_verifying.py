from dataclasses import replace
from math import nan

import pytest
import torch

from freeprm.errors import NonFiniteError, RunFolderError
from freeprm.io import plugins
from freeprm.io.runs import read_manifest, read_metrics
from freeprm.objectives.base import RewardBatch
from freeprm.stages import verifying
from freeprm.stages.verifying import Check, verify


@pytest.fixture(scope="module")
def checks():
    return verify()


def test_every_check_passes(checks):
    assert [(check.name, check.measured, check.tolerance) for check in checks if not check.passed] == []


def test_every_objective_is_trained_and_checked(checks):
    names = {check.name for check in checks}
    for objective in plugins.names("objectives"):
        assert {f"proposition_3_1/{objective}", f"training_lowers_the_loss/{objective}"} <= names
    assert len(names) == len(checks)


def test_proposition_3_1_holds_at_every_prefix_within_a_billionth(checks):
    exact = [check for check in checks if "proposition_3_1/" in check.name]
    assert all(check.measured < check.tolerance == 1e-9 for check in exact)
    assert all(check.count == 1 + 3 + 9 + 27 + 81 for check in exact)


@pytest.mark.parametrize("seed", [1, 2])
def test_other_seeds_pass_with_other_numbers(checks, seed):
    others = verify(seed=seed)
    assert all(check.passed for check in others)
    assert [check.measured for check in others] != [check.measured for check in checks]


def test_a_check_that_measured_nothing_does_not_pass():
    check = Check(name="x", measured=0.0, tolerance=1.0, count=1, detail="")
    assert check.passed
    assert not replace(check, measured=nan).passed
    assert not replace(check, measured=1.1).passed


def test_a_run_folder_holds_the_measured_errors(checks, tmp_path):
    out = tmp_path / "verify"
    assert verify(out=out) == checks
    metrics = read_metrics(out)
    assert [(m.metric, m.value, m.count, m.seed) for m in metrics] == [
        (check.name, check.measured, check.count, 0) for check in checks
    ]
    manifest = read_manifest(out)
    assert manifest["status"] == "complete"
    assert manifest["counts"] == {"checks": len(checks), "failed": []}
    verify(out=out)  # the same command again
    with pytest.raises(RunFolderError, match="seed"):
        verify(seed=1, out=out)


def test_the_batch_of_the_world_carries_the_rewards_and_the_divergence_of_the_policy():
    generator = torch.Generator().manual_seed(0)
    shapes = [(3**t, 3) for t in range(4)]
    logits, reference = (
        [torch.randn(shape, generator=generator, dtype=torch.float64).log_softmax(-1) for shape in shapes]
        for _ in range(2)
    )
    step_labels = torch.zeros(81 * 2)
    batch = verifying._batch(logits, reference, torch.zeros(81, dtype=torch.bool), step_labels)
    assert batch.step_rows.tolist() == [row for row in range(81) for _ in range(2)]
    # Response 2 1 0 2 is number 2 * 27 + 1 * 9 + 0 * 3 + 2 = 65; its prefixes are 2, 2 * 3 + 1 = 7, 7 * 3 + 0 = 21.
    steps = [(0, 0, 2), (1, 2, 1), (2, 7, 0), (3, 21, 2)]
    by_hand = [0.5 * (logits[t][prefix, token] - reference[t][prefix, token]).item() for t, prefix, token in steps]
    assert batch.token_rewards[65 * 4 : 66 * 4].tolist() == pytest.approx(by_hand)
    # beta KL(pi || ref) is the sum over positions of the prefix's probability times the next token's divergence.
    total, reach = 0.0, torch.ones(1, dtype=torch.float64)
    for mine, other in zip(logits, reference, strict=True):
        total += (reach * (mine.exp() * (mine - other)).sum(-1)).sum().item()
        reach = (reach[:, None] * mine.exp()).flatten()
    assert batch.kl.item() == pytest.approx(0.5 * total)


class Broken:
    """An objective of someone else's whose loss is not a number."""

    needs_pairs = False
    needs_kl = False
    needs_means = False
    needs_steps = False
    needs_step_labels = False

    def losses(self, batch: RewardBatch) -> torch.Tensor:
        return batch.rewards / 0.0


def test_an_objective_with_a_loss_that_is_not_a_number_is_named():
    reference = verifying._random(verifying.np.random.default_rng(0))
    with pytest.raises(NonFiniteError, match="Broken: the loss is nan after 0 steps"):
        verifying._train(
            f"{__name__}:Broken", reference, torch.zeros(81, dtype=torch.bool), step_labels=torch.zeros(162)
        )


def test_responses_that_begin_alike_share_the_labels_of_the_steps_that_they_share():
    labels = verifying._step_labels(verifying.np.random.default_rng(0)).reshape(81, 2)
    # Responses 9 k to 9 k + 8 have the same first two tokens of four, hence the same first step.
    assert all(len(labels[9 * k : 9 * k + 9, 0].unique()) == 1 for k in range(9))
    assert len(labels[:, 0].unique()) == len(labels[:, 1].unique()) == 2
