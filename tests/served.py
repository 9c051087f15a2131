"""The application around any scorer: in this process with a client, or at a port of loopback."""

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import uvicorn
from fastapi import FastAPI
from starlette.testclient import TestClient

from freeprm.scorers.base import Description, Scorer, ScoringOptions
from freeprm.serving.app import create_app
from freeprm.serving.batching import Batcher
from freeprm.serving.service import Limits, Measures, Service
from freeprm.settings import TooLong
from patience import PATIENCE, wait_until

LIMITS = Limits(responses=8, body_bytes=20_000, seconds=PATIENCE)


def application(
    scorer: Scorer | Callable[[], Scorer], *, key: str | None = None, limits: Limits = LIMITS, max_batch: int = 64,
    max_waiting: int = 64, too_long: TooLong = "error", runs: Path | None = None, wait: bool = True,
) -> FastAPI:  # fmt: skip
    """Of a scorer, or of a function that loads one, without waiting for it if told so."""
    measures = Measures()
    load = (lambda: scorer) if isinstance(scorer, Scorer) else scorer
    about = scorer.about if isinstance(scorer, Scorer) else Description(name="later")
    batcher = Batcher(load, max_batch=max_batch, max_waiting=max_waiting, scored=measures.count)
    options = ScoringOptions(rewards=about.rewards, too_long=too_long)
    service = Service(batcher, about, options=options, limits=limits, measures=measures, runs=runs)
    if wait:
        batcher.wait_until_loaded()
    return create_app(service, key=key)


@contextmanager
def served(app: FastAPI) -> Iterator[TestClient]:
    """A client of the application in this process."""
    with TestClient(app, raise_server_exceptions=False) as client:
        yield client


@contextmanager
def listening(app: FastAPI) -> Iterator[str]:
    """The address of a real server on loopback."""
    server = uvicorn.Server(uvicorn.Config(app, port=0, log_level="critical"))
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    wait_until(lambda: server.started)
    try:
        yield f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}"
    finally:
        server.should_exit = True
        thread.join(PATIENCE)
