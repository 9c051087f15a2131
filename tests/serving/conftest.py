"""A tiny reward model, and the application around any scorer."""

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from starlette.testclient import TestClient

from freeprm.models.loading import template_hash, weights_hash
from freeprm.models.reward_config import Reference, RewardConfig, save_reward_config
from freeprm.scorers.base import Description, Scorer, ScoringOptions, load_scorer
from freeprm.serving.app import create_app
from freeprm.serving.batching import Batcher
from freeprm.serving.service import Limits, Measures, Service
from patience import PATIENCE
from tiny import LLAMA3, save, tokenizer

LIMITS = Limits(responses=8, body_bytes=20_000, seconds=PATIENCE)


@pytest.fixture(scope="session")
def prm(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a log-ratio with Llama-3's template, whose context is 128 tokens."""
    folder = tmp_path_factory.mktemp("pair")
    reference, made = save(folder / "ref", template=LLAMA3), save(folder / "prm", seed=1, template=LLAMA3)
    config = RewardConfig(
        beta=0.5, base=str(reference), objective="ce",
        reference=Reference(source=str(reference), weights_sha256=weights_hash(reference)),
        template_sha256=template_hash(tokenizer(template=LLAMA3)),
    )  # fmt: skip
    save_reward_config(config, made)
    return made


@pytest.fixture(scope="session")
def scorer(prm: Path) -> Scorer:
    return load_scorer(prm)


Made = Callable[..., TestClient]


@pytest.fixture
def client_of() -> Iterator[Made]:
    """A function that serves a scorer; all end with the test."""
    open_clients: list[TestClient] = []

    def make(
        scorer: Scorer | Callable[[], Scorer], *, key: str | None = None, limits: Limits = LIMITS, max_batch: int = 64,
        max_waiting: int = 64, too_long: str = "error", runs: Path | None = None, wait: bool = True,
    ) -> TestClient:  # fmt: skip
        measures = Measures()
        load = (lambda: scorer) if isinstance(scorer, Scorer) else scorer
        about = scorer.about if isinstance(scorer, Scorer) else Description(name="later")
        batcher = Batcher(load, max_batch=max_batch, max_waiting=max_waiting, scored=measures.count)
        options = ScoringOptions(rewards=about.rewards, too_long=too_long)  # type: ignore[arg-type]
        service = Service(batcher, about, options=options, limits=limits, measures=measures, runs=runs)
        if wait:
            batcher.wait_until_loaded()
        client = TestClient(create_app(service, key=key), raise_server_exceptions=False)
        client.__enter__()
        open_clients.append(client)
        return client

    yield make
    for client in open_clients:
        client.__exit__(None, None, None)
