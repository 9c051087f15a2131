"""Seeds and the fields of a request."""

from dataclasses import replace

from freeprm.engines.base import Request, SamplingParams
from freeprm.engines.openai.calls import Call, Form, open_calls, seed_of

TALK = ({"role": "user", "content": "2 + 2?"}, {"role": "assistant", "content": "Sure: "})


def call(*indices: int, prompt: object = "2 + 2?") -> Call:
    return Call(problem_id="p", prompt=prompt, sample_idxs=indices or (0,))


def test_seeds_differ_by_sample_prompt_run_and_variant_and_fit_31_bits():
    made = [seed_of(call(index), seed=0) for index in range(2000)]
    made += [seed_of(call(prompt="3 + 3?"), seed=0), seed_of(call(), seed=1), seed_of(call(), seed=0, variant=1)]
    assert len(set(made)) == 2003  # a collision among so few has probability 2003^2 / 2^32 < 0.1 %
    assert all(0 <= seed < 2**31 for seed in made)
    assert max(made) > 2**30
    assert seed_of(call(5, 6), seed=0) == made[5]  # a call has its first sample's seed


def test_calls_hold_what_is_missing_and_split_in_order():
    requests = [
        Request(problem_id="a", prompt="?", sample_idxs=(0, 1, 2, 3), done=frozenset({1})),
        Request(problem_id="b", prompt="?", sample_idxs=(0,), done=frozenset({0})),
    ]
    (only,) = open_calls(requests)
    first, rest = only.split(2)
    assert (first.sample_idxs, rest and rest.sample_idxs) == ((0, 2), (3,))
    assert first.split(2) == (first, None)


def test_a_request_says_what_is_asked_and_no_more():
    params = SamplingParams(temperature=0.5, top_p=0.9, max_new_tokens=7, stop=("\n",), logprobs=True)
    form = Form(model="m", api="chat", template="{prompt}", params=params, extra_body={"top_k": 3, "top_p": None})
    assert form.body(call(4, 5)) == {
        "model": "m", "messages": [{"role": "user", "content": "2 + 2?"}], "temperature": 0.5, "max_tokens": 7,
        "seed": seed_of(call(4), seed=0), "n": 2, "stop": ["\n"], "logprobs": True, "top_k": 3,
    }  # fmt: skip


def test_a_prompt_stands_in_its_template_whatever_braces_it_has():
    form = Form(model="m", api="completions", template="{{Q}} {prompt} {A}", params=SamplingParams(logprobs=True))
    body = form.body(call(prompt="{x}?"))
    assert body["prompt"] == "{{Q}} {x}? {A}"
    assert body["logprobs"] == 0
    assert "stop" not in body


def test_a_beginning_stands_behind_the_prompt_of_a_completion():
    form = Form(model="m", api="completions", template="Q: {prompt}\nA: ", params=SamplingParams())
    request = Request(problem_id="p", prompt="2 + 2?", prefix="First. ", sample_idxs=(0,))
    (begun,) = open_calls([request], within_lines=True)
    assert form.body(begun)["prompt"] == "Q: 2 + 2?\nA: First."  # the space is for the model to write
    (begun,) = open_calls([replace(request, prefix="First.\n")], within_lines=True)
    assert form.body(begun)["prompt"] == "Q: 2 + 2?\nA: First.\n"


def test_a_beginning_is_an_unfinished_message_of_a_chat():
    form = Form(model="m", api="chat", template="{prompt}", params=SamplingParams())
    (begun,) = open_calls([Request(problem_id="p", prompt="2 + 2?", prefix="First.\n", sample_idxs=(0,))])
    body = form.body(begun)
    assert body["messages"] == [{"role": "user", "content": "2 + 2?"}, {"role": "assistant", "content": "First."}]
    assert body["continue_final_message"] is True
    assert body["add_generation_prompt"] is False
    assert "continue_final_message" not in form.body(call())
    assert seed_of(begun, seed=0) != seed_of(call(), seed=0)


def test_what_the_assistant_says_last_is_an_unfinished_message_with_the_prefix_behind_it():
    form = Form(model="m", api="chat", template="{prompt}", params=SamplingParams())
    request = Request(problem_id="p", prompt=TALK, sample_idxs=(0,))
    for prefix, said in (("", "Sure: "), ("First.\n", "Sure: First.")):
        (begun,) = open_calls([replace(request, prefix=prefix)])
        body = form.body(begun)
        assert body["messages"] == [TALK[0], {"role": "assistant", "content": said}]
        assert body["continue_final_message"] is True
        assert body["add_generation_prompt"] is False
