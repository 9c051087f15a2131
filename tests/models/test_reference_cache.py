import pytest
import torch

import freeprm.models.reference_cache as module
import tiny
from freeprm.errors import ModelError
from freeprm.models.encoding import Encoded, encode
from freeprm.models.logprobs import score_tokens
from freeprm.models.reference_cache import ReferenceCache

BUDGET = 1000


@pytest.fixture(scope="module")
def encoded() -> list[Encoded]:
    return encode(tiny.tokenizer(), tiny.rollouts(3))


@pytest.fixture
def filled(tmp_path, encoded, monkeypatch) -> ReferenceCache:
    monkeypatch.setattr(module, "CHUNK", 5)  # three chunks of twelve responses
    cache = ReferenceCache(tmp_path, model_key="weights/float32")
    cache.compute(tiny.language_model(), cache.missing(encoded), token_budget=BUDGET)
    return cache


def test_what_is_read_is_what_the_model_gives(filled, encoded):
    expected = score_tokens(tiny.language_model(), encoded, token_budget=BUDGET)
    for one, other in zip(filled.read(encoded), expected, strict=True):
        torch.testing.assert_close(one, other, atol=1e-5, rtol=0)


def test_nothing_is_missing_the_second_time(filled, encoded):
    again = ReferenceCache(filled.folder, model_key="weights/float32")
    assert again.missing(encoded) == []


def test_another_model_or_precision_is_missing(filled, encoded):
    assert len(ReferenceCache(filled.folder, model_key="weights/bfloat16").missing(encoded)) == 3


def test_other_token_ids_are_missing(filled, encoded):
    others = encode(tiny.tokenizer(template=tiny.LLAMA3), tiny.rollouts(3))
    assert len(filled.missing(others)) == 3
    assert len(filled.missing(encoded[::-1])) == 3


def test_a_half_written_entry_is_not_used(tmp_path, encoded):
    cache = ReferenceCache(tmp_path, model_key="weights/float32")

    def interrupted(n_tokens: int, n_responses: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        cache.compute(tiny.language_model(), cache.missing(encoded), token_budget=BUDGET, advance=interrupted)
    (tmp_path / "0123.1.partial").write_bytes(b"half")
    assert len(cache.missing(encoded)) == 1


def test_a_damaged_entry_is_named(filled, encoded):
    file = sorted(filled.folder.glob("*.safetensors"))[0]
    file.write_bytes(file.read_bytes()[:20])
    with pytest.raises(ModelError, match=rf"{file.name}: not a readable cache entry .* delete it"):
        filled.read(encoded)
