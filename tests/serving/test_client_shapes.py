"""What clients of OpenRLHF and vLLM send is scored as it stands, without a second beginning or template."""

import pytest

from freeprm.models.encoding import encode
from freeprm.models.prompts import render_prompt
from freeprm.scorers.base import Scorer, rollouts_of
from held import Held
from tiny import LLAMA3, tokenizer

ASKED, SAID = "the sum of 3 and 4?", "Step 1: we add.\nStep 2: so 7"
HEAD = "<s><|start_header_id|>user<|end_header_id|>\n\nthe sum of 3 and 4?<|eot_id|>" + (
    "<|start_header_id|>assistant<|end_header_id|>\n\n"
)


def test_the_head_is_what_the_template_makes():
    assert render_prompt(tokenizer(template=LLAMA3), ASKED) == HEAD


@pytest.mark.parametrize("with_prompts", [True, False])
@pytest.mark.parametrize("behind", ["<|eot_id|>", "<|eot_id|><|eot_id|><|eot_id|>", ""])
def test_a_decoded_sequence_earns_the_reward_of_its_response(
    client_of, scorer: Scorer, behind: str, with_prompts: bool
):
    body = {"query": [HEAD + SAID + behind], "labels": ["7"], **({"prompts": [HEAD]} if with_prompts else {})}
    answer = client_of(scorer).post("/get_reward?reward=outcome", json=body).json()
    offline, _ = scorer.score_rollouts(rollouts_of(ASKED, [SAID], truncated=not behind))
    assert answer["rewards"] == pytest.approx([offline[0].reward], abs=1e-5)
    # No token more or less: a second <s>, or a header of its own, would be one.
    n_tokens = len(encode(tokenizer(template=LLAMA3), rollouts_of(ASKED, [SAID], truncated=not behind))[0].ids)
    assert answer["extra_logs"] == {"n_tokens": [n_tokens], "n_steps": [2]}


def test_the_scalar_is_the_one_that_was_asked_for(client_of, scorer: Scorer):
    client = client_of(scorer)
    offline = scorer.score(ASKED, [SAID])[0]  # type: ignore[attr-defined]  # a log-ratio has it
    body = {"query": [HEAD + SAID + "<|eot_id|>"], "prompts": [HEAD]}
    expected = {
        "": min(offline.step_rewards), "?reward=outcome": offline.reward, "?reward=last": offline.step_rewards[-1],
        "?reward=p_correct": offline.p_correct[-1],
    }  # fmt: skip
    for which, value in expected.items():
        answer = client.post(f"/get_reward{which}", json=body).json()
        assert answer["rewards"] == pytest.approx([value], abs=1e-5)
        assert answer["scores"] == pytest.approx([offline.p_correct[-1]], abs=1e-5)
    assert "Did you mean 'min'" in client.post("/get_reward?reward=minn", json=body).text


@pytest.mark.parametrize(
    ("body", "told"),
    [
        ({"query": ["no header"]}, "text 0: no response in 'no header'; expected the header"),
        ({"query": [HEAD + SAID, HEAD]}, "text 1: no response"),
        ({"query": [HEAD + SAID], "prompts": []}, "0 prompts of 1 queries"),
        ({"queries": [HEAD + SAID]}, "query: Field required"),
    ],
)
def test_a_sequence_without_response_is_named(client_of, scorer: Scorer, body: object, told: str):
    answer = client_of(scorer).post("/get_reward", json=body)
    assert answer.status_code == 400
    assert told in answer.json()["error"]["message"]


def test_a_scorer_that_writes_around_the_question_itself_refuses_texts_and_takes_messages(client_of):
    client = client_of(Held())
    refused = client.post("/get_reward", json={"query": [HEAD + SAID]})
    assert refused.status_code == 400
    assert "as messages" in refused.json()["error"]["message"]
    turns = [{"role": "user", "content": ASKED}, {"role": "assistant", "content": "abc"}]
    answer = client.post("/classify", json={"messages": turns}).json()
    assert answer["data"] == [{"index": 0, "label": None, "probs": [3.0], "num_classes": 1}]
    assert client.post("/pooling", json={"messages": turns}).json()["data"][0]["data"] == [[3.0]]


def test_pooling_gives_the_step_rewards_of_texts_and_of_messages(client_of, scorer: Scorer):
    offline = scorer.score(ASKED, [SAID])[0]  # type: ignore[attr-defined]  # a log-ratio has it
    turns = [{"role": "user", "content": ASKED}, {"role": "assistant", "content": SAID}]
    # verl takes the beginning-of-sequence token off the text, since vLLM puts one before it.
    texts = [HEAD + SAID + "<|eot_id|>", HEAD.removeprefix("<s>") + SAID + "<|eot_id|>"]
    for body in ({"input": texts[0]}, {"input": texts}, {"messages": turns}):
        answer = client_of(scorer).post("/pooling", json={"model": "any", "task": "token_classify", **body}).json()
        assert answer["object"] == "list"
        for index, item in enumerate(answer["data"]):
            assert (item["index"], item["object"]) == (index, "pooling")
            assert [row for (row,) in item["data"]] == pytest.approx(offline.step_rewards, abs=1e-5)


def test_classify_gives_a_probability_or_the_score_as_it_stands(client_of, scorer: Scorer):
    client = client_of(scorer)
    offline = scorer.score(ASKED, [SAID])[0]  # type: ignore[attr-defined]  # a log-ratio has it
    p = offline.p_correct[-1]
    asked = {"input": HEAD + SAID + "<|eot_id|>"}
    item = client.post("/classify", json=asked).json()["data"][0]
    assert item["probs"] == pytest.approx([1 - p, p], abs=1e-5)
    assert (item["num_classes"], item["label"]) == (2, "correct" if p > 0.5 else "wrong")
    for name in ("use_activation", "activation"):
        item = client.post("/classify", json={**asked, name: False}).json()["data"][0]
        assert item["probs"] == pytest.approx([min(offline.step_rewards)], abs=1e-5)


@pytest.mark.parametrize(
    ("body", "told"),
    [
        ({}, "expected one of `input`"),
        ({"input": "x", "messages": []}, "expected one of `input`"),
        ({"messages": [{"role": "user", "content": "x"}]}, "expected one of the role assistant"),
        ({"messages": [{"role": "assistant", "content": "x"}]}, "messages: is empty"),
    ],
)
def test_a_conversation_without_response_is_refused(client_of, scorer: Scorer, body: object, told: str):
    answer = client_of(scorer).post("/pooling", json=body)
    assert answer.status_code == 400
    assert told in answer.json()["error"]["message"]
