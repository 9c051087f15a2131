from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from freeprm.models import casting
from freeprm.models.casting import UpdateKept, kept_of_update


def saved(folder: Path, **weights: torch.Tensor) -> Path:
    folder.mkdir()
    save_file(weights, folder / "model.safetensors")
    return folder


def test_moves_below_half_a_step_of_bfloat16_are_lost_and_larger_ones_become_whole_steps(tmp_path: Path):
    # From 1 on bfloat16 goes in steps of 2^-7: of moves by a quarter and by three quarters of a step, the first is lost
    # and the second becomes a whole one. u = (1, 3) / 4, c = (0, 4) / 4.
    reference = saved(tmp_path / "reference", w=torch.ones(2))
    policy = saved(tmp_path / "policy", w=1 + torch.tensor([1.0, 3.0]) * 2**-9)
    found = kept_of_update(policy, reference, torch.bfloat16)
    assert found == UpdateKept(norm=pytest.approx(4 / 10**0.5), cosine=pytest.approx(3 / 10**0.5))
    assert kept_of_update(policy, reference, torch.float32) == UpdateKept(norm=1.0, cosine=pytest.approx(1.0))


def test_a_policy_that_becomes_its_reference_keeps_nothing(tmp_path: Path):
    reference = saved(tmp_path / "reference", w=torch.ones(2, dtype=torch.bfloat16))  # of another dtype than the policy
    policy = saved(tmp_path / "policy", w=torch.ones(2) + 2**-10)
    assert kept_of_update(policy, reference, torch.bfloat16) == UpdateKept(norm=0.0, cosine=0.0)


def test_there_is_nothing_to_say_of_other_weights(tmp_path: Path):
    reference = saved(tmp_path / "reference", w=torch.ones(2), head=torch.ones(3))
    assert kept_of_update(reference, reference, torch.bfloat16) is None
    half = saved(tmp_path / "half", w=torch.full((2,), 2.0).bfloat16())
    assert kept_of_update(half, reference, torch.bfloat16) is None  # it was read as it is kept
    adapter = saved(tmp_path / "adapter", lora=torch.ones(2), head=torch.ones(4))
    assert kept_of_update(adapter, reference, torch.bfloat16) is None


def test_of_large_models_the_first_rows_are_looked_at(tmp_path: Path, monkeypatch):
    monkeypatch.setattr(casting, "_AT_MOST", 4)
    reference = saved(tmp_path / "reference", w=torch.ones(8, 1))
    policy = saved(tmp_path / "policy", w=torch.tensor([[1.5]] * 4 + [[1 + 2**-10]] * 4))
    assert kept_of_update(policy, reference, torch.bfloat16) == UpdateKept(norm=1.0, cosine=pytest.approx(1.0))
