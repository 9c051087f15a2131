"""The law: a response has the numbers of the plain pass of a fresh model, whoever is read beside or before it."""

import warnings
from collections.abc import Callable, Sequence
from functools import cache

import numpy as np
import pytest
import torch
import transformers as hf
from torch import Tensor
from transformers import PreTrainedModel

import freeprm.models.routes as module
from freeprm.errors import ModelError
from freeprm.models.encoding import Encoded
from freeprm.models.incremental import IncrementalReader, Piece, ReadPrompt
from freeprm.models.lengths import last_of_kind
from freeprm.models.logprobs import n_read, score_tokens, token_logprobs
from freeprm.models.routes import passes, prepare

LIMIT = 16
"""Of windows, chunks and pretraining; below and above it there are responses, and at it."""


def sizes(**extra: object) -> dict[str, object]:
    return {
        "vocab_size": 64, "hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 2, "num_attention_heads": 2,
        "num_key_value_heads": 2, "max_position_embeddings": 128, "initializer_range": 0.5, "pad_token_id": 0,
        "bos_token_id": 1, "eos_token_id": 2, **extra,
    }  # fmt: skip


def rope(kind: str, **extra: object) -> dict[str, object]:
    return {"rope_type": kind, "rope_theta": 1e4, **extra}


LONG = rope(
    "longrope", short_factor=[1.0] * 4, long_factor=[4.0, 8.0, 16.0, 32.0], original_max_position_embeddings=LIMIT
)
LLAMA3 = rope("llama3", factor=8.0, low_freq_factor=1.0, high_freq_factor=4.0, original_max_position_embeddings=LIMIT)
SWITCHED = {"use_sliding_window": True, "sliding_window": LIMIT}
SMALL = {"moe_intermediate_size": 8, "shared_expert_intermediate_size": 8, "num_experts": 4, "num_experts_per_tok": 2}
PACKED: dict[str, tuple[str, dict[str, object]]] = {
    "linear": ("Llama", sizes(rope_parameters=rope("linear", factor=4.0))),
    "yarn": ("Llama", sizes(rope_parameters=rope("yarn", factor=8.0, original_max_position_embeddings=LIMIT))),
    "llama3": ("Llama", sizes(rope_parameters=LLAMA3)),
    "dynamic": ("Llama", sizes(rope_parameters=rope("dynamic", factor=4.0), max_position_embeddings=LIMIT)),
    "longrope": ("Phi3", sizes(rope_parameters=LONG, original_max_position_embeddings=LIMIT)),
    "longrope, scaled": (
        "Phimoe", sizes(rope_parameters={**LONG, "short_mscale": 1.1, "long_mscale": 1.4}, num_local_experts=4)
    ),
    "windows": ("Mistral", sizes(sliding_window=LIMIT)),
    "windows in some layers": ("Qwen2", sizes(**SWITCHED, max_window_layers=1)),
    "windows and caps": ("Gemma2", sizes(head_dim=8, sliding_window=LIMIT)),
    "windows and no positions": (
        "Cohere2", sizes(sliding_window=LIMIT, layer_types=["sliding_attention", "full_attention"])
    ),
    "windows and experts": ("Mixtral", sizes(sliding_window=LIMIT, num_local_experts=4)),
}  # fmt: skip
PADDED: dict[str, tuple[str, dict[str, object]]] = {
    "windows in the mask": ("Qwen2Moe", sizes(**SWITCHED, **SMALL, max_window_layers=2)),
    "windows in the mask of all": ("Phimoe", sizes(sliding_window=LIMIT, num_local_experts=4)),
    "chunks": (
        "Llama4", sizes(attention_chunk_size=LIMIT, num_local_experts=2, intermediate_size_mlp=24, head_dim=8)
    ),
    "alibi": ("Bloom", {"vocab_size": 64, "hidden_size": 16, "n_layer": 2, "n_head": 2, "initializer_range": 0.5}),
    "alibi of MPT": (
        "Mpt", {"vocab_size": 64, "d_model": 16, "n_layers": 2, "n_heads": 2, "initializer_range": 0.5}
    ),
    "alibi of Falcon": (
        "Falcon", {"vocab_size": 64, "hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2,
                   "alibi": True, "initializer_range": 0.5}
    ),
}  # fmt: skip
"""What goes another way than the packed one where rows are longer than the limit."""
MODELS = PACKED | PADDED


