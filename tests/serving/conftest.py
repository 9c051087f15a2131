"""A tiny reward model, and servers that end with their test."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
from starlette.testclient import TestClient

from freeprm.scorers.base import Scorer, load_scorer
from served import application, listening, served


@pytest.fixture(scope="session")
def prm(template_prm: Path) -> Path:
    """Its folder."""
    return template_prm


@pytest.fixture(scope="session")
def scorer(prm: Path) -> Scorer:
    return load_scorer(prm)


@pytest.fixture
def client_of() -> Iterator[Callable[..., TestClient]]:
    """See `application` and `served`."""
    with ExitStack() as open_servers:
        yield lambda *scorer, **options: open_servers.enter_context(served(application(*scorer, **options)))


@pytest.fixture
def url_of() -> Iterator[Callable[..., str]]:
    """See `application` and `listening`."""
    with ExitStack() as open_servers:
        yield lambda *scorer, **options: open_servers.enter_context(listening(application(*scorer, **options)))
