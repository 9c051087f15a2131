"""`freeprm serve`: load a reward model, answer until told to stop, finish what was accepted."""

import logging
import os
import signal
import socket
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from math import ceil
from pathlib import Path

import uvicorn

from freeprm.errors import ConfigError
from freeprm.scorers.base import Scorer, ScoringOptions
from freeprm.serving.app import create_app
from freeprm.serving.batching import Batcher
from freeprm.serving.gate import LOG, JSONLines
from freeprm.serving.service import Limits, Measures, Service
from freeprm.settings import ServeSettings
from freeprm.stages.scoring import max_memory_of, scorer_of

KEY = "FREEPRM_API_KEY"


def serve(settings: ServeSettings) -> None:
    """Serve until SIGINT or SIGTERM.

    Raises:
        ConfigError: the settings, or a port that is taken.
        ModelError: the model cannot be loaded.
    """
    for name in ("max_batch", "max_waiting", "max_responses", "timeout", "max_body"):
        if not getattr(settings, name) > 0:
            raise ConfigError(f"--{name.replace('_', '-')}: is {getattr(settings, name)}; expected more than 0")
    if not 0 <= settings.port <= 65_535:
        raise ConfigError(f"--port: is {settings.port}; expected 0 (a free one) to 65535")
    source = scorer_of(settings)
    described = source.about if isinstance(source, Scorer) else source.describe()
    options = ScoringOptions(
        rewards=tuple(settings.rewards) or described.rewards, splitter=settings.splitter, too_long=settings.too_long,
        token_budget=settings.token_budget, max_memory=max_memory_of(settings), reasoning=settings.reasoning,
    )  # fmt: skip
    described.check(options)
    listening = _bound(settings.host, settings.port)
    _log_as_lines()
    measures = Measures()
    started = time.perf_counter()

    def load() -> Scorer:
        scorer = source if isinstance(source, Scorer) else source.load()
        LOG.info("loaded", extra={"fields": {"model": described.source, "seconds": _since(started)}})
        return scorer

    batcher = Batcher(load, max_batch=settings.max_batch, max_waiting=settings.max_waiting, scored=measures.count)
    limits = Limits(
        responses=settings.max_responses, body_bytes=round(settings.max_body * 2**20), seconds=settings.timeout
    )
    runs = None if settings.runs is None else Path(settings.runs)
    service = Service(batcher, described, options=options, limits=limits, measures=measures, runs=runs)
    app = create_app(service, key=settings.api_key or os.environ.get(KEY) or None)
    server = _Server(
        uvicorn.Config(
            app, log_config=None, access_log=False, lifespan="on", timeout_graceful_shutdown=ceil(settings.timeout)
        )
    )
    address, port = listening.getsockname()[:2]
    url = f"http://[{address}]:{port}" if ":" in address else f"http://{address}:{port}"
    LOG.info("listening", extra={"fields": {"url": url, "pid": os.getpid()}})

    def tell() -> None:
        """Say that the model is ready, or end the server."""
        try:
            batcher.wait_until_loaded()
        except BaseException:  # raised again below, in the thread that serves
            server.should_exit = True
        else:
            LOG.info("ready", extra={"fields": {"url": url, "seconds": _since(started)}})

    threading.Thread(target=tell, daemon=True).start()
    try:
        server.run(sockets=[listening])
    finally:
        listening.close()
    if batcher.error is not None:
        raise batcher.error
    LOG.info("ended")


class _Server(uvicorn.Server):
    """Ends with 0 where it was told to end; uvicorn's own raises the signal again."""

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        before = {number: signal.signal(number, self.handle_exit) for number in (signal.SIGINT, signal.SIGTERM)}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)


def _bound(host: str, port: int) -> socket.socket:
    """A socket at this address."""
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        made = socket.socket(family, kind, protocol)
        made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        made.bind(address)
    except OSError as error:
        raise ConfigError(f"cannot listen at {host} port {port}: {error}; choose others with --host, --port") from error
    return made


def _log_as_lines() -> None:
    """Log everything of the server to stderr, one JSON object a line."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(JSONLines())
    for name in (LOG.name, "uvicorn", "py.warnings"):
        logger = logging.getLogger(name)
        logger.handlers[:] = [handler]
        logger.setLevel(logging.INFO if name == LOG.name else logging.WARNING)
        logger.propagate = False
    logging.captureWarnings(True)


def _since(started: float) -> float:
    return round(time.perf_counter() - started, 3)
