"""Deterministic algorithms are on where they are asked for, and nowhere else."""

import os

import pytest
import torch

from freeprm.errors import ConfigError
from freeprm.models.determinism import algorithms


@pytest.fixture(autouse=True)
def _environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("CUBLAS_WORKSPACE_CONFIG", "FLASH_ATTENTION_DETERMINISTIC"):
        monkeypatch.setenv(name, "")  # so that what is set is taken back


def test_they_are_on_inside_and_as_before_outside():
    cudnn = torch.backends.cudnn
    with algorithms(deterministic=False):
        assert not torch.are_deterministic_algorithms_enabled()
    before = cudnn.deterministic, cudnn.benchmark
    with algorithms(deterministic=True):
        assert torch.are_deterministic_algorithms_enabled()
        assert (cudnn.deterministic, cudnn.benchmark) == (True, False)
        assert os.environ["CUBLAS_WORKSPACE_CONFIG"] == ":4096:8"
    assert not torch.are_deterministic_algorithms_enabled()
    assert (cudnn.deterministic, cudnn.benchmark) == before


def test_an_operation_without_a_deterministic_algorithm_is_named():
    told = "cumsum_cuda_kernel does not have a deterministic implementation, but you set ..."
    with pytest.raises(ConfigError, match=r"cumsum_cuda_kernel has no .* leave `deterministic` out"):  # noqa: SIM117
        with algorithms(deterministic=True):
            raise RuntimeError(told)
    with pytest.raises(RuntimeError, match="something else"), algorithms(deterministic=True):
        raise RuntimeError("something else")
    assert not torch.are_deterministic_algorithms_enabled()


def test_a_gpu_that_works_with_another_workspace_is_refused(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(torch.cuda, "is_initialized", lambda: True)
    with pytest.raises(ConfigError, match=r"CUBLAS_WORKSPACE_CONFIG is ''.*set it to :4096:8"):  # noqa: SIM117
        with algorithms(deterministic=True):
            pass
    monkeypatch.setenv("CUBLAS_WORKSPACE_CONFIG", ":16:8")
    with algorithms(deterministic=True):
        assert os.environ["CUBLAS_WORKSPACE_CONFIG"] == ":16:8"
