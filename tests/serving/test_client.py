"""`freeprm.Client` and `AsyncClient`: the local model's numbers, records and errors, from a server at a port."""

import asyncio
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import astuple
from inspect import signature
from types import SimpleNamespace
from typing import Any

import httpx2
import pytest

from freeprm.errors import ConfigError, DataError, FreePRMError, ServerError
from freeprm.scorers.base import Scorer
from freeprm.scorers.implicit import ImplicitPRM
from freeprm.serving.client import AsyncClient, Client
from freeprm.serving.service import Limits
from freeprm.types import Ranked, ResponseScore
from held import Held
from patience import PATIENCE, wait_until

PROMPT = "the sum of 3 and 4?"
RESPONSES = ["Step 1: we add.\nStep 2: so 7", "it is 8", "no, it is not"]


def call_async(url: str, method: str, /, *given: Any, **named: Any) -> Any:
    """The result of one method of an `AsyncClient`."""

    async def called() -> Any:
        async with AsyncClient(url) as client:
            return await getattr(client, method)(*given, **named)

    return asyncio.run(called())


def call(url: str, method: str, /, *given: Any, **named: Any) -> Any:
    """The result of one method of a `Client`."""
    with Client(url) as client:
        return getattr(client, method)(*given, **named)


BOTH = pytest.mark.parametrize("ask", [call, call_async], ids=["Client", "AsyncClient"])
Ask = Callable[..., Any]


def numbers(scores: Sequence[ResponseScore]) -> list[float]:
    return [x for one in scores for x in (*one.step_rewards, *one.q_values, one.reward, *one.token_rewards)]


@BOTH
@pytest.mark.parametrize(
    "how",
    [
        {},
        {"splitter": "tokens"},
        {"reward": "without-reference", "finished": False},
        {"reward": "reference-only", "splitter": "sentences"},
        {"steps": [["Step 1: we add.\nStep", " 2: so 7"], ["it is 8"], ["no, ", "it is", " not"]]},
    ],
    ids=str,
)
def test_scores_are_the_local_records_with_the_local_numbers(
    url_of, scorer: ImplicitPRM, ask: Ask, how: dict[str, Any]
):
    """Also after JSON: floats are written so that they are read back as they were."""
    turns = ({"role": "system", "content": "add"}, {"role": "user", "content": PROMPT})
    url = url_of(scorer)
    for prompt in (PROMPT, turns):
        local, found = scorer.score(prompt, RESPONSES, **how), ask(url, "score", prompt, RESPONSES, **how)
        assert [(type(one), one.steps, one.tokens) for one in found] == [
            (ResponseScore, one.steps, one.tokens) for one in local
        ]
        assert [type(span) for span in found[0].steps] == [type(span) for span in local[0].steps]
        assert numbers(found) == pytest.approx(numbers(local), abs=1e-6)
        assert found[0].p_correct == pytest.approx(local[0].p_correct, abs=1e-6)


@BOTH
def test_a_cut_response_is_scored_as_far_as_it_fits(url_of, scorer: ImplicitPRM, ask: Ask):
    local = scorer.score(PROMPT, ["a " * 200], too_long="truncate")
    found = ask(url_of(scorer), "score", PROMPT, ["a " * 200], too_long="truncate")
    assert numbers(found) == pytest.approx(numbers(local), abs=1e-6)
    assert len(found[0].tokens) == len(local[0].tokens)


@BOTH
@pytest.mark.parametrize("aggregator", [None, "last", "mean"])
def test_ranks_are_the_local_ones(url_of, scorer: ImplicitPRM, ask: Ask, aggregator: str | None):
    url, given = url_of(scorer), [*RESPONSES, RESPONSES[0]]  # two are equal, and keep their order
    local = scorer.rank(PROMPT, given, aggregator=aggregator)
    found = ask(url, "rank", PROMPT, given, aggregator=aggregator)
    assert [astuple(one)[:2] for one in found] == [astuple(one)[:2] for one in local]
    assert {type(one) for one in found} == {Ranked}
    assert [one.score for one in found] == pytest.approx([one.score for one in local], abs=1e-6)
    best = ask(url, "best_of_n", PROMPT, given, aggregator=aggregator)
    assert astuple(best)[:2] == astuple(scorer.best_of_n(PROMPT, given, aggregator=aggregator))[:2]


@BOTH
def test_whole_responses_of_any_scorer_are_ranked(url_of, ask: Ask):
    assert ask(url_of(Held()), "rank", "?", ["a", "abc", "ab"]) == Held().rank("?", ["a", "abc", "ab"])


def test_both_clients_and_the_local_model_have_the_same_signatures():
    for name in ("score", "rank", "best_of_n"):
        local = {one: (of.kind, of.default) for one, of in signature(getattr(ImplicitPRM, name)).parameters.items()}
        for kind in (Client, AsyncClient):
            served = signature(getattr(kind, name)).parameters
            assert {one: (of.kind, of.default) for one, of in served.items()} == local
    assert list(signature(Client).parameters) == list(signature(AsyncClient).parameters)


