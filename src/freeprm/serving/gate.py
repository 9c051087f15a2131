"""What every request passes: its size, its key, its number, and the line that is logged of it."""

import asyncio
import hmac
import json
import logging
import re
import time
import uuid
from typing import Any, Literal

from pydantic import BaseModel
from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from freeprm.serving.service import Service

LOG = logging.getLogger("freeprm.serving")
PROBES = frozenset({"/health", "/ready"})
"""Asked again and again: they need no key, and are not logged."""
_NUMBER = re.compile(r"[\w.:-]{1,128}")


class Failure(BaseModel):
    """The body of every failure."""

    error: dict[Literal["type", "message"], str]


def failure(status: int, kind: str, message: str, **headers: str) -> JSONResponse:
    """See `Failure`."""
    shown = {name.replace("_", "-"): value for name, value in headers.items()}
    body = Failure(error={"type": kind, "message": message}).model_dump()
    return JSONResponse(body, status_code=status, headers=shown)


class JSONLines(logging.Formatter):
    """A log record as one line of JSON."""

    def format(self, record: logging.LogRecord) -> str:
        """See `logging.Formatter`; a record's `fields` are keys of the line."""
        line = {
            "time": time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(record.created)) + f".{record.msecs:03.0f}Z",
            "level": record.levelname.lower(), "event": record.getMessage(), **getattr(record, "fields", {}),
        }  # fmt: skip
        if record.exc_info:
            line["traceback"] = self.formatException(record.exc_info)
        return json.dumps(line, ensure_ascii=False)


class Gate:
    """ASGI middleware.

    Args:
        app: what is behind it.
        service: has the limits and the measures.
        key: what `Authorization: Bearer KEY` must say; None: nothing is asked for.
        free: further paths that need no key.
        known: paths that are counted by name.
    """

    def __init__(self, app: ASGIApp, *, service: Service, key: str | None, free: frozenset[str], known: frozenset[str]):
        self._app, self._service, self._free, self._known = app, service, free | PROBES, known
        self._expected = None if key is None else f"Bearer {key}".encode()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """See ASGI."""
        if scope["type"] != "http":
            return await self._app(scope, receive, send)
        started, status = time.perf_counter(), 500
        headers = Headers(scope=scope)
        given = headers.get("x-request-id", "")
        number = given if _NUMBER.fullmatch(given) else uuid.uuid4().hex
        state = scope.setdefault("state", {})

        async def noted(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                MutableHeaders(scope=message)["x-request-id"] = number
            await send(message)

        try:
            refused = self._refused(scope["path"], headers)
            body = b"" if refused else await self._body(receive)
            if isinstance(body, JSONResponse):
                refused = body
            if refused is not None:
                await refused(scope, receive, noted)
            else:
                await self._app(scope, _replayed(body, receive), noted)
        finally:
            seconds = time.perf_counter() - started
            path = scope["path"] if scope["path"] in self._known else "other"
            self._service.measures.requests.labels(path, str(status)).inc()
            self._service.measures.seconds.labels(path).observe(seconds)
            fields = {
                "id": number, "client": (scope.get("client") or ("", 0))[0], "method": scope["method"],
                "path": scope["path"], "status": status, "seconds": round(seconds, 4), **state.get("noted", {}),
            }  # fmt: skip
            level = logging.DEBUG if scope["path"] in PROBES else logging.INFO
            LOG.log(level, "request", extra={"fields": fields})

    def _refused(self, path: str, headers: Headers) -> JSONResponse | None:
        """The answer to a request without the key, or one that says it is too large."""
        if self._expected is not None and path not in self._free:
            given = headers.get("authorization", "").encode("latin-1")  # the bytes that came
            if not hmac.compare_digest(given, self._expected):
                told = "expected the header `Authorization: Bearer KEY` with this server's key"
                return failure(401, "Unauthorized", told, www_authenticate="Bearer")
        length = headers.get("content-length", "0")
        if length.isdecimal() and int(length) > self._service.limits.body_bytes:
            return self._too_large()
        return None

    async def _body(self, receive: Receive) -> Any:
        """The whole body; or the answer to one that is too large, or too slow."""
        parts, size = [], 0
        try:
            async with asyncio.timeout(self._service.limits.seconds):
                more = True
                while more:
                    message = await receive()
                    if message["type"] != "http.request":
                        return failure(400, "Disconnected", "the client went away")
                    parts.append(message.get("body", b""))
                    size += len(parts[-1])
                    more = message.get("more_body", False)
                    if size > self._service.limits.body_bytes:
                        return self._too_large()
        except TimeoutError:
            return failure(408, "Timeout", "the request did not arrive in time")
        return b"".join(parts)

    def _too_large(self) -> JSONResponse:
        most = self._service.limits.body_bytes
        return failure(413, "TooLarge", f"the body has more than {most:,} bytes; send fewer responses at a time")


def _replayed(body: bytes, receive: Receive) -> Receive:
    """`receive` for what is behind: the body that was read, then what else comes."""
    given = False

    async def replay() -> Message:
        nonlocal given
        if given:
            return await receive()
        given = True
        return {"type": "http.request", "body": body, "more_body": False}

    return replay