def fresh(name: str) -> PreTrainedModel:
    """Random, and the same each time."""
    kind, options = MODELS[name]
    config = getattr(hf, f"{kind}TextConfig" if kind == "Llama4" else f"{kind}Config")(**options)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        made: PreTrainedModel = getattr(hf, f"{kind}ForCausalLM")(config)
    return made.eval()


def responses() -> list[Encoded]:
    """To a short prompt and a longer one that begins with it; of lengths around the limit, two of them equal."""
    rng = np.random.default_rng(1)
    short, more = (rng.integers(3, 64, n) for n in (9, 15))
    lengths = [(short, 4), (short, 7), (short, 8), (short, 30), (short, 30), (np.append(short, more), 6), (short, 11)]
    made = []
    for prompt, n in lengths:
        ids = np.append(prompt, rng.integers(3, 64, n)).astype(np.int32)
        made.append(Encoded(name="one", ids=ids, n_prompt=len(prompt), offsets=np.zeros((n, 2), np.int32)))
    return made


ITEMS = responses()


@cache
def expected_of(name: str) -> list[Tensor]:
    """By definition, of all items."""
    return by_definition(lambda: fresh(name))


def by_definition(make: Callable[[], PreTrainedModel]) -> list[Tensor]:
    """log softmax of a fresh model's plain pass of one row, in float64, at the next tokens."""
    found = []
    for item in ITEMS:
        ids = torch.tensor(item.ids.tolist())[None]
        with torch.no_grad():
            logps = make()(input_ids=ids, use_cache=False).logits[0].double().log_softmax(-1)  # (L, V)
        found.append(logps[:-1].gather(1, ids[0, 1:, None])[:, 0][item.n_prompt - 1 :])
    return found


def assert_same(found: Sequence[Tensor], expected: Sequence[Tensor]) -> None:
    """Up to rounding: an epsilon of float32 for each token that is attended to, of numbers of this size."""
    for one, other in zip(found, expected, strict=True):
        allowed = torch.finfo(torch.float32).eps * float(other.abs().max()) * max(len(item.ids) for item in ITEMS)
        assert (one.double() - other).abs().max() < allowed


@pytest.mark.parametrize("name", MODELS)
def test_a_response_has_its_own_numbers_whatever_is_read_beside_or_before_it(name):
    expected, model = expected_of(name), fresh(name)
    assert_same(score_tokens(model, ITEMS), expected)
    assert_same(score_tokens(model, ITEMS[::-1])[::-1], expected)
    longest_first = sorted(range(len(ITEMS)), key=lambda row: -len(ITEMS[row].ids))
    alone = {row: score_tokens(model, [ITEMS[row]])[0] for row in longest_first}
    assert_same([alone[row] for row in range(len(ITEMS))], expected)
    flat = token_logprobs(model, ITEMS)  # as in training
    assert flat.requires_grad
    assert_same(flat.detach().split([item.n_response for item in ITEMS]), expected)


@pytest.mark.parametrize("name", ["longrope", "dynamic", "windows in the mask"])
def test_gradients_are_those_of_reading_each_alone(name):
    together, alone = fresh(name), fresh(name)
    token_logprobs(together, ITEMS).sum().backward()
    for item in reversed(ITEMS):
        token_logprobs(alone, [item]).sum().backward()
    for one, other in zip(together.parameters(), alone.parameters(), strict=True):
        if one.grad is not None or other.grad is not None:
            torch.testing.assert_close(one.grad, other.grad, atol=1e-5 * float(one.grad.abs().max()), rtol=1e-4)


