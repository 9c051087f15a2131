import json
from dataclasses import replace

import pytest

from freeprm.errors import ModelError
from freeprm.models.reward_config import LOG_RATIO, Reference, RewardConfig, load_reward_config, save_reward_config

CONFIG = RewardConfig(
    beta=0.05, base="a/b", reference=Reference(source="a/b", revision="r1", weights_sha256="0" * 64), objective="kto",
    objective_options={"desirable_weight": 1.5}, template_sha256="1" * 64, splitter="lines",
)  # fmt: skip


VALUES = replace(
    CONFIG, beta=1.0, reference=None, parameterisation="tokens", read_at="steps", judgement=("+", "-"),
)  # fmt: skip


@pytest.mark.parametrize("config", [CONFIG, VALUES], ids=["log-ratio", "values"])
def test_a_configuration_is_read_as_it_was_written(config, tmp_path):
    save_reward_config(config, tmp_path)
    assert load_reward_config(tmp_path) == config


def test_one_that_says_nothing_of_its_parameterisation_is_of_a_log_ratio(tmp_path):
    save_reward_config(CONFIG, tmp_path)
    file = tmp_path / "reward.json"
    older = {
        key: value
        for key, value in json.loads(file.read_text()).items()
        if key not in ("parameterisation", "read_at", "judgement", "template_date")
    }
    file.write_text(json.dumps(older))
    assert load_reward_config(tmp_path) == CONFIG
    assert CONFIG.parameterisation == LOG_RATIO


def test_a_folder_without_one_is_refused_with_what_to_do(tmp_path):
    with pytest.raises(ModelError, match=r"no reward.json, so beta and the reference are unknown.*--untrained"):
        load_reward_config(tmp_path)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"gamma": 1}, "unknown setting 'gamma'"),
        ({"reference": {"source": "a/b"}}, "not a reward configuration"),
        ({"beta": None}, "not a reward configuration"),
        ({"parameterisation": "linear"}, "parameterisation 'linear' with a reference"),
    ],
)
def test_a_configuration_that_is_not_ours_is_refused(tmp_path, change, message):
    save_reward_config(CONFIG, tmp_path)
    file = tmp_path / "reward.json"
    changed = {key: value for key, value in {**json.loads(file.read_text()), **change}.items() if value is not None}
    file.write_text(json.dumps(changed))
    with pytest.raises(ModelError, match=message):
        load_reward_config(tmp_path)


def test_a_log_ratio_without_its_reference_is_refused(tmp_path):
    save_reward_config(replace(VALUES, parameterisation=LOG_RATIO), tmp_path)
    with pytest.raises(
        ModelError, match=r"not a reward configuration .parameterisation 'log_ratio' without a reference"
    ):
        load_reward_config(tmp_path)


def test_a_file_that_is_not_json_is_refused(tmp_path):
    (tmp_path / "reward.json").write_text('{"beta": ')
    with pytest.raises(ModelError, match="not a reward configuration"):
        load_reward_config(tmp_path)