@BOTH
@pytest.mark.parametrize(
    ("method", "given", "named"),
    [
        ("score", ("?", ["a", ""]), {}),
        ("score", ("?", ["a " * 200]), {}),
        ("score", ("?", ["a"]), {"reward": "with"}),
        ("score", ("?", ["a"]), {"splitter": "word"}),
        ("score", ("?", ["a"]), {"too_long": "exclude"}),
        ("score", ("?", ["ab"]), {"steps": [["a", "c"]]}),
        ("score", ("?", ["ab"]), {"steps": []}),
        ("rank", ("?", ["a"]), {"aggregator": "minn"}),
        ("best_of_n", ("?", []), {}),
    ],
)  # fmt: skip
def test_what_is_refused_locally_is_refused_with_the_same_error(
    url_of, scorer: Scorer, ask: Ask, method: str, given: tuple[Any, ...], named: dict[str, Any]
):
    with pytest.raises(FreePRMError) as local:
        getattr(scorer, method)(*given, **named)
    with pytest.raises(local.type):
        ask(url_of(scorer), method, *given, **named)


@BOTH
def test_no_responses_have_no_scores(url_of, scorer: ImplicitPRM, ask: Ask):
    assert ask(url_of(scorer), "score", "?", []) == scorer.score("?", []) == []
    assert ask(url_of(scorer), "rank", "?", []) == scorer.rank("?", []) == []


@BOTH
def test_a_scorer_without_log_ratios_has_no_score(url_of, ask: Ask):
    with pytest.raises(ConfigError, match="is for log-ratios; held gives one kind of score"):
        ask(url_of(Held()), "score", "?", ["a"])


def test_the_key_is_sent_and_a_wrong_one_is_told(url_of):
    url = url_of(Held(), key="schlüssel")
    assert Client(url, "schlüssel").best_of_n("?", ["a"]).score == 1.0
    for key in (None, "schluessel"):
        with pytest.raises(ServerError, match=f"{url}: answers 401 Unauthorized: expected the header"):
            Client(url, api_key=key).rank("?", ["a"])


@BOTH
def test_where_no_server_is_the_url_is_told_with_what_to_do(ask: Ask):
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    with pytest.raises(ServerError, match=rf"http://127.0.0.1:{port}: no server answers there .*freeprm serve"):
        ask(f"http://127.0.0.1:{port}", "rank", "?", ["a"])


@BOTH
def test_a_connection_that_breaks_before_the_answer_is_told(ask: Ask):
    with socket.create_server(("127.0.0.1", 0)) as listening, ThreadPoolExecutor(1) as pool:
        asked = pool.submit(ask, f"http://127.0.0.1:{listening.getsockname()[1]}", "rank", "?", ["a"])
        connection, _ = listening.accept()
        connection.recv(1)
        connection.close()
        with pytest.raises(ServerError, match=r"the connection broke .*see the server's log"):
            asked.result(PATIENCE)


@pytest.mark.parametrize("url", ["127.0.0.1:8000", "localhost", "ftp://here", "http://", "http://here:port", ""])
def test_what_is_no_url_is_refused_at_once(url: str):
    for kind in (Client, AsyncClient):
        with pytest.raises(ConfigError, match=r"such as http://127\.0\.0\.1:8000"):
            kind(url)


