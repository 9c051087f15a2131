import json

import pytest
import torch

import releases
from freeprm.errors import ModelError
from freeprm.models.loading import LoadOptions
from freeprm.scorers import eurus_prm_stage1, eurus_prm_stage2
from freeprm.scorers.base import ScorerSource, ScoringOptions
from releases import ROLLOUTS, one, save_released, seeded
from rounding import near

CPU = LoadOptions(device="cpu")
PLUGIN = eurus_prm_stage1.PLUGIN


@pytest.fixture(scope="module")
def models():
    return seeded(releases.qwen, seed=1), seeded(releases.qwen, seed=2)


@pytest.fixture(scope="module")
def folders(models, tmp_path_factory):
    made = [tmp_path_factory.mktemp(name) for name in ("policy", "reference")]
    return [save_released(folder, model, releases.qwen_tokenizer()) for folder, model in zip(made, models, strict=True)]


@pytest.fixture(scope="module")
def scorer(folders):
    return PLUGIN.load(ScorerSource(source=str(folders[0]), reference=str(folders[1]), options=CPU))


def test_it_scores_with_the_card_s_constants():
    assert (PLUGIN.beta, PLUGIN.reference) == (0.001, "Qwen/Qwen2.5-Math-7B-Instruct")
    assert (PLUGIN.aggregation, eurus_prm_stage2.PLUGIN.aggregation) == ("min", "last")
    assert eurus_prm_stage2.PLUGIN.name == "eurus_prm_stage2"


@torch.no_grad()
def test_scores_are_the_accumulated_log_ratio_at_each_step_s_end(scorer, models):
    scores, counts = scorer.score_rollouts(ROLLOUTS)
    tokenizer = releases.qwen_tokenizer()
    for index, rollout in enumerate(ROLLOUTS):
        turns = [{"role": "user", "content": rollout.prompt}, {"role": "assistant", "content": rollout.response}]
        text = tokenizer.apply_chat_template(turns, tokenize=False).rstrip()
        head = len(text) - len(rollout.response + "<|im_end|>")
        read = tokenizer(text, return_offsets_mapping=True)
        ids = torch.tensor([read["input_ids"]])
        logps = [model(ids).logits.log_softmax(-1)[0, :-1].gather(1, ids[0, 1:, None])[:, 0] for model in models]
        ratio = 0.001 * (logps[0] - logps[1])
        for step, value in zip(scores[index].steps, scores[index].step_scores, strict=True):
            last = step is scores[index].steps[-1]
            inside = [head <= start and (last or start < head + step.stop) for start, _ in read["offset_mapping"][1:]]
            assert value == near(ratio[torch.tensor(inside)].sum().item())
    assert not counts


def test_neither_batch_nor_padding_changes_a_score(scorer):
    together, _ = scorer.score_rollouts(ROLLOUTS)
    for index, rollout in enumerate(ROLLOUTS):
        alone, _ = scorer.score_rollouts([rollout], ScoringOptions(token_budget=1))
        assert together[index].step_scores == near(alone[0].step_scores)


def test_its_splitter_and_the_steps_of_the_row_are_taken(scorer):
    assert scorer.about.splitter == "auto"
    scores, _ = scorer.score_rollouts([one("a\nb\nc", steps=["a", "b\nc"])])
    assert len(scores[0].step_scores) == 2


def test_its_identity_names_both_models(scorer):
    identity = json.loads(json.dumps(scorer.identity()))
    assert identity["scorer"] == "eurus_prm_stage1"
    assert identity["beta"] == 0.001
    assert identity["policy_sha256"] != identity["reference_sha256"]


def test_a_reference_of_another_vocabulary_is_refused(folders, tmp_path):
    other = save_released(tmp_path, seeded(releases.llama), releases.llama_tokenizer())
    with pytest.raises(ModelError, match="the tokenizers of policy and reference differ"):
        PLUGIN.load(ScorerSource(source=str(folders[0]), reference=str(other), options=CPU))
