import warnings
from pathlib import Path

import pytest

import tiny
from freeprm.errors import ConfigError, RewardMismatchError
from freeprm.models.loading import weights_hash
from freeprm.models.reward_config import Reference, RewardConfig, save_reward_config
from freeprm.training.settings import TrainSettings
from freeprm.training.setup import carried_on


@pytest.fixture
def prm(tmp_path: Path, model_folder: Path) -> Path:
    """An implicit process reward model: other weights than its reference, beta 0.5."""
    return reward_model(tmp_path / "prm", reference=recorded(model_folder), beta=0.5)


def recorded(folder: Path) -> Reference:
    return Reference(source=str(folder), weights_sha256=weights_hash(folder))


def reward_model(folder: Path, **fields: object) -> Path:
    tiny.save(folder, seed=7)
    known = {"beta": 1.0, "base": "b", "objective": "ce", "reference": None}
    save_reward_config(RewardConfig(**{**known, **fields}), folder)
    return folder


def settings(model: Path, **how: object) -> TrainSettings:
    return TrainSettings(model=str(model), **how)


def unwarned(given: TrainSettings, start: Path) -> TrainSettings:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        return carried_on(given, start)


def test_a_language_model_decides_nothing(model_folder):
    assert unwarned(settings(model_folder), model_folder) == settings(model_folder)


def test_a_reward_model_is_trained_on_with_its_own_reference_and_beta_and_says_so(prm, model_folder):
    with pytest.warns(UserWarning, match=rf"own reference {model_folder}, beta 0.5. For a new reward .* --reference"):
        made = carried_on(settings(prm), prm)
    assert (made.reference, made.beta) == (str(model_folder), 0.5)


def test_its_reference_named_means_the_same_without_a_warning(prm, model_folder):
    made = unwarned(settings(prm, reference=str(model_folder)), prm)
    assert (made.reference, made.beta) == (str(model_folder), 0.5)


def test_another_beta_is_taken_and_told(prm, model_folder):
    with pytest.warns(UserWarning, match=r"beta 0\.1, and not its own 0\.5: its rewards start scaled"):
        made = carried_on(settings(prm, reference=str(model_folder), beta=0.1), prm)
    assert made.beta == 0.1


def test_another_reference_is_a_new_reward(prm):
    given = settings(prm, reference=str(prm))
    assert unwarned(given, prm) == given


def test_a_reference_that_has_changed_is_refused(prm, tmp_path, model_folder):
    other = tiny.save(tmp_path / "other", seed=3)
    moved = Reference(source=str(other), weights_sha256=weights_hash(model_folder))
    reward_model(prm, reference=moved)
    with pytest.raises(RewardMismatchError, match=r"other weights than the reference that .* was trained with"):
        carried_on(settings(prm), prm)


def test_a_reward_without_reference_goes_on_without_or_with_one_that_is_named(prm, model_folder):
    reward_model(prm, reference=recorded(model_folder), beta=0.5, trained_with_reference=False)
    with pytest.raises(ConfigError, match="was trained without reference; go on so with --no-reference"):
        carried_on(settings(prm), prm)
    assert unwarned(settings(prm, with_reference=False), prm).beta == 0.5


@pytest.mark.parametrize("wanted", ["log_ratio", "tokens"])
def test_a_model_of_values_is_nothing_else(tmp_path, wanted):
    folder = reward_model(tmp_path / "osv", parameterisation="linear", read_at="steps")
    with pytest.raises(ConfigError, match=rf"gives values \(parameterisation 'linear'\), but is .* as '{wanted}'"):
        carried_on(settings(folder, parameterisation=wanted), folder)
    given = settings(folder, parameterisation="linear")
    assert unwarned(given, folder) == given


def test_tokens_to_judge_by_stay_those_that_they_were(tmp_path):
    folder = reward_model(tmp_path / "prm", parameterisation="tokens", read_at="steps", judgement=("yes", "no"))
    with pytest.raises(ConfigError, match=r"judgement: is \('\+', '-'\), but .* was trained with \('yes', 'no'\)"):
        carried_on(settings(folder, parameterisation="tokens"), folder)
    given = settings(folder, parameterisation="tokens", judgement=("yes", "no"))
    assert unwarned(given, folder) == given


def test_an_implicit_reward_model_may_start_a_model_of_values(prm):
    given = settings(prm, parameterisation="linear")
    assert unwarned(given, prm) == given
