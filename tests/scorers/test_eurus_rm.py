import pytest
import torch

import releases
from freeprm.errors import ModelError
from freeprm.models.heads import RegressionHead
from freeprm.models.loading import LoadOptions
from freeprm.scorers.base import ScorerSource
from freeprm.scorers.eurus_rm import PLUGIN
from releases import ROLLOUTS, one, save_released, seeded
from rounding import near

CPU = LoadOptions(device="cpu")
CODE = '''
import torch
from transformers import MistralConfig, MistralModel, PreTrainedModel


class EurusRewardModel(PreTrainedModel):
    config_class = MistralConfig

    def __init__(self, config):
        super().__init__(config)
        self.model = MistralModel(config)
        self.regression_head = torch.nn.Linear(config.hidden_size, 1, bias=False)
        self.post_init()

    def forward(self, input_ids, attention_mask, use_cache=None):
        """The reward at the last attended token, (B, 1)."""
        rewards = self.regression_head(self.model(input_ids, attention_mask=attention_mask)[0]).squeeze(-1)
        return rewards.gather(1, attention_mask.cumsum(1).argmax(1, keepdim=True))
'''


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    model = seeded(releases.mistral)
    head = seeded(lambda: RegressionHead(model.config).eval(), seed=1)
    made = save_released(
        tmp_path_factory.mktemp("eurus"), model, releases.mistral_tokenizer(), architecture="EurusRewardModel",
        head=head.state_dict(), auto_map={"AutoModel": "modeling_eurus_rm.EurusRewardModel"},
    )  # fmt: skip
    (made / "modeling_eurus_rm.py").write_text(CODE)
    return made


@pytest.fixture(scope="module")
def scorer(folder):
    return PLUGIN.load(ScorerSource(source=str(folder), options=CPU))


def test_the_text_has_the_card_s_backslash(scorer):
    assert scorer.write(one("two")).text == "[INST] One? [\\INST] two"


def test_it_is_read_at_the_last_token_of_what_the_tokenizer_makes_of_it(scorer):
    for rollout in ROLLOUTS:
        written = scorer.write(rollout)
        assert written.ids.tolist() == releases.mistral_tokenizer()(written.text)["input_ids"]
        assert written.ids[0] == 1
        assert written.positions == (len(written.ids) - 1,)


def test_the_weights_read_without_the_repository_s_class_give_what_the_class_gives(scorer, folder, monkeypatch):
    monkeypatch.setattr("transformers.dynamic_module_utils.HF_MODULES_CACHE", str(folder / "modules"))
    theirs = PLUGIN.load(ScorerSource(source=str(folder), options=LoadOptions(device="cpu", trust_remote_code=True)))
    assert theirs.model.head is None
    assert scorer.model.head is not None
    assert theirs.identity() != scorer.identity()
    ours, slow = scorer.score_rollouts(ROLLOUTS)[0], theirs.score_rollouts(ROLLOUTS)[0]
    for index in range(len(ROLLOUTS)):
        assert ours[index].score == near(slow[index].score)


def test_neither_batch_nor_padding_changes_a_score(scorer):
    together, _ = scorer.score_rollouts(ROLLOUTS)
    for index, rollout in enumerate(ROLLOUTS):
        assert together[index].score == near(scorer.score_rollouts([rollout])[0][0].score)


def test_the_score_is_the_head_s_at_the_last_state(scorer):
    ids = torch.tensor([releases.mistral_tokenizer()("[INST] One? [\\INST] two")["input_ids"]])
    state = scorer.model.backbone.model(ids).last_hidden_state[0, -1]
    by_hand = (state @ scorer.model.head.regression_head.weight[0]).item()
    assert scorer.score_rollouts([one("two")])[0][0].score == near(by_hand)


def test_a_class_that_only_its_own_code_can_read_is_refused_with_the_reason(tmp_path):
    folder = save_released(
        tmp_path, seeded(releases.mistral), releases.mistral_tokenizer(), architecture="NewRewardModel",
        auto_map={"AutoModel": "modeling_new.NewRewardModel"},
    )  # fmt: skip
    with pytest.raises(ModelError, match=r"a NewRewardModel, which is defined by code .*modeling_new.*--trust-remote"):
        PLUGIN.load(ScorerSource(source=str(folder), options=CPU))


def test_a_language_model_yields_no_rewards(tmp_path):
    folder = save_released(tmp_path, seeded(releases.mistral), releases.mistral_tokenizer())
    with pytest.raises(ModelError, match="a MistralForCausalLM, but eurus_rm is a EurusRewardModel"):
        PLUGIN.load(ScorerSource(source=str(folder), options=CPU))
