"""A reward model on a server, called as one in this process: `score`, `rank` and `best_of_n` over HTTP.

    prm = freeprm.Client("http://127.0.0.1:8000")
    best = prm.best_of_n("What is 3 + 4?", ["It is 7.", "It is 8."])

Signatures, records, numbers and errors are those of `freeprm.ImplicitPRM`. `rank` and `best_of_n` work with whatever is
served, `score` with a log-ratio, as there. Neither torch nor the server's packages are loaded.
"""

import asyncio
import json
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, Literal, Self

import httpx2

from freeprm import errors
from freeprm.errors import ConfigError, DataError, FreePRMError, ServerError
from freeprm.types import Prompt, Ranked, ResponseScore, Span

_JSON = {"content-type": "application/json"}
_TIMEOUT = 300.0
_TRIES = 5
_TO_RETRY = (429, 503)
"""Statuses of a full queue, and of a model that is being loaded."""
_UNTOLD = 1.0
"""Seconds to wait where such a status comes without a `Retry-After` in seconds."""


class Client:
    """A served reward model; threads may share it.

    Args:
        url: of the server, such as http://127.0.0.1:8000.
        api_key: what the server was given with `--api-key` or FREEPRM_API_KEY.
        timeout: seconds in which the server must connect, and answer.
        tries: how often one request is sent while the server answers that it is busy or loading its model; between
            them passes the time that it says.

    Raises:
        ConfigError: not a URL.
    """

    def __init__(self, url: str, api_key: str | None = None, *, timeout: float = _TIMEOUT, tries: int = _TRIES):
        self._server = _Server(url, timeout=timeout, tries=tries)
        self._http = httpx2.Client(base_url=url, headers=_headers(api_key), timeout=timeout)

    def score(
        self,
        prompt: Prompt,
        responses: Sequence[str],
        *,
        splitter: str | None = None,
        steps: Sequence[Sequence[str]] | None = None,
        reward: str = "with-reference",
        too_long: Literal["error", "truncate"] = "error",
        finished: bool = True,
    ) -> list[ResponseScore]:
        """Score responses to one prompt; see `freeprm.ImplicitPRM.score`.

        Raises:
            DataError, SpanError, ...: as there.
            ServerError: the server cannot be reached, fails, or wants another key.
        """
        body = _score_body(
            prompt, responses, splitter=splitter, steps=steps, reward=reward, too_long=too_long, finished=finished
        )
        return _scores(self._ask(body)) if responses else []

    def rank(self, prompt: Prompt, responses: Sequence[str], *, aggregator: str | None = None) -> list[Ranked]:
        """Finished responses to one prompt, the best first; see `freeprm.scorers.base.Scorer.rank`."""
        body = _rank_body(prompt, responses, aggregator=aggregator)
        return _ranked(responses, self._ask(body)) if responses else []

    def best_of_n(self, prompt: Prompt, responses: Sequence[str], *, aggregator: str | None = None) -> Ranked:
        """The best of several responses; see `rank`."""
        return _best(self.rank(prompt, responses, aggregator=aggregator))

    def close(self) -> None:
        """Close the connections."""
        self._http.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def _ask(self, body: bytes) -> Mapping[str, Any]:
        for left in reversed(range(self._server.tries)):
            with self._server.reached():
                answer = self._http.post("score", content=body, headers=_JSON)
            found = self._server.read(answer, left=left)
            if isinstance(found, Mapping):
                return found
            time.sleep(found)
        raise AssertionError("the last try gives an answer or an error")


class AsyncClient:
    """`Client` for asyncio, for many requests at a time; arguments and errors are the same."""

    def __init__(self, url: str, api_key: str | None = None, *, timeout: float = _TIMEOUT, tries: int = _TRIES):
        self._server = _Server(url, timeout=timeout, tries=tries)
        self._http = httpx2.AsyncClient(base_url=url, headers=_headers(api_key), timeout=timeout)

    async def score(
        self,
        prompt: Prompt,
        responses: Sequence[str],
        *,
        splitter: str | None = None,
        steps: Sequence[Sequence[str]] | None = None,
        reward: str = "with-reference",
        too_long: Literal["error", "truncate"] = "error",
        finished: bool = True,
    ) -> list[ResponseScore]:
        """See `Client.score`."""
        body = _score_body(
            prompt, responses, splitter=splitter, steps=steps, reward=reward, too_long=too_long, finished=finished
        )
        return _scores(await self._ask(body)) if responses else []

    async def rank(self, prompt: Prompt, responses: Sequence[str], *, aggregator: str | None = None) -> list[Ranked]:
        """See `Client.rank`."""
        body = _rank_body(prompt, responses, aggregator=aggregator)
        return _ranked(responses, await self._ask(body)) if responses else []

    async def best_of_n(self, prompt: Prompt, responses: Sequence[str], *, aggregator: str | None = None) -> Ranked:
        """See `Client.best_of_n`."""
        return _best(await self.rank(prompt, responses, aggregator=aggregator))

    async def aclose(self) -> None:
        """Close the connections."""
        await self._http.aclose()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *error: object) -> None:
        await self.aclose()

    async def _ask(self, body: bytes) -> Mapping[str, Any]:
        for left in reversed(range(self._server.tries)):
            with self._server.reached():
                answer = await self._http.post("score", content=body, headers=_JSON)
            found = self._server.read(answer, left=left)
            if isinstance(found, Mapping):
                return found
            await asyncio.sleep(found)
        raise AssertionError("the last try gives an answer or an error")


