"""The application around any scorer, with a client."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from starlette.testclient import TestClient

from freeprm.scorers.base import Description, Scorer, ScoringOptions
from freeprm.serving.app import create_app
from freeprm.serving.batching import Batcher
from freeprm.serving.service import Limits, Measures, Service
from freeprm.settings import TooLong
from patience import PATIENCE

LIMITS = Limits(responses=8, body_bytes=20_000, seconds=PATIENCE)


@contextmanager
def served(
    scorer: Scorer | Callable[[], Scorer], *, key: str | None = None, limits: Limits = LIMITS, max_batch: int = 64,
    max_waiting: int = 64, too_long: TooLong = "error", runs: Path | None = None, wait: bool = True,
) -> Iterator[TestClient]:  # fmt: skip
    """A client of a server in this process; of a function that loads a scorer, without waiting for it if told so."""
    measures = Measures()
    load = (lambda: scorer) if isinstance(scorer, Scorer) else scorer
    about = scorer.about if isinstance(scorer, Scorer) else Description(name="later")
    batcher = Batcher(load, max_batch=max_batch, max_waiting=max_waiting, scored=measures.count)
    options = ScoringOptions(rewards=about.rewards, too_long=too_long)
    service = Service(batcher, about, options=options, limits=limits, measures=measures, runs=runs)
    if wait:
        batcher.wait_until_loaded()
    with TestClient(create_app(service, key=key), raise_server_exceptions=False) as client:
        yield client
