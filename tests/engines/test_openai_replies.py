"""What a server answers, read as samples: field by field as the servers' own documentation has them."""

from typing import Any

import pytest

from freeprm.engines.base import Sampled, SamplingParams
from freeprm.engines.openai import replies
from freeprm.engines.openai.calls import Call, Form
from freeprm.engines.openai.replies import AttemptError, ServerReply, WithheldError
from freeprm.errors import ModelError


def call(n: int = 1) -> Call:
    return Call(problem_id="p", prompt="?", sample_idxs=tuple(range(10, 10 + n)))


def form(*, stop: tuple[str, ...] = (), reasoning: Any = None) -> Form:
    return Form(model="m", api="chat", template="{prompt}", params=SamplingParams(stop=stop), reasoning=reasoning)


def reply(*choices: dict[str, Any], limit: int | None = 20, usage: Any = None, **settings: Any) -> ServerReply:
    answer = {"choices": list(choices), **({"usage": usage} if usage is not None else {})}
    return replies.read(answer, call(max(1, len(choices))), form(**settings), limit=limit)


def read(*choices: dict[str, Any], **settings: Any) -> list[Sampled]:
    return reply(*choices, **settings).samples


def choice(text: str | None = "4", *, finish: str | None = "stop", **fields: Any) -> dict[str, Any]:
    message = {"role": "assistant", "content": text, **fields.pop("message", {})}
    return {"index": 0, "message": message, "finish_reason": finish, **fields}


def test_choices_become_samples_in_their_order():
    found = read(choice("b", index=1), choice("a", index=0))
    assert [(sampled.sample_idx, sampled.text) for sampled in found] == [(10, "a"), (11, "b")]


def test_completions_have_their_text_beside_the_choice():
    (sampled,) = read({"index": 0, "text": " 4", "finish_reason": "stop"})
    assert sampled.text == " 4"


@pytest.mark.parametrize(
    ("fields", "reason"),
    [
        ({"finish": "stop"}, "end"),
        ({"finish": "stop", "stop_reason": None}, "end"),  # vLLM: the end of the turn
        ({"finish": "stop", "stop_reason": 128009}, "end"),  # vLLM: a token that ends the turn
        ({"finish": "stop", "stop_reason": "\nQ:"}, "stop"),  # vLLM: a stop text, which is not in the text
        ({"finish": "stop", "matched_stop": "\nQ:"}, "stop"),  # SGLang
        ({"finish": "stop_sequence"}, "stop"),  # Anthropic's models behind a gateway
        ({"finish": "eos_token"}, "end"),  # text-generation-inference
        ({"finish": "end_turn"}, "end"),
        ({"finish": "STOP"}, "end"),  # Gemini behind a gateway
        ({"finish": "length"}, "length"),
        ({"finish": "max_tokens"}, "length"),
        ({"finish": "MAX_TOKENS"}, "length"),
        ({"finish": "model_length"}, "length"),  # Mistral
    ],
)
def test_the_reason_of_the_end_is_told_apart(fields: dict[str, Any], reason: str):
    (sampled,) = read(choice(**fields), stop=("\nQ:",))
    assert sampled.stop_reason == reason
    assert sampled.truncated == (reason == "length")


def test_a_stop_text_that_the_server_left_in_is_cut_off():
    (sampled,) = read(choice("4\nQ: 5", finish="length"), stop=("5", "\nQ:"))
    assert (sampled.text, sampled.stop_reason) == ("4", "stop")


def test_fewer_tokens_than_allowed_mean_that_the_context_was_full():
    usage = {"prompt_tokens": 30, "completion_tokens": 12}
    assert read(choice(finish="length"), usage=usage)[0].stop_reason == "context"
    assert read(choice(finish="length"), usage=usage, limit=12)[0].stop_reason == "length"
    assert read(choice(finish="length"), usage=usage, limit=None)[0].stop_reason == "length"


@pytest.mark.filterwarnings("ignore:the server does not say why")
def test_an_end_that_is_not_told_is_read_from_the_tokens_or_refused_at_once():
    absent = choice()
    del absent["finish_reason"]
    for untold in (absent, choice(finish=None)):
        (whole,) = read(untold, usage={"completion_tokens": 12.0})  # 12 of 20 tokens; some servers count in floats
        (cut,) = read(untold, usage={"completion_tokens": 20})
        assert (whole.stop_reason, cut.stop_reason) == ("end", "length")
        with pytest.raises(ModelError, match="'p': the server does not say why the response ended; expected finish_"):
            read(untold)
    with pytest.raises(ModelError, match="'p': the server ended it by 'paused'; expected finish_reason 'stop' or 'le"):
        read(choice(finish="paused"), usage={"completion_tokens": 5})