@pytest.fixture
def waits(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """Seconds that clients would have waited; they wait a moment instead."""
    waited: list[float] = []

    def sleep(seconds: float) -> None:
        waited.append(seconds)
        time.sleep(0.02)

    async def sleep_in_loop(seconds: float) -> None:
        await asyncio.to_thread(sleep, seconds)

    monkeypatch.setattr("freeprm.serving.client.time", SimpleNamespace(sleep=sleep))  # the server's own go on
    monkeypatch.setattr("freeprm.serving.client.asyncio", SimpleNamespace(sleep=sleep_in_loop))
    return waited


@BOTH
def test_a_model_that_is_being_loaded_is_waited_for(url_of, ask: Ask, waits: list[float]):
    def load() -> Held:
        wait_until(lambda: bool(waits))
        return Held()

    url = url_of(load, wait=False)
    found: list[Ranked] = []
    while not found:  # loading ends some time after the first wait
        try:
            found = ask(url, "rank", "?", ["a"])
        except ServerError as error:
            assert "503 NotReady: the model is being loaded" in str(error)  # noqa: PT017
    assert found == [Ranked(0, "a", 1.0)]
    assert set(waits) == {5.0}


@BOTH
def test_a_queue_that_stays_full_is_asked_only_so_often(url_of, ask: Ask, waits: list[float]):
    scorer = Held()
    url = url_of(scorer, max_waiting=1)
    with ThreadPoolExecutor(1) as pool:
        scorer.go.clear()
        first = pool.submit(call, url, "rank", "?", ["a"])
        assert scorer.entered.wait(PATIENCE)
        with pytest.raises(ServerError, match="answers 429 Busy: too much waits already; try again in 1 s"):
            ask(url, "rank", "?", ["b"])
        scorer.go.set()
        assert first.result(PATIENCE) == [Ranked(0, "a", 1.0)]
    assert waits == [1.0] * 4  # five tries


@BOTH
def test_a_server_s_own_failure_and_its_limits_are_told(url_of, ask: Ask):
    url = url_of(Held(), limits=Limits(responses=2, body_bytes=1000, seconds=PATIENCE))
    with pytest.raises(ServerError, match="answers 500 InternalError: the server failed at this request"):
        ask(url, "rank", "?", ["broken"])
    with pytest.raises(ServerError, match="answers 413 TooLarge: the body has more than 1,000 bytes"):
        ask(url, "rank", "?", ["a" * 1000])
    with pytest.raises(DataError, match="3 responses; expected 2 or fewer in one request"):
        ask(url, "rank", "?", ["a"] * 3)


def test_an_answer_that_does_not_come_in_time_is_told(url_of):
    scorer = Held()
    url = url_of(scorer)
    scorer.go.clear()
    with pytest.raises(ServerError, match=r"no answer in 0.2 s; send fewer .*longer timeout"):
        Client(url, timeout=0.2).rank("?", ["a"])
    scorer.go.set()


@pytest.mark.parametrize(
    "answer",
    [
        httpx2.Response(200, text="<html>"), httpx2.Response(502, text="Bad Gateway"), httpx2.Response(200, json=[1]),
        httpx2.Response(404, json={"detail": "Not Found"}),
    ],
)  # fmt: skip
def test_another_server_s_answer_is_told_as_such(answer: httpx2.Response):
    client = Client("http://here")
    client._http = httpx2.Client(base_url="http://here", transport=httpx2.MockTransport(lambda request: answer))
    with pytest.raises(ServerError, match=f"http://here: answers {answer.status_code} .*no answer of `freeprm serve`"):
        client.rank("?", ["a"])


@pytest.mark.parametrize(
    ("retry_after", "waited"), [({"retry-after": "7"}, 7.0), ({}, 1.0), ({"retry-after": "Wed, 21 Oct 2026"}, 1.0)]
)
def test_one_waits_as_long_as_the_server_says(waits: list[float], retry_after: dict[str, str], waited: float):
    answers = [
        httpx2.Response(429, json={"error": {"type": "Busy", "message": ""}}, headers=retry_after),
        httpx2.Response(200, json={"results": [{"score": 2.0}]}),
    ]
    client = Client("http://here")
    transport = httpx2.MockTransport(lambda request: answers.pop(0))
    client._http = httpx2.Client(base_url="http://here", transport=transport)
    assert client.best_of_n("?", ["a"]) == Ranked(0, "a", 2.0)
    assert waits == [waited]


def test_one_does_not_wait_longer_than_for_an_answer():
    answer = httpx2.Response(503, json={"error": {"type": "NotReady", "message": "soon"}}, headers={"retry-after": "9"})
    client = Client("http://here", timeout=8)
    client._http = httpx2.Client(base_url="http://here", transport=httpx2.MockTransport(lambda request: answer))
    with pytest.raises(ServerError, match="503 NotReady: soon"):
        client.rank("?", ["a"])


def test_threads_and_tasks_share_a_client(url_of, scorer: ImplicitPRM):
    url = url_of(scorer)
    prompts = [f"{n} and {n}?" for n in range(8)]
    expected = [[one.reward for one in scorer.score(prompt, RESPONSES)] for prompt in prompts]
    with Client(url) as client, ThreadPoolExecutor(4) as pool:
        threads = list(pool.map(lambda prompt: client.score(prompt, RESPONSES), prompts))

    async def tasks() -> list[list[ResponseScore]]:
        async with AsyncClient(url) as client:
            return await asyncio.gather(*(client.score(prompt, RESPONSES) for prompt in prompts))

    for found in (threads, asyncio.run(tasks())):
        for one, other in zip(found, expected, strict=True):
            assert [score.reward for score in one] == pytest.approx(other, abs=1e-5)


def test_the_client_loads_no_model_code_and_no_server():
    code = (
        "import sys, freeprm\n"
        "assert not {'httpx2', 'torch'} & set(sys.modules)\n"
        "freeprm.Client('http://127.0.0.1:1')\n"
        "heavy = {'torch', 'transformers', 'fastapi', 'starlette', 'uvicorn', 'prometheus_client'} & set(sys.modules)\n"
        "assert not heavy, heavy"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
