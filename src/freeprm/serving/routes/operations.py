"""`/health`, `/ready`, `/spec` and `/metrics`: for whoever runs the server."""

import asyncio
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Response
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest

import freeprm
from freeprm.core.rewards import AGGREGATORS
from freeprm.core.steps import SPLITTERS, TOKENS
from freeprm.serving.service import Service, service_of

routes = APIRouter()
_TEXT: dict[int | str, dict[str, Any]] = {200: {"content": {"text/plain": {}}}}


@routes.get("/health")
async def health() -> dict[str, str]:
    """The process answers."""
    return {"status": "ok"}


@routes.get("/ready")
async def ready(service: Annotated[Service, Depends(service_of)]) -> dict[str, str]:
    """The model is loaded and has scored a response; else 503."""
    _ = service.batcher.scorer
    return {"status": "ready"}


@routes.get("/spec")
async def spec(service: Annotated[Service, Depends(service_of)]) -> dict[str, Any]:
    """What is served: the model with the hashes of its weights, its scores, what may be asked for, and the limits."""
    about, limits = service.about, service.limits
    identity = await asyncio.to_thread(service.identity)
    return {
        "freeprm": freeprm.__version__,
        "model": about.source or about.name,
        "scorer": about.name,
        "kind": about.kind,
        "rewards": list(service.options().rewards),
        "splitter": about.splitter,
        "aggregator": about.aggregation,
        "settings": {name: str(value) for name, value in identity.items()},
        "choices": {
            "rewards": list(service.rewards),
            "splitters": [] if about.splitter is None else [*SPLITTERS, TOKENS],
            "aggregators": [] if about.splitter is None else list(AGGREGATORS),
        },
        "limits": {"responses": limits.responses, "body_bytes": limits.body_bytes, "seconds": limits.seconds},
    }


@routes.get("/metrics", response_class=Response, responses=_TEXT)
async def metrics(service: Annotated[Service, Depends(service_of)]) -> Response:
    """Counters and histograms for Prometheus."""
    service.measures.waiting.set(service.batcher.n_waiting)
    return Response(generate_latest(service.measures.registry), media_type=CONTENT_TYPE_LATEST)
