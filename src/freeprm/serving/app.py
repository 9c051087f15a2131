"""The application: the routes, behind the gate, with one shape of failure."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from importlib import import_module
from pkgutil import iter_modules

from fastapi import APIRouter, FastAPI, Request
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.responses import Response
from starlette.routing import Route

import freeprm
from freeprm.errors import FreePRMError, NonFiniteError
from freeprm.serving import routes
from freeprm.serving.batching import BusyError, NotReadyError
from freeprm.serving.gate import LOG, Failure, Gate, failure
from freeprm.serving.routes.page import OPEN
from freeprm.serving.service import Service, TimeLimitError

_RETRY = "5"
"""Seconds after which to ask again whether the model is loaded."""


def create_app(service: Service, *, key: str | None = None) -> FastAPI:
    """The application of a service; its batcher is closed with it.

    Args:
        service: what answers.
        key: see `Gate`.
    """

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        yield
        await asyncio.to_thread(service.batcher.close)

    app = FastAPI(
        title="freeprm", version=freeprm.__version__, docs_url=None, redoc_url=None, lifespan=lifespan,
        responses={"4XX": {"model": Failure}, "5XX": {"model": Failure}},
        exception_handlers={
            FreePRMError: _of_request, RequestValidationError: _of_shape, HTTPException: _of_path, BusyError: _of_queue,
            NotReadyError: _of_model, TimeLimitError: _of_time, Exception: _of_us,
        },
    )  # fmt: skip
    app.state.service = service
    known = set()
    for found in iter_modules(routes.__path__):
        router: APIRouter = import_module(f"{routes.__name__}.{found.name}").routes
        app.include_router(router)
        known |= {route.path for route in router.routes if isinstance(route, Route)}
    app.add_middleware(Gate, service=service, key=key, free=frozenset(OPEN), known=frozenset(known))
    return app


def _note(request: Request, error: Exception) -> None:
    """Have the request's log line tell the error."""
    request.state.noted = {"error": type(error).__name__, "message": str(error)[:500]}


async def _of_request(request: Request, error: Exception) -> Response:
    _note(request, error)
    return failure(422 if isinstance(error, NonFiniteError) else 400, type(error).__name__, str(error))


async def _of_shape(request: Request, error: RequestValidationError) -> Response:
    """All that is wrong with a body, or with what stands behind a `?`."""
    told = []
    for one in error.errors():
        _, *inside = one["loc"]
        named = [part for part in inside if "(" not in str(part)]  # without names of our own checks
        where = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in named).lstrip(".")
        is_json = one["type"] != "json_invalid"
        told.append(f"{where or 'body'}: {one['msg']}" if is_json else f"not JSON, at character {one['loc'][-1]}")
    if request.method == "POST" and "json" not in request.headers.get("content-type", ""):
        told.append("expected JSON, with the header `content-type: application/json`")
    request.state.noted = {"error": "BadRequest", "message": "; ".join(told)[:500]}
    return failure(400, "BadRequest", "; ".join(told))


async def _of_path(request: Request, error: HTTPException) -> Response:
    told = f"{error.detail}: {error.__cause__}" if error.__cause__ else error.detail
    kind = "NotFound" if error.status_code == 404 else "BadRequest"
    return failure(error.status_code, kind, told, **(error.headers or {}))


async def _of_queue(request: Request, error: BusyError) -> Response:
    _note(request, error)
    return failure(429, "Busy", str(error), retry_after=str(error.seconds))


async def _of_model(request: Request, error: Exception) -> Response:
    _note(request, error)
    return failure(503, "NotReady", str(error), retry_after=_RETRY)


async def _of_time(request: Request, error: Exception) -> Response:
    _note(request, error)
    return failure(504, "Timeout", str(error))


async def _of_us(request: Request, error: Exception) -> Response:
    _note(request, error)
    LOG.error("failed", exc_info=error)
    return failure(500, "InternalError", "the server failed at this request; its log says how")
