import pytest
import torch

import releases
from freeprm.core.steps import lines
from freeprm.errors import ModelError, SpanError
from freeprm.models.heads import ValueHead
from freeprm.models.loading import LoadOptions
from freeprm.scorers.base import ScorerSource, ScoringOptions
from freeprm.scorers.skywork_o1_prm import PLUGIN
from releases import ROLLOUTS, one, save_released, seeded
from rounding import near

CPU = LoadOptions(device="cpu")
BOS = "<|endoftext|>"


@pytest.fixture(scope="module")
def tokenizer():
    return releases.qwen_tokenizer(bos_token=BOS)


@pytest.fixture(scope="module")
def model():
    return seeded(releases.qwen)


@pytest.fixture(scope="module")
def head(model):
    return seeded(lambda: ValueHead(model.config).eval(), seed=1)


@pytest.fixture(scope="module")
def scorer(model, tokenizer, head, tmp_path_factory):
    folder = save_released(
        tmp_path_factory.mktemp("skywork_o1"), model, tokenizer, architecture="Qwen2ForPrmModel",
        head={**head.state_dict(), "lm_head.weight": model.lm_head.weight.detach()},
    )  # fmt: skip
    return PLUGIN.load(ScorerSource(source=str(folder), options=CPU))


def theirs(tokenizer, problem, response):
    """Ids and flags as the authors' input has them: a break after each line, blank ones included."""
    ids = tokenizer.encode(tokenizer.bos_token + problem + "\n")
    flags = [0] * len(ids)
    for line in response.split("\n"):
        part = (tokenizer.encode(line) if line else []) + [198]
        ids += part
        flags += [0] * (len(part) - 1) + [1]
    return ids, flags


def test_the_ids_are_the_authors(scorer, tokenizer):
    for rollout in ROLLOUTS:
        ids, _ = theirs(tokenizer, rollout.prompt, rollout.response)
        assert scorer.write(rollout).ids.tolist() == ids


def test_the_text_is_question_and_response_in_lines(scorer):
    assert scorer.write(ROLLOUTS[1]).text == BOS + "What is 3 + 4 - 2?\nStep 1: It is 9.\n"


def test_it_is_read_at_the_authors_flags_of_lines_with_text(scorer, tokenizer):
    rollout = ROLLOUTS[0]
    _, flags = theirs(tokenizer, rollout.prompt, rollout.response)
    flagged = [index for index, flag in enumerate(flags) if flag]
    with_text = [at for at, line in zip(flagged, rollout.response.split("\n"), strict=True) if line]
    written = scorer.write(rollout)
    assert list(written.positions) == with_text
    assert all(written.ids[at] == 198 for at in written.positions)


def test_one_pass_gives_what_the_authors_code_gives_one_by_one(scorer, model, head, tokenizer):
    scores, _ = scorer.score_rollouts(ROLLOUTS)
    for index, rollout in enumerate(ROLLOUTS):
        ids, flags = theirs(tokenizer, rollout.prompt, rollout.response)
        values = head(model(torch.tensor([ids]), output_hidden_states=True).hidden_states[-1])[0, :, 0].sigmoid()
        slow = [values[at].item() for at, flag in enumerate(flags) if flag]
        slow = [value for value, line in zip(slow, rollout.response.split("\n"), strict=True) if line]
        assert scores[index].step_scores == near(slow)


def test_neither_batch_nor_padding_changes_a_score(scorer):
    together, _ = scorer.score_rollouts(ROLLOUTS)
    for index, rollout in enumerate(ROLLOUTS):
        alone, _ = scorer.score_rollouts([rollout], ScoringOptions(token_budget=1))
        assert together[index].step_scores == near(alone[0].step_scores)


def test_steps_of_several_lines_are_read_where_they_end(scorer):
    written = scorer.write(one("a\nb\n\nc", steps=["a\nb", "c"]))
    assert len(written.positions) == 2
    breaks = [at for at, token in enumerate(written.ids) if token == 198]  # after the question, a, b, nothing, c
    assert list(written.positions) == [breaks[2], breaks[4]]


def test_a_step_that_ends_inside_a_line_is_refused(scorer):
    with pytest.raises(SpanError, match="sample 3: a step ends at character 5, inside a line"):
        scorer.score_rollouts([one("One a. Two b.", steps=["One a", ". Two b."])])


def test_a_model_without_a_value_head_is_refused(tmp_path, model, tokenizer):
    folder = save_released(tmp_path, model, tokenizer, architecture="Qwen2ForRewardModel")
    with pytest.raises(ModelError, match=r"no weight v_head\.summary\.(weight|bias), which skywork_o1_prm"):
        PLUGIN.load(ScorerSource(source=str(folder), options=CPU))


def test_a_tokenizer_without_beginning_is_refused(tmp_path, model, head):
    folder = save_released(
        tmp_path, model, releases.qwen_tokenizer(), architecture="Qwen2ForPrmModel", head=head.state_dict()
    )
    with pytest.raises(ModelError, match="no beginning-of-sequence token"):
        PLUGIN.load(ScorerSource(source=str(folder), options=CPU)).score_rollouts(ROLLOUTS)


def test_it_writes_the_authors_ids_on_the_real_tokenizer(qwen_tokenizer, monkeypatch):
    monkeypatch.setitem(qwen_tokenizer._special_tokens_map, "bos_token", BOS)  # shared with other tests
    rollout = one("1. **First.**\n   It is 3.\n\n2. Then 4.")
    ids, _ = theirs(qwen_tokenizer, "One?", rollout.response)
    written = PLUGIN.form.write(qwen_tokenizer, rollout, lines(rollout.response))
    assert written.ids.tolist() == ids
    assert written.ids[list(written.positions)].tolist() == [198] * 3