def test_half_a_surrogate_pair_is_replaced_and_a_pair_is_one_character():
    (sampled,) = read(choice("a \ud83d b \ud83d\ude00"))
    assert sampled.text == "a \ufffd b \U0001f600"
    (sampled,) = read(choice("4", message={"reasoning": "\ud83d"}), reasoning="join")
    assert sampled.text == "<think>\n\ufffd\n</think>\n\n4"


def test_a_text_in_parts_is_joined():
    parts = [{"type": "text", "text": "It is "}, {"type": "text", "text": "4"}]
    assert read(choice(parts))[0].text == "It is 4"
    thinking = {"type": "thinking", "thinking": [{"type": "text", "text": "2 + 2"}]}  # as Mistral's models give it
    assert read(choice([thinking, *parts]), reasoning="join")[0].text == "<think>\n2 + 2\n</think>\n\nIt is 4"


def test_tokens_and_log_probabilities_are_taken_where_both_are_given():
    logprobs = {"content": [{"token": "4", "logprob": -0.5}, {"token": "", "logprob": -1}]}
    (sampled,) = read(choice(token_ids=[7, 2], logprobs=logprobs))
    assert (sampled.token_ids, sampled.token_logprobs, sampled.n_generated_tokens) == ((7, 2), (-0.5, -1.0), 2)
    (sampled,) = read({"index": 0, "text": "4", "finish_reason": "stop", "logprobs": {"token_logprobs": [-0.5]}})
    assert (sampled.token_ids, sampled.token_logprobs, sampled.n_generated_tokens) == (None, None, 1)
    (sampled,) = read(choice(token_ids=[7, 2, 3], logprobs=logprobs))
    assert (sampled.token_ids, sampled.token_logprobs) == ((7, 2, 3), None)


def test_what_the_server_does_not_count_is_not_known():
    (sampled,) = read(choice())
    assert (sampled.n_prompt_tokens, sampled.n_generated_tokens) == (None, None)
    (sampled,) = read(choice(), usage={"prompt_tokens": "many", "completion_tokens": True})
    assert (sampled.n_prompt_tokens, sampled.n_generated_tokens) == (None, None)
    assert reply(choice(), usage="none").n_tokens is None
    assert reply(choice(), usage={"total_tokens": 9}).n_tokens == 9


def test_a_refusal_is_what_the_model_said_and_no_text_is_an_empty_response():
    assert read(choice(None, message={"refusal": "I cannot."}))[0].text == "I cannot."
    assert read(choice(None))[0].text == ""


@pytest.mark.parametrize("name", ["reasoning", "reasoning_content"])
def test_reasoning_apart_from_the_text_is_joined_or_dropped_as_asked(name: str):
    answer = choice("4", message={name: "2 + 2\n"})
    with pytest.raises(ModelError, match=r"'p': .*reasoning apart .*reasoning=join .*reasoning=drop"):
        read(answer)
    assert read(answer, reasoning="drop")[0].text == "4"
    assert read(answer, reasoning="join")[0].text == "<think>\n2 + 2\n</think>\n\n4"
    cut = choice(None, finish="length", message={name: "2 +"})
    assert read(cut, reasoning="join")[0].text == "<think>\n2 +"


def test_a_tool_call_and_what_is_no_text_are_refused():
    with pytest.raises(ModelError, match="'p': the server answers with a tool call; expected text"):
        read(choice(None, finish="tool_calls", message={"tool_calls": [{"id": "1"}]}))
    with pytest.raises(ModelError, match="answer is a dict; expected text"):
        read(choice({"a": 1}))
    with pytest.raises(ModelError, match=r"reasoning is a dict; expected text.*reasoning=drop"):
        read(choice("4", message={"reasoning": {"summary": "hm"}}), reasoning="join")


def test_withheld_choices_are_left_out():
    (sampled,) = read(choice("a", finish="content_filter"), choice("b", index=1))
    assert (sampled.sample_idx, sampled.text) == (10, "b")
    for reason in ("content_filter", "SAFETY"):
        with pytest.raises(WithheldError):
            read(choice(finish=reason))


@pytest.mark.parametrize("answer", [None, [], {}, {"choices": []}, {"choices": [1]}, {"choices": [{"message": 1}]}])
def test_what_is_no_reply_may_be_asked_again(answer: Any):
    with pytest.raises(AttemptError):
        replies.read(answer, call(), form(), limit=None)


@pytest.mark.parametrize("finish", ["abort", "error"])
def test_a_response_that_was_broken_off_may_be_asked_again(finish: str):
    with pytest.raises(AttemptError, match="ended by"):
        read(choice(finish=finish))