@pytest.mark.parametrize("name", MODELS)
def test_pieces_have_the_numbers_of_the_whole_or_are_refused(name):
    model = fresh(name)
    score_tokens(model, ITEMS[3:4])  # something long was read before
    reader = IncrementalReader(model, name="mine")
    prompts = {item.n_prompt: ReadPrompt(item.ids[: item.n_prompt]) for item in ITEMS}
    for item, expected in zip(ITEMS, expected_of(name), strict=True):
        prompt, middle = prompts[item.n_prompt], item.n_prompt + 3
        pieces = [Piece(prompt, item.ids, item.n_prompt, middle), Piece(prompt, item.ids, middle, len(item.ids))]
        last = last_of_kind(model.config, item.n_prompt - 1)
        if last is None or len(item.ids) <= last:
            assert_same([torch.cat([reader.read([piece])[0] for piece in pieces])], [expected])
        else:
            with pytest.raises(ModelError, match=rf"mine: a response ends at token {len(item.ids)} .*beyond {last} "):
                reader.read(pieces[:1])


@pytest.mark.parametrize("name", MODELS)
def test_rows_beyond_a_limit_are_packed_where_that_gives_the_same(name):
    model = fresh(name)
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        assert prepare(model, longest=40) == (name in PACKED)
    assert [str(warning.message) for warning in told if "one by one" in str(warning.message)] == [
        "LlamaForCausalLM: rows of more than 16 tokens are read one by one, but for those of equal length, because its "
        "rotary embedding (dynamic NTK) depends on the length of the whole; prompts are read again for each response, "
        "so reading takes about as many times as long as a prompt has responses, and more on a GPU"
    ] * (name == "dynamic")  # fmt: skip


@pytest.mark.parametrize("name", ["windows in the mask", "windows in the mask of all"])
def test_rows_within_a_window_of_the_mask_are_still_packed(name):
    model = fresh(name)
    assert [(group.packed, group.rows) for group in passes(model, [16, 17, 5])] == [(True, [0, 2]), (False, [1])]


def test_a_trial_beyond_a_limit_waits_for_rows_that_pass_it(monkeypatch):
    tried = []
    plain = module._tried
    monkeypatch.setattr(
        module, "_tried", lambda inner, n, passed: tried.append(passed) or plain(inner, n, passed=passed)
    )
    model = fresh("windows")
    for lengths in ([5, 16], [16], [17], [100], [3]):
        passes(model, lengths)
    assert tried == [0, 16]


def jealous() -> PreTrainedModel:
    """A model that reads all of a row otherwise for each token in it, and says so nowhere."""
    model = fresh("linear")
    model.get_input_embeddings().register_forward_hook(lambda _, given, out: out * (1 + 0.02 * given[0].shape[1]))
    return model


def test_a_model_whose_rows_disturb_each_other_reads_each_alone_and_says_so_once():
    model = jealous()
    with pytest.warns(UserWarning, match=r"LlamaForCausalLM: rows are read one by one, because in a trial") as told:
        assert_same(score_tokens(model, ITEMS), by_definition(jealous))
    assert len(told) == 1
    assert n_read(model, ITEMS) == sum(len(item.ids) for item in ITEMS)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        score_tokens(model, ITEMS[:2])


def test_a_model_that_remembers_what_it_has_read_is_refused():
    model = fresh("linear")
    calls = []
    model.get_input_embeddings().register_forward_hook(lambda _, given, out: calls.append(0) or out * len(calls))
    with pytest.raises(ModelError, match=r"LlamaForCausalLM: .* depends on what it has read before"):
        score_tokens(model, ITEMS[:1])


def test_what_is_no_model_of_transformers_is_refused():
    with pytest.raises(ModelError, match=r"a Linear: expected a model of transformers"):
        token_logprobs(torch.nn.Linear(1, 1), ITEMS[:1])


def test_passes_that_only_another_process_needs_change_nothing(monkeypatch):
    gradients = []
    for n_spare in (0, 2):
        monkeypatch.setattr(module, "_spare_passes", lambda model, n, n_spare=n_spare: n_spare)
        model = fresh("longrope")
        token_logprobs(model, ITEMS).sum().backward()
        gradients.append([parameter.grad for parameter in model.parameters()])
    for one, other in zip(*gradients, strict=True):
        torch.testing.assert_close(one, other)


def test_a_trial_leaves_the_mode_of_each_part_as_it_was():
    model = fresh("windows").train()
    model.model.layers[0].eval()
    before = [part.training for part in model.modules()]
    prepare(model, longest=40)
    assert [part.training for part in model.modules()] == before
