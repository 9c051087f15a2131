"""A server behind the `openai` client: attempts, rate limits, waits between attempts, and the meaning of errors.

The client has connections, timeouts and error types. Retries are done here: a passing error may come with a status of
success, a wait that the server requests holds up all requests, and retries are reported.
"""

import asyncio
import json
import random
import warnings
from collections import Counter
from collections.abc import Awaitable, Callable, Mapping, Sequence
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from functools import partial
from itertools import count
from time import monotonic
from typing import Any, TypeVar
from urllib.parse import urlsplit

from freeprm.engines.base import Sampled
from freeprm.engines.openai.calls import PATHS, Call, Form
from freeprm.engines.openai.replies import AttemptError, WithheldError, read
from freeprm.errors import ConfigError, ModelError, needs_extra

_CONNECT_SECONDS, _LISTING_SECONDS = 10.0, 30.0
_FIRST_WAIT, _LONGEST_WAIT = 1.0, 30.0  # seconds; doubled from one attempt to the next
_LONGEST_REQUESTED_WAIT = 300.0  # seconds; beyond it the run stops
_TIMEOUTS = 2  # retries after a timeout, which are long
_FILTERED = 3  # draws of a response that is withheld
_CHARACTERS_PER_TOKEN = 4  # for the first estimates
_TRY_AGAIN = (408, 409, 429)  # and every 5xx
PROBLEM_STATUSES = (400, 413, 422)
"""Of a request that is at fault, and not its server, key or model."""
_ONE_CHOICE = "only one completion choice"  # llama.cpp on an `n` above 1, with status 500
_ERROR_FIELDS = ("error", "message", "detail")
_ANSWERS = ("choices", "data")  # fields of an answer with responses or models
_SHOWN = 400  # characters of a server's message
_N_NAMES = 20  # models listed in a message
_ENGINES = "--engine-option base_url"
T = TypeVar("T")


class RefusedError(Exception):
    """The server refuses the request."""

    def __init__(self, status: int, message: str):
        super().__init__(f"{status}: {message}")
        self.status = status
        self.message = message


class ServerLostError(ModelError):
    """All allowed attempts failed."""


class Pace:
    """A rate limit, spread evenly over a minute, for one event loop; None is no limit."""

    def __init__(self, per_minute: float | None):
        self._seconds_each = 60 / per_minute if per_minute else 0.0
        self._free_at = monotonic()

    async def turn(self, amount: float) -> None:
        """Wait for the limit, then take this amount of it."""
        while (wait := self._free_at - monotonic()) > 0:
            await asyncio.sleep(wait)
        self._free_at = max(self._free_at, monotonic()) + amount * self._seconds_each

    def correct(self, amount: float) -> None:
        """Correct an amount taken before by this difference."""
        self._free_at += amount * self._seconds_each

    def pause(self, seconds: float) -> None:
        """Hold up everyone for at least so long."""
        self._free_at = max(self._free_at, monotonic() + seconds)