class _Server:
    """What both clients know of the server: what its answers mean, and what it means that there is none."""

    def __init__(self, url: str, *, timeout: float, tries: int):
        try:
            parsed = httpx2.URL(url)
        except httpx2.InvalidURL as error:
            raise ConfigError(f"url {url!r}: {error}; expected one such as http://127.0.0.1:8000") from error
        if parsed.scheme not in ("http", "https") or not parsed.host:
            raise ConfigError(f"url {url!r}: expected one with scheme and host, such as http://127.0.0.1:8000")
        for name, value in {"timeout": timeout, "tries": tries}.items():
            if not value > 0:
                raise ConfigError(f"{name}: is {value}; expected more than 0")
        self.url, self.timeout, self.tries = url, timeout, tries

    @contextmanager
    def reached(self) -> Iterator[None]:
        """Context of a request; a ServerError if it goes without an answer."""
        try:
            yield
        except httpx2.ConnectError as error:
            raise ServerError(
                f"{self.url}: no server answers there ({error}); start one with `freeprm serve MODEL`, or correct the "
                "URL"
            ) from error
        except httpx2.TimeoutException as error:
            raise ServerError(
                f"{self.url}: no answer in {self.timeout:g} s; send fewer responses at a time, or give a longer timeout"
            ) from error
        except httpx2.TransportError as error:
            raise ServerError(f"{self.url}: the connection broke ({error}); see the server's log") from error

    def read(self, answer: httpx2.Response, *, left: int) -> Mapping[str, Any] | float:
        """The answer's JSON; or the seconds after which to ask again.

        Args:
            answer: of one try.
            left: tries after this one.

        Raises:
            ServerError: not a reward model's answer, or a failure that no other try will mend.
            FreePRMError: of the server, in its own type and words.
        """
        wait = _seconds(answer.headers.get("retry-after", ""))
        if answer.status_code in _TO_RETRY and left and wait <= self.timeout:
            return wait
        found = _object(answer)
        if "results" in found:
            return found
        failed = found.get("error")
        if not isinstance(failed, Mapping) or not {"type", "message"} <= failed.keys():
            raise ServerError(
                f"{self.url}: answers {answer.status_code} {answer.headers.get('content-type', 'without a type')}, "
                "which is no answer of `freeprm serve`; correct the URL, or see what stands between"
            )
        named = vars(errors).get(failed["type"])
        if isinstance(named, type) and issubclass(named, FreePRMError):
            raise named(failed["message"])
        raise ServerError(f"{self.url}: answers {answer.status_code} {failed['type']}: {failed['message']}")


def _object(answer: httpx2.Response) -> Mapping[str, Any]:
    """The JSON object of an answer; empty where it is none."""
    try:
        found = answer.json()
    except ValueError:
        return {}
    return found if isinstance(found, dict) else {}


def _headers(api_key: str | None) -> dict[bytes, bytes]:
    return {} if api_key is None else {b"authorization": f"Bearer {api_key}".encode()}


def _seconds(told: str) -> float:
    return float(told) if told.isdecimal() else _UNTOLD


def _body(prompt: Prompt, responses: Sequence[Any], wanted: Mapping[str, Any]) -> bytes:
    asked = {"prompt": prompt} if isinstance(prompt, str) else {"messages": [dict(turn) for turn in prompt]}
    # In ASCII: half a surrogate pair is the server's to refuse, with the place where it stands.
    return json.dumps({**asked, "responses": responses, **wanted}).encode("ascii")


def _score_body(
    prompt: Prompt, responses: Sequence[str], *, splitter: str | None, steps: Sequence[Sequence[str]] | None,
    reward: str, too_long: str, finished: bool,
) -> bytes:  # fmt: skip
    if too_long == "exclude":
        raise ConfigError("too_long='exclude': `score` returns one score a response; choose 'error' or 'truncate'")
    if steps is not None and len(steps) != len(responses):
        raise DataError(f"{len(steps)} lists of steps for {len(responses)} responses")
    given = [
        {"text": text, "steps": None if steps is None else list(steps[index]), "truncated": not finished}
        for index, text in enumerate(responses)
    ]
    wanted = {"splitter": splitter, "reward": reward, "too_long": too_long, "tokens": True}
    return _body(prompt, given, wanted)


def _rank_body(prompt: Prompt, responses: Sequence[str], *, aggregator: str | None) -> bytes:
    return _body(prompt, list(responses), {"aggregator": aggregator, "too_long": "error"})


def _scores(found: Mapping[str, Any]) -> list[ResponseScore]:
    return [
        ResponseScore(
            steps=tuple(Span(step["start"], step["stop"]) for step in one["steps"]),
            step_rewards=tuple(step["score"] for step in one["steps"]),
            q_values=tuple(step["q"] for step in one["steps"]),
            reward=one["reward"],
            tokens=tuple(Span(token["start"], token["stop"]) for token in one["tokens"]),
            token_rewards=tuple(token["reward"] for token in one["tokens"]),
        )
        for one in found["results"]
    ]


def _ranked(responses: Sequence[str], found: Mapping[str, Any]) -> list[Ranked]:
    made = [
        Ranked(index, response, one["score"])
        for index, (response, one) in enumerate(zip(responses, found["results"], strict=True))
    ]
    return sorted(made, key=lambda item: -item.score)


def _best(ranked: Sequence[Ranked]) -> Ranked:
    if not ranked:
        raise DataError("best_of_n: no responses; expected one or more to choose from")
    return ranked[0]
