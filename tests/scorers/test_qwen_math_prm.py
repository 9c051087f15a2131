import json
from dataclasses import replace

import pytest
import torch

import releases
from freeprm.core.steps import blank_lines
from freeprm.errors import DataError, ModelError
from freeprm.models.heads import TwoLabelHead
from freeprm.models.loading import LoadOptions
from freeprm.models.scoring_input import check_tokens
from freeprm.scorers.base import ScorerSource, ScoringOptions
from freeprm.scorers.qwen_math_prm import PLUGIN
from releases import ROLLOUTS, one, save_released, seeded
from rounding import near

CPU = LoadOptions(device="cpu")
TEXT = (
    "<|im_start|>system\nPlease reason step by step, and put your final answer within \\boxed{}.<|im_end|>\n"
    "<|im_start|>user\nWhat is 3 + 4 - 2?<|im_end|>\n"
    "<|im_start|>assistant\nStep 1: 3 + 4 is 7.<extra_0>Step 2: 7 - 2 is 5.<extra_0>The answer is 5.<extra_0>"
    "<|im_end|>\n"
)


@pytest.fixture(scope="module")
def tokenizer():
    return releases.qwen_tokenizer()


@pytest.fixture(scope="module")
def model():
    return seeded(releases.qwen)


@pytest.fixture(scope="module")
def head(model):
    return seeded(lambda: TwoLabelHead(model.config).eval(), seed=1)


def save(folder, model, tokenizer, head, **config):
    return save_released(
        folder, model, tokenizer, architecture="Qwen2ForProcessRewardModel", head=head.state_dict(), **config
    )


@pytest.fixture(scope="module")
def scorer(model, tokenizer, head, tmp_path_factory):
    return PLUGIN.load(
        ScorerSource(source=str(save(tmp_path_factory.mktemp("qwen"), model, tokenizer, head)), options=CPU)
    )


def test_the_text_is_the_card_s(scorer):
    assert scorer.write(ROLLOUTS[0]).text == TEXT


def test_it_is_read_at_token_151651_after_each_step(scorer):
    written = scorer.write(ROLLOUTS[0])
    assert [index for index, token in enumerate(written.ids) if token == 151651] == list(written.positions)
    assert len(written.positions) == len(written.steps) == 3


def test_one_pass_gives_what_the_card_s_code_gives(scorer, model, head, tokenizer):
    scores, _ = scorer.score_rollouts(ROLLOUTS)
    for index, rollout in enumerate(ROLLOUTS):
        steps = rollout.response.split("\n\n")
        for k, expected in enumerate(scores[index].step_scores):  # step by step, each prefix by itself
            messages = [
                {"role": "system", "content": PLUGIN.form.system},
                {"role": "user", "content": rollout.prompt},
                {"role": "assistant", "content": "<extra_0>".join(steps[: k + 1]) + "<extra_0>"},
            ]
            ids = torch.tensor([tokenizer.encode(tokenizer.apply_chat_template(messages, tokenize=False))])
            probabilities = head(model.model(ids).last_hidden_state).softmax(-1)
            slow = probabilities[ids == tokenizer.encode("<extra_0>")[0]][-1, 1].item()
            assert expected == near(slow)


def test_neither_batch_nor_padding_changes_a_score(scorer):
    together, _ = scorer.score_rollouts(ROLLOUTS)
    for index, rollout in enumerate(ROLLOUTS):
        alone, _ = scorer.score_rollouts([rollout], ScoringOptions(token_budget=1))
        assert together[index].step_scores == near(alone[0].step_scores)


def test_a_response_or_prompt_with_the_marker_is_refused(scorer):
    with pytest.raises(DataError, match="the response holds the step marker '<extra_0>' at character 1"):
        scorer.score_rollouts([one("a<extra_0>b")])
    with pytest.raises(DataError, match="the prompt holds the step marker '<extra_0>' at character 0"):
        scorer.score_rollouts([one("a", prompt="<extra_0>?")])


def test_the_tokenizer_of_the_base_model_is_refused(tmp_path, model, head):
    folder = save(tmp_path, model, releases.qwen_tokenizer(marker="<|quad_end|>"), head)
    with pytest.raises(ModelError, match=r"'<extra_0>' splits into \[.*\], but qwen_math_prm is read by token 151651"):
        PLUGIN.load(ScorerSource(source=str(folder), options=CPU))


def test_it_writes_and_reads_the_same_on_the_real_tokenizer(qwen_tokenizer):
    with pytest.raises(ModelError, match="'<extra_0>' splits into"):
        check_tokens(qwen_tokenizer, PLUGIN.tokens, recipe=PLUGIN.name)
    # What the reward model's tokenizer calls <extra_0> has another name there, and the same id.
    form = replace(PLUGIN.form, marker="<|quad_end|>")
    steps = blank_lines(ROLLOUTS[0].response)
    written = form.write(qwen_tokenizer, ROLLOUTS[0], steps)
    assert written.text == TEXT.replace("<extra_0>", "<|quad_end|>")
    assert written.ids[list(written.positions)].tolist() == [151651] * 3


def test_a_language_model_yields_no_rewards(tmp_path, model, tokenizer):
    folder = save_released(tmp_path, model, tokenizer)
    with pytest.raises(ModelError, match="a Qwen2ForCausalLM, but qwen_math_prm is a Qwen2ForProcessRewardModel"):
        PLUGIN.load(ScorerSource(source=str(folder), options=CPU))


def test_a_language_model_under_the_right_name_yields_none_either(tmp_path, model, tokenizer):
    folder = save_released(tmp_path, model, tokenizer, architecture="Qwen2ForProcessRewardModel")
    with pytest.raises(ModelError, match=r"no weight score\.0\.weight, which qwen_math_prm"):
        PLUGIN.load(ScorerSource(source=str(folder), options=CPU))


def test_a_head_of_another_shape_is_refused(tmp_path, model, tokenizer, head):
    state = head.state_dict() | {"score.2.weight": torch.zeros(5, 16)}
    folder = save_released(tmp_path, model, tokenizer, architecture="Qwen2ForProcessRewardModel", head=state)
    with pytest.raises(ModelError, match=r"score\.2\.weight is \(5, 16\), but qwen_math_prm .* has \(2, 16\)"):
        PLUGIN.load(ScorerSource(source=str(folder), options=CPU))


def test_the_repository_s_code_is_neither_needed_nor_run(tmp_path, model, tokenizer, head, scorer):
    own = {"AutoConfig": "configuration_qwen2_rm.Qwen2RMConfig", "AutoModel": "modeling_qwen2_rm.Absent"}
    folder = save(tmp_path, model, tokenizer, head, auto_map=own)
    (folder / "configuration_qwen2_rm.py").write_text("raise SystemExit('run')")
    (folder / "modeling_qwen2_rm.py").write_text("raise SystemExit('run')")
    assert json.loads((folder / "config.json").read_text())["auto_map"] == own
    loaded = PLUGIN.load(ScorerSource(source=str(folder), options=CPU))
    assert loaded.score_rollouts(ROLLOUTS)[0] == scorer.score_rollouts(ROLLOUTS)[0]


def test_a_model_type_that_transformers_does_not_know_is_read_as_what_it_is(tmp_path, model, tokenizer, head, scorer):
    folder = save(tmp_path, model, tokenizer, head, model_type="qwen2_rm")
    assert (
        PLUGIN.load(ScorerSource(source=str(folder), options=CPU)).score_rollouts(ROLLOUTS)[0]
        == scorer.score_rollouts(ROLLOUTS)[0]
    )