class Server:
    """A server for concurrent requests; the caller closes its `client`.

    Args:
        base_url: up to `/v1`.
        key: sent as a bearer token, shown nowhere; None sends none.
        timeout_seconds: for one answer.
        max_retries: attempts after the first.
        requests, tokens: rate limits.
        setting: what gives the address, for messages.

    Raises:
        ConfigError: not an http address.
        MissingExtraError: the `openai` client is not installed.
    """

    def __init__(
        self, base_url: str, *, key: str | None, timeout_seconds: float, max_retries: int, requests: Pace, tokens: Pace,
        setting: str = _ENGINES,
    ):  # fmt: skip
        with needs_extra("openai", f"a server ({setting})"):
            import openai
        parts = urlsplit(base_url)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise ConfigError(
                f"{setting.split()[-1]}: is {base_url!r}; expected an address such as http://localhost:8000/v1"
            )
        self.url = shown_url(base_url)
        """The address without user, password or query."""
        self.key = key
        self._setting = setting
        self._openai = openai
        self._headers: dict[str, Any] = {} if key else {"Authorization": openai.omit}
        self._timeout_seconds, self._max_retries = timeout_seconds, max_retries
        self._requests, self._tokens = requests, tokens
        self.client = openai.AsyncOpenAI(
            api_key=key or "none", base_url=base_url, max_retries=0,
            timeout=openai.Timeout(timeout_seconds, connect=_CONNECT_SECONDS, pool=None),
        )  # fmt: skip
        self._n_samples, self._n_tokens = 0, 0.0
        self.fewer = 0
        """Answers with fewer choices than requested."""
        self.retried: Counter[str] = Counter()
        """Retries, by reason."""

    async def models(self) -> list[Mapping[str, Any]]:
        """What the server says of each of its models, `id` being its name; empty if it does not list them.

        Raises:
            ModelError: nothing listens at the address.
            RefusedError: the key is missing or wrong.
        """
        # Some servers close the connection after an error, while the first request may be on its way.
        headers = {**self._headers, "Connection": "close"}
        try:
            listed = self._json(
                await self.client.get("/models", cast_to=str, options={"headers": headers, "timeout": _LISTING_SECONDS})
            )
            return [{**item, "id": str(item["id"])} for item in listed["data"]]
        except self._openai.APIConnectionError as error:
            if not type(error.__cause__).__name__.startswith("Connect"):
                return []
            raise ModelError(
                f"{self.url}: no server answers there ({error.__cause__}). Start one, e.g. with `vllm serve MODEL` or "
                f"`transformers serve MODEL`, or give its address: {self._setting}=http://HOST:PORT/v1 "
                "(docs/engines.md)"
            ) from error
        except self._openai.APIStatusError as error:
            if error.status_code in (401, 403):
                raise RefusedError(error.status_code, self._words(error.body)) from error
            return []
        except (RefusedError, AttemptError, KeyError, TypeError):
            return []  # not every server lists its models; a real error shows at the first request

    async def draw(self, call: Call, form: Form) -> list[Sampled]:
        """Samples of the call: all, the first ones, or none if the server draws only one at a time.

        Raises:
            ServerLostError: all attempts failed.
            ModelError: the server refuses the problem, or withholds every response to it.
            RefusedError: it refuses for another reason.
        """
        what = f"problem {call.problem_id!r}"
        for n_filtered in range(_FILTERED):
            try:
                return await self.attempts(partial(self._once, call, form, variant=n_filtered), what=what)
            except WithheldError:
                if n_filtered < _FILTERED - 1:
                    self._note("a response that the server withheld")
            except RefusedError as refused:
                if refused.status not in PROBLEM_STATUSES:
                    raise
                raise ModelError(
                    f"{what}: {self.url} refuses the request ({refused}). Leave the "
                    "problem out if its prompt is at fault; a field that the server does not know is taken away by "
                    "--engine-option extra_body.NAME=null"
                ) from None
        raise ModelError(
            f"{what}: {self.url} withholds the response (content_filter), {_FILTERED} draws in turn; leave the problem "
            "out"
        )

    async def attempts(self, once: Callable[[], Awaitable[T]], *, what: str) -> T:
        """The result of the first attempt that does not fail in passing.

        Args:
            once: an attempt.
            what: that it is for, in messages.

        Raises:
            ServerLostError: all attempts failed.
        """
        n_timeouts = 0
        for attempt in count():
            try:
                return await once()
            except AttemptError as failed:
                n_timeouts += failed.timed_out
                wait = failed.wait_seconds
                if attempt >= self._max_retries or n_timeouts > _TIMEOUTS or wait > _LONGEST_REQUESTED_WAIT:
                    asks = f" and asks to wait {wait:.0f} seconds" if wait else ""
                    raise ServerLostError(
                        f"{self.url}: {failed}{asks}, after {attempt + 1} attempts for {what}."
                    ) from None
                self._note(failed.reason)
                self._requests.pause(wait)
                # A random part, at least half, of 1, 2, 4, ... up to 30 seconds.
                await asyncio.sleep(min(_LONGEST_WAIT, _FIRST_WAIT * 2.0**attempt) * random.uniform(0.5, 1.0))
        raise AssertionError

    def refusal(
        self, refused: RefusedError, *, model: str, key_env: str, names: Sequence[str], setting: str
    ) -> ModelError:
        """The error for a refusal that concerns all requests: the key, the model, the address, the account.

        Args:
            refused: by the server.
            model: its name, as requested.
            key_env: the environment variable of the key.
            names: of the server's models.
            setting: what gives the model's name.
        """
        if refused.status in (401, 403):
            state = "refuses the key in" if self.key else "wants a key, and there is none in"
            return ModelError(f"{self.url} {state} the environment variable {key_env} ({refused})")
        if refused.status == 404:
            return ModelError(
                f"{self.url}: no model {model!r}, or no such address ({refused}). {listed(names)}; {setting} takes the "
                f"name that the server uses, and {self._setting.split()[-1]} usually ends in /v1"
            )
        return ModelError(f"{self.url} refuses all requests ({refused})")

    def tell_retries(self) -> None:
        """Warn of requests that were sent again, where not each had its own warning."""
        if self.retried.total() > len(self.retried):
            counts = ", ".join(f"{reason} ({number})" for reason, number in self.retried.most_common())
            warnings.warn(f"{self.retried.total()} requests were sent again: {counts}", stacklevel=3)

    async def _once(self, call: Call, form: Form, *, variant: int) -> list[Sampled]:
        body = form.body(call, variant=variant)
        estimate = self._estimate(call, form)
        await self._requests.turn(1)
        await self._tokens.turn(estimate)
        try:
            answer = await self.post(PATHS[form.api], body)
        except (AttemptError, RefusedError) as error:
            self._tokens.correct(-estimate)
            if len(call.sample_idxs) > 1 and _ONE_CHOICE in str(error).lower():
                self.fewer += 1
                return []
            raise
        reply = read(answer, call, form, limit=body.get("max_tokens", body.get("max_completion_tokens")))
        self.fewer += reply.n_choices < len(call.sample_idxs)
        if reply.n_tokens is not None:
            self._tokens.correct(reply.n_tokens - estimate)
            self._n_samples, self._n_tokens = self._n_samples + len(reply.samples), self._n_tokens + reply.n_tokens
        return reply.samples

    def _estimate(self, call: Call, form: Form) -> float:
        """Tokens that a call will cost: the mean of earlier calls, or its maximum."""
        n = len(call.sample_idxs)
        if self._n_samples:
            return n * self._n_tokens / self._n_samples
        prompt = len(json.dumps(call.prompt, ensure_ascii=False)) / _CHARACTERS_PER_TOKEN
        return prompt + n * form.params.max_new_tokens

    def _note(self, reason: str) -> None:
        """Count a retry, and warn of the first of its kind."""
        self.retried[reason] += 1
        if self.retried[reason] == 1:
            warnings.warn(f"{self.url}: {reason}; the request is sent again", stacklevel=2)

    async def post(self, path: str, body: dict[str, Any]) -> Any:
        """The decoded answer to one attempt.

        Raises:
            AttemptError: no answer, an answer that is not JSON, or a passing status: 408, 409, 429, 5xx.
            RefusedError: any other status.
        """
        try:
            return self._json(await self.client.post(path, cast_to=str, body=body, options={"headers": self._headers}))
        except self._openai.APITimeoutError as error:
            if type(error.__cause__).__name__.startswith("Connect"):
                raise AttemptError("no connection") from error
            raise AttemptError(f"no answer within {self._timeout_seconds:g} seconds", timed_out=True) from error
        except self._openai.APIConnectionError as error:
            raise AttemptError("no connection", detail=str(error.__cause__)) from error
        except self._openai.APIStatusError as error:
            kind = f"{error.status_code} {error.response.reason_phrase}".strip()
            final = error.status_code == 429 and "insufficient_quota" in error.response.text
            raise self._fault(
                kind, error.status_code, self._words(error.body), wait_seconds=_retry_after(error.response), final=final
            ) from error

    def _json(self, text: str) -> Any:
        """The decoded body of a status of success, which may be an error all the same."""
        try:
            answer = json.loads(text)
        except ValueError as error:
            raise AttemptError("an answer that is not JSON", detail=self._words(text)) from error
        if not isinstance(answer, dict) or any(answer.get(name) for name in _ANSWERS):
            return answer
        if any(answer.get(name) for name in _ERROR_FIELDS):
            raise self._fault("an error instead of an answer", _inner_status(answer), self._words(answer))
        return answer

    @staticmethod
    def _fault(
        kind: str, status: int, words: str, *, wait_seconds: float = 0.0, final: bool = False
    ) -> AttemptError | RefusedError:
        if (status in _TRY_AGAIN or status >= 500) and not final:
            return AttemptError(kind, detail=words, wait_seconds=wait_seconds)
        return RefusedError(status, words)

    def _words(self, found: Any) -> str:
        """The server's message, shortened, without the key."""
        for name in _ERROR_FIELDS:
            if isinstance(found, dict) and found.get(name):
                found = found[name]
        words = " ".join(str(found).split())
        words = words.replace(self.key, "***") if self.key else words
        return words if len(words) <= _SHOWN else f"{words[:_SHOWN]}..."


def shown_url(url: str) -> str:
    """An address without user, password and query, for messages."""
    parts = urlsplit(url)
    return parts._replace(netloc=parts.netloc.rpartition("@")[2], query="").geturl().rstrip("/")


def listed(names: Sequence[str]) -> str:
    """A server's models, for messages."""
    more = f" and {len(names) - _N_NAMES} more" if len(names) > _N_NAMES else ""
    return f"It has {', '.join(names[:_N_NAMES])}{more}" if names else "It does not list its models"


def _inner_status(answer: dict[str, Any]) -> int:
    """The status inside an error that came with a status of success; 500 by default."""
    error = answer.get("error")
    codes = [one.get(name) for one in (error, answer) if isinstance(one, dict) for name in ("code", "status")]
    return next((code for code in codes if isinstance(code, int) and 400 <= code < 600), 500)


def _retry_after(response: Any) -> float:
    """Seconds that the server asks to wait, as a number or a date; 0 by default."""
    value = response.headers.get("retry-after", "").strip()
    try:
        return max(0.0, float(value))
    except ValueError:
        pass
    try:
        return max(0.0, (parsedate_to_datetime(value) - datetime.now(UTC)).total_seconds())
    except (ValueError, TypeError):
        return 0.0
