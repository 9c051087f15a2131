import os
import time
from collections import Counter
from dataclasses import replace

import pytest
import torch
from transformers import LlamaConfig, PreTrainedConfig

import freeprm.models.reference_logprobs as module
import tiny
from freeprm.errors import DataError, ModelError
from freeprm.models.encoding import Encoded, encode
from freeprm.models.logprobs import score_tokens, token_logprobs
from freeprm.models.reference_logprobs import (
    CHECKED,
    LogProbCache,
    check_stored,
    model_key,
    noted_of,
    stored_logprobs,
)
from freeprm.types import Rollout
from rounding import assert_near

BUDGET = 1000


@pytest.fixture(scope="module")
def groups() -> list[list[Encoded]]:
    return by_prompt(encode(tiny.tokenizer(), tiny.rollouts(3)))


def by_prompt(encoded: list[Encoded]) -> list[list[Encoded]]:
    return [encoded[start : start + 4] for start in range(0, len(encoded), 4)]


@pytest.fixture
def filled(tmp_path, groups, monkeypatch) -> LogProbCache:
    monkeypatch.setattr(module, "CHUNK", 5)  # three chunks of twelve responses
    cache = LogProbCache(tmp_path, model_key="weights/float32")
    cache.compute(tiny.language_model(), cache.missing(groups), token_budget=BUDGET)
    return cache


def test_what_is_read_is_what_the_model_gives(filled, groups):
    encoded = [item for group in groups for item in group]
    expected = score_tokens(tiny.language_model(), encoded, token_budget=BUDGET)
    for one, other in zip(filled.read(groups), expected, strict=True):
        assert_near(one, other)


def test_nothing_is_missing_the_second_time(filled, groups):
    again = LogProbCache(filled.folder, model_key="weights/float32")
    assert again.missing(groups) == []


def test_another_model_or_precision_is_missing(filled, groups):
    assert len(LogProbCache(filled.folder, model_key="weights/bfloat16").missing(groups)) == 3


def test_other_token_ids_are_missing(filled, groups):
    others = by_prompt(encode(tiny.tokenizer(template=tiny.LLAMA3), tiny.rollouts(3)))
    assert len(filled.missing(others)) == 3
    assert len(filled.missing([group[::-1] for group in groups])) == 3


