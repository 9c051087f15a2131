"""A reward model by name: told apart without loading it, loaded as it is named."""

from pathlib import Path

import pytest

import tiny
from freeprm.core.flops import ModelShape
from freeprm.errors import ModelError, RewardMismatchError
from freeprm.models.loading import LoadOptions, weights_hash
from freeprm.models.reward_config import Reference, RewardConfig, save_reward_config
from freeprm.scorers._reading import PRMSource

FLOAT32 = LoadOptions(dtype="float32", device="cpu")


@pytest.fixture
def trained(tmp_path: Path) -> Path:
    """A reward model's folder; its reference lies beside it."""
    base, policy = (tiny.save(tmp_path / name, seed=seed) for seed, name in enumerate(("base", "policy")))
    reference = Reference(source=str(base), weights_sha256=weights_hash(base))
    config = RewardConfig(beta=0.5, base="b", objective="ce", reference=reference, splitter="lines")
    save_reward_config(config, policy)
    return policy


@pytest.mark.parametrize("changed", [{}, {"load_reference": False}, {"beta": 1.0, "override": ("beta",)}])
def test_what_is_said_without_loading_is_what_the_loaded_model_says(trained: Path, changed: dict[str, object]):
    source = PRMSource(source=str(trained), options=FLOAT32, **changed)  # type: ignore[arg-type]
    prm = source.load()
    assert source.identity() == prm.identity()
    assert source.splitter == prm.config.splitter == "lines"
    assert source.shape() == ModelShape.of(prm.policy.model.config)
    assert (prm.reference is None) == (not source.load_reference)


def test_an_untrained_model_is_its_own_reference(trained: Path):
    source = PRMSource(source=str(trained.parent / "base"), trained=False, options=FLOAT32)
    prm = source.load()
    assert prm.reference is prm.policy
    assert source.identity() == prm.identity()
    assert source.splitter == prm.config.splitter


def test_a_reference_that_moved_is_named(trained: Path):
    moved = (trained.parent / "base").rename(trained.parent / "moved")
    with pytest.raises(ModelError):
        PRMSource(source=str(trained)).identity()
    source = PRMSource(source=str(trained), reference=str(moved), options=FLOAT32)
    assert source.identity() == source.load().identity()
    with pytest.raises(RewardMismatchError):
        PRMSource(source=str(trained), reference=str(trained)).load()
