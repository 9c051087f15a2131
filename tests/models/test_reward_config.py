import json

import pytest

from freeprm.errors import ModelError
from freeprm.models.reward_config import Reference, RewardConfig, load_reward_config, save_reward_config

CONFIG = RewardConfig(
    beta=0.05, base="a/b", reference=Reference(source="a/b", revision="r1", weights_sha256="0" * 64), objective="kto",
    objective_options={"desirable_weight": 1.5}, template_sha256="1" * 64, splitter="lines",
)  # fmt: skip


def test_a_configuration_is_read_as_it_was_written(tmp_path):
    save_reward_config(CONFIG, tmp_path)
    assert load_reward_config(tmp_path) == CONFIG


def test_a_folder_without_one_is_refused_with_what_to_do(tmp_path):
    with pytest.raises(ModelError, match=r"no reward.json, so beta and the reference are unknown.*--untrained"):
        load_reward_config(tmp_path)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"gamma": 1}, "unknown setting 'gamma'"),
        ({"reference": {"source": "a/b"}}, "not a reward configuration"),
        ({"beta": None}, "not a reward configuration"),
    ],
)
def test_a_configuration_that_is_not_ours_is_refused(tmp_path, change, message):
    save_reward_config(CONFIG, tmp_path)
    file = tmp_path / "reward.json"
    changed = {key: value for key, value in {**json.loads(file.read_text()), **change}.items() if value is not None}
    file.write_text(json.dumps(changed))
    with pytest.raises(ModelError, match=message):
        load_reward_config(tmp_path)


def test_a_file_that_is_not_json_is_refused(tmp_path):
    (tmp_path / "reward.json").write_text('{"beta": ')
    with pytest.raises(ModelError, match="not a reward configuration"):
        load_reward_config(tmp_path)
