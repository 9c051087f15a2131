import pytest
import torch

import freeprm.models.reference_cache as module
import tiny
from freeprm.errors import ModelError
from freeprm.models.encoding import Encoded, encode
from freeprm.models.logprobs import score_tokens, token_logprobs
from freeprm.models.reference_cache import ReferenceCache
from rounding import assert_near

BUDGET = 1000


@pytest.fixture(scope="module")
def groups() -> list[list[Encoded]]:
    return by_prompt(encode(tiny.tokenizer(), tiny.rollouts(3)))


def by_prompt(encoded: list[Encoded]) -> list[list[Encoded]]:
    return [encoded[start : start + 4] for start in range(0, len(encoded), 4)]


@pytest.fixture
def filled(tmp_path, groups, monkeypatch) -> ReferenceCache:
    monkeypatch.setattr(module, "CHUNK", 5)  # three chunks of twelve responses
    cache = ReferenceCache(tmp_path, model_key="weights/float32")
    cache.compute(tiny.language_model(), cache.missing(groups), token_budget=BUDGET)
    return cache


def test_what_is_read_is_what_the_model_gives(filled, groups):
    encoded = [item for group in groups for item in group]
    expected = score_tokens(tiny.language_model(), encoded, token_budget=BUDGET)
    for one, other in zip(filled.read(groups), expected, strict=True):
        assert_near(one, other)


def test_nothing_is_missing_the_second_time(filled, groups):
    again = ReferenceCache(filled.folder, model_key="weights/float32")
    assert again.missing(groups) == []


def test_another_model_or_precision_is_missing(filled, groups):
    assert len(ReferenceCache(filled.folder, model_key="weights/bfloat16").missing(groups)) == 3


def test_other_token_ids_are_missing(filled, groups):
    others = by_prompt(encode(tiny.tokenizer(template=tiny.LLAMA3), tiny.rollouts(3)))
    assert len(filled.missing(others)) == 3
    assert len(filled.missing([group[::-1] for group in groups])) == 3


def test_a_half_written_entry_is_not_used(tmp_path, groups):
    cache = ReferenceCache(tmp_path, model_key="weights/float32")

    def interrupted(n_tokens: int, n_responses: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        cache.compute(tiny.language_model(), cache.missing(groups), token_budget=BUDGET, advance=interrupted)
    (tmp_path / "0123.1.partial").write_bytes(b"half")
    assert len(cache.missing(groups)) == 1


def test_a_damaged_entry_is_named(filled, groups):
    file = sorted(filled.folder.glob("*.safetensors"))[0]
    file.write_bytes(file.read_bytes()[:20])
    with pytest.raises(ModelError, match=rf"{file.name}: not a readable cache entry .* delete it"):
        filled.read(groups)


def test_groups_that_are_read_together_are_read_as_training_reads_them(tmp_path, groups):
    # Bit for bit, though a budget would divide them, and not as other groups of the same responses.
    cache = ReferenceCache(tmp_path, model_key="weights/bfloat16", together=True)
    model = tiny.language_model().to(torch.bfloat16)
    cache.compute(model, cache.missing(groups), token_budget=1)
    with torch.no_grad():
        expected = torch.cat([token_logprobs(model, group) for group in groups])
    assert torch.equal(torch.cat(cache.read(groups)), expected)
    assert cache.missing([[*groups[0], *groups[1]], groups[2]])
