from dataclasses import replace

import pytest
import torch

import releases
from freeprm.errors import ConfigError, ModelError
from freeprm.models.loading import LoadOptions
from freeprm.scorers.base import ScorerSource, ScoringOptions
from freeprm.scorers.skywork_reward import PLUGIN
from releases import ROLLOUTS, one, save_released, seeded
from rounding import near

CPU = LoadOptions(device="cpu")
SYSTEM = (
    "<|begin_of_text|><|start_header_id|>system<|end_header_id|>\n\nCutting Knowledge Date: December 2023\n"
    "Today Date: 26 Jul 2024\n\n<|eot_id|>"
)


@pytest.fixture(scope="module")
def model():
    return seeded(lambda: releases.llama(labels=1))


@pytest.fixture(scope="module")
def scorer(model, tmp_path_factory):
    folder = save_released(tmp_path_factory.mktemp("skywork"), model, releases.llama_tokenizer())
    return PLUGIN.load(ScorerSource(source=str(folder), options=CPU))


def test_the_conversation_is_the_template_s_with_one_beginning(scorer):
    written = scorer.write(one("two"))
    assert written.text == (
        SYSTEM + "<|start_header_id|>user<|end_header_id|>\n\nOne?<|eot_id|>"
        "<|start_header_id|>assistant<|end_header_id|>\n\ntwo<|eot_id|>"
    )
    assert written.ids.tolist().count(128000) == 1


def test_it_is_read_at_the_last_token_also_where_padding_has_its_id(scorer):
    assert scorer.model.backbone.tokenizer.pad_token == "<|eot_id|>"
    for rollout in ROLLOUTS:
        written = scorer.write(rollout)
        assert written.positions == (len(written.ids) - 1,)
        assert written.ids[-1] == 128009


def test_the_score_is_what_the_card_s_code_gives_one_by_one(scorer, model):
    tokenizer = releases.llama_tokenizer()
    model.config.pad_token_id = 128005  # not the end of the turn, which the class would take for padding
    scores, _ = scorer.score_rollouts(ROLLOUTS)
    for index, rollout in enumerate(ROLLOUTS):
        turns = [{"role": "user", "content": rollout.prompt}, {"role": "assistant", "content": rollout.response}]
        ids = tokenizer.apply_chat_template(turns, tokenize=True, return_tensors="pt", return_dict=False)
        with torch.no_grad():
            assert scores[index].score == near(model(ids).logits[0][0].item())
        assert scores[index].step_scores is None
        assert scores[index].steps == ()


def test_neither_batch_nor_padding_changes_a_score(scorer):
    together, _ = scorer.score_rollouts(ROLLOUTS)
    for index, rollout in enumerate(ROLLOUTS):
        assert together[index].score == near(scorer.score_rollouts([rollout])[0][0].score)


def test_a_conversation_is_taken_as_it_is(scorer):
    prompt = ({"role": "system", "content": "Be brief."}, {"role": "user", "content": "One?"})
    assert "\n\nBe brief.<|eot_id|>" in scorer.write(replace(one("two"), prompt=prompt)).text


def test_a_response_goes_on_from_the_assistants_last_words(scorer):
    prompt = ({"role": "user", "content": "One?"}, {"role": "assistant", "content": "One and one: "})
    begun = scorer.write(replace(one("two"), prompt=prompt))
    assert begun.text == scorer.write(one("One and one: two")).text


def test_a_language_model_yields_no_rewards(tmp_path):
    folder = save_released(tmp_path, seeded(releases.llama), releases.llama_tokenizer())
    with pytest.raises(ModelError, match=r"a LlamaForCausalLM, but skywork_reward is a \*ForSequenceClassification"):
        PLUGIN.load(ScorerSource(source=str(folder), options=CPU))


def test_a_classifier_of_several_labels_is_refused(tmp_path):
    folder = save_released(tmp_path, seeded(lambda: releases.llama(labels=2)), releases.llama_tokenizer())
    with pytest.raises(ModelError, match=r"score\.weight is \(2, 16\), but skywork_reward .* has \(1, 16\)"):
        PLUGIN.load(ScorerSource(source=str(folder), options=CPU))


def test_a_tokenizer_without_chat_template_is_refused(tmp_path, model):
    folder = save_released(tmp_path, model, releases.llama_tokenizer(chat_template=None))
    with pytest.raises(ModelError, match="no chat template, which the recipe needs"):
        PLUGIN.load(ScorerSource(source=str(folder), options=CPU)).score_rollouts(ROLLOUTS)


def test_what_makes_no_sense_for_it_is_refused(scorer):
    with pytest.raises(ConfigError, match="would cut off what is read"):
        scorer.score_rollouts(ROLLOUTS, ScoringOptions(too_long="truncate"))
    with pytest.raises(ConfigError, match="scores with one model"):
        PLUGIN.load(ScorerSource(source="anywhere", reference="another"))