def test_a_half_written_entry_is_not_used(tmp_path, groups):
    cache = LogProbCache(tmp_path, model_key="weights/float32")

    def interrupted(n_tokens: int, n_responses: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        cache.compute(tiny.language_model(), cache.missing(groups), token_budget=BUDGET, advance=interrupted)
    left, under_way = (tmp_path / f"{'0123' * 8}.{process}.partial" for process in (1, 2))
    for file in (left, under_way, tmp_path / "a user's.partial"):
        file.write_bytes(b"half")
    assert len(cache.missing(groups)) == 1
    two_hours_ago = time.time() - 7200
    for file in (left, tmp_path / "a user's.partial"):
        os.utime(file, (two_hours_ago, two_hours_ago))
    cache.compute(tiny.language_model(), cache.missing(groups))
    assert {*tmp_path.glob("*.partial")} == {under_way, tmp_path / "a user's.partial"}


def test_a_damaged_entry_is_named(filled, groups):
    file = sorted(filled.folder.glob("*.safetensors"))[0]
    file.write_bytes(file.read_bytes()[:20])
    with pytest.raises(ModelError, match=rf"{file.name}: not a readable cache entry .* delete it"):
        filled.read(groups)


def test_groups_that_are_read_together_are_read_as_training_reads_them(tmp_path, groups):
    # Bit for bit, though a budget would divide them, and not as other groups of the same responses.
    cache = LogProbCache(tmp_path, model_key="weights/bfloat16", together=True)
    model = tiny.language_model().to(torch.bfloat16)
    cache.compute(model, cache.missing(groups), token_budget=1)
    with torch.no_grad():
        expected = torch.cat([token_logprobs(model, group) for group in groups])
    assert torch.equal(torch.cat(cache.read(groups)), expected)
    assert cache.missing([[*groups[0], *groups[1]], groups[2]])


KEY = model_key(weights_sha256="a" * 64, template_sha256=None, dtype="float32")
PLAIN = LlamaConfig()


def noted(rollout: Rollout, **changes: object) -> Rollout:
    """A rollout as sampling writes it, with -0.5 nats for each token."""
    ids = encode(tiny.tokenizer(), [rollout])[0]
    drawn = ids.ids[ids.n_prompt :].tolist()
    noted = {"token_ids": drawn, "token_logprobs": [-0.5] * len(drawn), "logprobs_of": of(KEY, rollout)}
    return replace(rollout, extra={**noted, **changes})


def of(key: str, rollout: Rollout) -> str:
    """What sampling notes of a model behind the rollout's prompt."""
    asked = replace(rollout, response="", truncated=True)
    return noted_of(key, encode(tiny.tokenizer(), [asked])[0].ids.tolist())


def take(rollouts: list[Rollout], config: PreTrainedConfig = PLAIN) -> tuple[dict[int, torch.Tensor], Counter[str]]:
    counts: Counter[str] = Counter()
    encoded = encode(tiny.tokenizer(), rollouts)
    return stored_logprobs(rollouts, encoded, key=KEY, config=config, counts=counts), counts


def test_what_was_noted_for_the_same_tokens_is_taken():
    rollout, plain = tiny.rollouts(1)[:2]
    found, counts = take([noted(rollout), plain])
    assert [*found] == [0]
    assert found[0].unique().tolist() == [-0.5]
    assert counts == {"reference taken from sampling": 1}


@pytest.mark.parametrize(
    "other",
    [
        {"weights_sha256": "b" * 64, "template_sha256": None, "dtype": "float32"},
        {"weights_sha256": "a" * 64, "template_sha256": "c" * 64, "dtype": "float32"},
        {"weights_sha256": "a" * 64, "template_sha256": None, "dtype": "bfloat16"},
    ],
    ids=["weights", "template", "precision"],
)
def test_what_another_model_noted_is_not_taken(other):
    rollout = tiny.rollouts(1)[0]
    found, counts = take([noted(rollout, logprobs_of=of(model_key(**other), rollout))])
    assert not found
    assert counts == {"reference computed: noted log-probabilities are of another model": 1}


def test_what_was_noted_behind_another_prompt_or_without_one_is_not_taken():
    rollout = tiny.rollouts(1)[0]
    edited = replace(noted(rollout), prompt=f"{rollout.prompt} Be brief.")
    found, counts = take([edited, noted(rollout, logprobs_of=KEY)])
    assert not found
    assert counts == {"reference computed: noted log-probabilities do not say that they are of this prompt": 2}


def test_a_response_drawn_as_other_tokens_is_not_taken():
    found, counts = take([noted(tiny.rollouts(1)[0], token_ids=[1, 2, 3])])
    assert not found
    assert counts == {"reference computed: drawn as other tokens than the text is read as": 1}


def test_a_response_that_outgrows_the_positions_it_was_drawn_with_is_computed_again():
    rollout = tiny.rollouts(1)[0]
    (item,) = encode(tiny.tokenizer(), [rollout])
    reason = "reference computed: the whole response is read with other positions than its beginning was"
    cases = {item.n_prompt: 0, len(item.ids) - 1: 0, len(item.ids): 1, item.n_prompt - 1: 1}  # where factors change
    for limit, n_taken in cases.items():
        factors = {"short_factor": [1.0] * 2, "long_factor": [4.0] * 2}
        rope = {"rope_type": "longrope", "rope_theta": 1e4, "original_max_position_embeddings": limit, **factors}
        found, counts = take([noted(rollout)], LlamaConfig(hidden_size=8, num_attention_heads=2, rope_parameters=rope))
        assert len(found) == n_taken
        assert counts[reason] == 1 - n_taken


def test_a_sample_is_computed_again_and_must_agree():
    rollouts = [noted(rollout) for rollout in tiny.rollouts(10)]
    encoded = encode(tiny.tokenizer(), rollouts)
    found, _ = take(rollouts)
    asked = []

    def compute(some, *, error):
        asked.append(len(some))
        return [torch.full((item.n_response,), -0.5 + error) for item in some]

    check_stored(found, encoded, dtype="float32", compute=lambda some: compute(some, error=1e-5))
    assert asked == [CHECKED]
    with pytest.raises(DataError, match=r"problem 'p0', sample 0: .* differ from the reference's own by 0\.01"):
        check_stored(found, encoded, dtype="float32", compute=lambda some: compute(some, error=0.01))
    check_stored(found, encoded, dtype="bfloat16", compute=lambda some: compute(some, error=0.01))
    with pytest.raises(DataError, match="differ"):
        check_stored(found, encoded, dtype="float32", compute=lambda some: compute(some, error=float("nan")))
