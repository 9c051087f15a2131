from dataclasses import replace

import pytest
import torch

import releases
from freeprm.errors import DataError, ModelError, SpanError
from freeprm.models.loading import LoadOptions
from freeprm.scorers.base import ScorerSource, ScoringOptions
from freeprm.scorers.math_shepherd import PLUGIN
from releases import ROLLOUTS, one, save_released, seeded
from rounding import near

CPU = LoadOptions(device="cpu")
TEXT = "What is 3 + 4 - 2? Step 1: 3 + 4 is 7. ки\n\nStep 2: 7 - 2 is 5.\n\nThe answer is 5. ки"


@pytest.fixture(scope="module")
def model():
    return seeded(releases.mistral)


@pytest.fixture(scope="module")
def scorer(model, tmp_path_factory):
    folder = save_released(tmp_path_factory.mktemp("math_shepherd"), model, releases.mistral_tokenizer())
    return PLUGIN.load(ScorerSource(source=str(folder), options=CPU))


def test_a_marker_stands_after_each_step_and_before_the_whitespace_that_ends_it(scorer):
    assert scorer.write(ROLLOUTS[0]).text == TEXT


def test_the_text_without_its_markers_is_question_and_response(scorer):
    for rollout in ROLLOUTS:
        assert scorer.write(rollout).text.replace(" ки", "") == f"{rollout.prompt} {rollout.response}"


def test_it_is_read_at_the_markers_and_at_nothing_else(scorer):
    written = scorer.write(ROLLOUTS[0])
    assert written.ids.tolist() == releases.mistral_tokenizer().encode(TEXT)  # with <s>, as the card's code has it
    assert [index for index, token in enumerate(written.ids) if token == 12902] == list(written.positions)
    assert len(written.positions) == len(written.steps) == 2


def test_one_pass_gives_what_the_card_s_code_gives_step_by_step(scorer, model):
    scores, counts = scorer.score_rollouts(ROLLOUTS)
    tokenizer = releases.mistral_tokenizer()
    for index, rollout in enumerate(ROLLOUTS):
        parts = scorer.write(rollout).text.split("ки")[:-1]
        for step, expected in enumerate(scores[index].step_scores):
            ids = torch.tensor([tokenizer.encode("ки".join(parts[: step + 1]) + "ки")])
            logits = model(ids).logits[:, :, [648, 387]]
            assert logits.softmax(-1)[:, :, 0][ids == 12902][-1].item() == near(expected)
    assert not counts


def test_neither_batch_nor_padding_changes_a_score(scorer):
    together, _ = scorer.score_rollouts(ROLLOUTS)
    for index, rollout in enumerate(ROLLOUTS):
        alone, _ = scorer.score_rollouts([rollout], ScoringOptions(token_budget=1))
        assert together[index].step_scores == near(alone[0].step_scores)


def test_scores_are_probabilities_one_a_step(scorer):
    scores, _ = scorer.score_rollouts(ROLLOUTS)
    assert [len(scores[index].step_scores) for index in range(3)] == [2, 1, 2]
    assert all(0 < value < 1 for item in scores.values() for value in item.step_scores)


def test_steps_of_the_row_come_before_the_splitter(scorer):
    rollout = one("a\nb\nc", steps=["a", "b\nc"])
    assert scorer.write(rollout).text == "One? a ки\nb\nc ки"
    with pytest.raises(SpanError, match="problem 'p', sample 3: step 1"):
        scorer.score_rollouts([one("a\nb\nc", steps=["a", "c"])])


def test_a_response_without_any_marker_gets_its_markers(scorer):
    scores, _ = scorer.score_rollouts([one("only this")])
    assert len(scores[0].step_scores) == 1


@pytest.mark.parametrize("text", ["Step 1: a ки\nStep 2: b ки", "a. ки", "ки"])
def test_a_response_that_brings_markers_is_refused_with_what_to_do(scorer, text):
    with pytest.raises(DataError, match=r"sample 3: the response holds the step marker 'ки' at character .* 'steps'"):
        scorer.score_rollouts([one(text)])
    with pytest.raises(DataError, match="the prompt holds the step marker"):
        scorer.score_rollouts([one("a", prompt=text)])


def test_the_marker_s_letters_inside_a_word_are_no_marker(scorer):
    written = scorer.write(one("a кии"))  # `▁ки` and `и`: the marker's own token, inside a word
    assert 12902 in written.ids[: written.positions[0]]
    assert len(written.positions) == 1


def test_another_tokenizer_is_refused(tmp_path, model):
    # Ids as in a vocabulary where the marker with a space before it is another token than without.
    folder = save_released(tmp_path, model, releases.mistral_tokenizer(**{"▁ки": 12903}))
    with pytest.raises(ModelError, match=r"'ки' is token 12903, but math_shepherd is read by token 12902"):
        PLUGIN.load(ScorerSource(source=str(folder), options=CPU))


def test_a_marker_that_splits_is_refused(tmp_path, model):
    folder = save_released(tmp_path, model, releases.llama_tokenizer())
    with pytest.raises(ModelError, match=r"'ки' splits into \[.*\], but math_shepherd is read by token 12902"):
        PLUGIN.load(ScorerSource(source=str(folder), options=CPU))


def test_a_marker_that_becomes_another_token_in_its_place_is_refused(scorer):
    glued = replace(scorer, recipe=replace(PLUGIN, form=replace(PLUGIN.form, before="")))  # `ки` is 1107, not 12902
    with pytest.raises(ModelError, match=r"became tokens \[1107\], but the model is read at token 12902"):
        glued.score_rollouts([one("abc")])


def test_a_classifier_is_refused(tmp_path):
    model = seeded(lambda: releases.llama(labels=1))
    folder = save_released(tmp_path, model, releases.llama_tokenizer())
    with pytest.raises(ModelError, match="a LlamaForSequenceClassification, but math_shepherd is a causal language"):
        PLUGIN.load(ScorerSource(source=str(folder), options=CPU))


def test_a_conversation_is_refused_and_one_user_turn_is_the_question(scorer):
    turn = {"role": "user", "content": "One?"}
    rollout = replace(one("two"), prompt=(turn,))
    assert scorer.write(rollout).text == "One? two ки"
    with pytest.raises(DataError, match="a conversation of system, user"):
        scorer.score_rollouts([replace(rollout, prompt=({"role": "system", "content": "s"}, turn))])
