"""One server: requests out, JSON in, and what its statuses mean. Sends each request once."""

from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from types import TracebackType
from typing import Any, Self
from urllib.parse import urlsplit

import httpx2

from freeprm.engines.openai.faults import AttemptError, RefusedError
from freeprm.errors import ConfigError, ModelError

_CONNECT_SECONDS = 10.0
_LISTING_SECONDS = 30.0
_IDLE_SECONDS = 2.0  # of a connection; servers commonly close theirs after 5, and may do so under a request
_TRY_AGAIN = (408, 409, 429)  # and every 5xx
_SAYING = ("error", "message", "detail")  # where servers say what is wrong
_ANSWERS = ("choices", "data")  # what an answer has, of responses or of models
_SHOWN = 400  # characters of a server's own words
_HIDDEN = "***"


class Server:
    """An open connection pool; to be used in a `with`.

    Args:
        base_url: as far as `/v1`.
        key: sent as a bearer token, shown nowhere; None sends none.
        timeout_seconds: for one answer.
        n_connections: at a time.

    Raises:
        ConfigError: not an http address.
    """

    def __init__(self, base_url: str, *, key: str | None, timeout_seconds: float, n_connections: int):
        parts = urlsplit(base_url)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise ConfigError(f"base_url: is {base_url!r}; expected an address such as http://localhost:8000/v1")
        self.url = parts._replace(netloc=parts.netloc.rpartition("@")[2], query="").geturl().rstrip("/")
        """The address without user, password or query."""
        self._key = key
        self._timeout_seconds = timeout_seconds
        self._client = httpx2.AsyncClient(
            base_url=base_url,
            headers={"Authorization": f"Bearer {key}"} if key else {},
            timeout=httpx2.Timeout(timeout_seconds, connect=_CONNECT_SECONDS, pool=None),
            limits=httpx2.Limits(
                max_connections=n_connections, max_keepalive_connections=n_connections, keepalive_expiry=_IDLE_SECONDS
            ),
            follow_redirects=True,
        )

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._client.aclose()

    async def models(self) -> list[str]:
        """Names of the models there, none where the server does not say.

        Raises:
            ModelError: nothing listens at the address.
            RefusedError: the key is missing or wrong.
        """
        try:
            response = await self._client.get(
                "/models", timeout=_LISTING_SECONDS, headers={"Connection": "close"}
            )  # some servers close it after an error, when the first request may be on its way
            listed = self._json(response)
            return [str(item["id"]) for item in listed["data"]]
        except (httpx2.ConnectError, httpx2.ConnectTimeout) as error:
            raise ModelError(
                f"{self.url}: no server answers there ({error}). Start one, e.g. with `vllm serve MODEL` or "
                "`transformers serve MODEL`, or give its address: --engine-option base_url=http://HOST:PORT/v1 "
                "(docs/engines.md)"
            ) from error
        except RefusedError as refused:
            if refused.status in (401, 403):
                raise
            return []
        except (httpx2.TransportError, AttemptError, KeyError, TypeError):
            return []  # not every server lists its models; a real fault shows at the first request

    async def post(self, path: str, body: dict[str, Any]) -> Any:
        """The decoded answer to one attempt.

        Raises:
            AttemptError: no answer, an answer that is not JSON, or a status that may pass: 408, 409, 429, 5xx.
            RefusedError: any other status.
        """
        try:
            response = await self._client.post(path, json=body)
        except httpx2.ConnectTimeout as error:
            raise AttemptError("no connection") from error
        except httpx2.TimeoutException as error:
            raise AttemptError(f"no answer within {self._timeout_seconds:g} seconds", timed_out=True) from error
        except httpx2.TransportError as error:
            raise AttemptError("no connection", detail=str(error)) from error
        return self._json(response)

    def _json(self, response: httpx2.Response) -> Any:
        status, reason = response.status_code, response.reason_phrase
        if response.is_success:
            try:
                answer = response.json()
            except ValueError as error:
                raise AttemptError("an answer that is not JSON", detail=self._words(response)) from error
            if not isinstance(answer, dict) or any(answer.get(name) for name in _ANSWERS):
                return answer
            if not any(answer.get(name) for name in _SAYING):
                return answer
            status, reason = _said_status(answer), "an error instead of an answer"
        words = self._words(response)
        if (status in _TRY_AGAIN or status >= 500) and not (status == 429 and "insufficient_quota" in response.text):
            kind = reason if response.is_success else f"{status} {reason}".strip()
            raise AttemptError(kind, detail=words, wait_seconds=_retry_after(response))
        raise RefusedError(status, words)

    def _words(self, response: httpx2.Response) -> str:
        """The server's own message, shortened, without the key."""
        try:
            found = response.json()
        except ValueError:
            found = response.text
        for name in _SAYING:
            if isinstance(found, dict) and found.get(name):
                found = found[name]
        words = " ".join(str(found).split())
        words = words.replace(self._key, _HIDDEN) if self._key else words
        return words if len(words) <= _SHOWN else f"{words[:_SHOWN]}..."


def _said_status(answer: dict[str, Any]) -> int:
    """The status that an error under a status of success says it has; 500 where it says none."""
    error = answer.get("error")
    codes = [one.get(name) for one in (error, answer) if isinstance(one, dict) for name in ("code", "status")]
    return next((code for code in codes if isinstance(code, int) and 400 <= code < 600), 500)


def _retry_after(response: httpx2.Response) -> float | None:
    """Seconds that the server asks to wait: a number, or a date."""
    value = response.headers.get("retry-after", "").strip()
    try:
        return max(0.0, float(value))
    except ValueError:
        pass
    try:
        return max(0.0, (parsedate_to_datetime(value) - datetime.now(UTC)).total_seconds())
    except (ValueError, TypeError):
        return None
