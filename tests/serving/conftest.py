"""A tiny reward model, and servers that end with their test."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
from starlette.testclient import TestClient

from freeprm.models.loading import template_hash, weights_hash
from freeprm.models.reward_config import Reference, RewardConfig, save_reward_config
from freeprm.scorers.base import Scorer, load_scorer
from served import served
from tiny import LLAMA3, save, tokenizer


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


@pytest.fixture
def client_of() -> Iterator[Callable[..., TestClient]]:
    """See `served`."""
    with ExitStack() as open_servers:
        yield lambda *scorer, **options: open_servers.enter_context(served(*scorer, **options))
