"""The cache that is written in place, against transformers' own."""

import torch
from transformers import DynamicCache, MistralConfig
from transformers.cache_utils import DynamicLayer

from freeprm.engines.hf.cache import InPlaceLayer, keep, spread


def states(rows: int, length: int, *, seed: int) -> torch.Tensor:
    return torch.randn(rows, 2, length, 4, generator=torch.Generator().manual_seed(seed))


def test_spreading_writing_and_keeping_rows_equals_transformers_cache():
    ours, theirs = DynamicCache(), DynamicCache()
    for cache in (ours, theirs):
        cache.update(states(2, 3, seed=0), states(2, 3, seed=1), 0)
    rows = torch.tensor([0, 0, 1, 1])
    spreaded = spread(ours, rows, width=9)
    theirs.batch_select_indices(rows)
    assert isinstance(spreaded.layers[0], InPlaceLayer)
    kept = torch.tensor([0, 3, 2])  # row 1 has finished, the last one takes its place
    for seed, n_rows in ((2, 4), (4, 3)):
        got = spreaded.update(states(n_rows, 1, seed=seed), states(n_rows, 1, seed=seed + 1), 0)
        expected = theirs.update(states(n_rows, 1, seed=seed), states(n_rows, 1, seed=seed + 1), 0)
        assert torch.equal(got[0], expected[0])
        assert torch.equal(got[1], expected[1])
        assert spreaded.get_seq_length() == theirs.get_seq_length()
        if n_rows == 4:
            keep(spreaded, kept)
            theirs.batch_select_indices(kept)


def test_writing_copies_nothing_that_is_there_already():
    prompts = DynamicCache()
    prompts.update(states(1, 3, seed=0), states(1, 3, seed=1), 0)
    cache = spread(prompts, torch.tensor([0, 0]), width=5)
    before = cache.layers[0].keys.data_ptr()
    cache.update(states(2, 1, seed=2), states(2, 1, seed=3), 0)
    assert cache.layers[0].keys.data_ptr() == before


def test_a_cache_with_sliding_windows_stays_transformers_own():
    config = MistralConfig(num_hidden_layers=1, sliding_window=4)
    prompts = DynamicCache(config=config)
    prompts.update(states(2, 3, seed=0), states(2, 3, seed=1), 0)
    spreaded = spread(prompts, torch.tensor([1, 0, 1]), width=9)
    assert spreaded is prompts
    assert type(spreaded.layers[0]) is not DynamicLayer
    assert torch.equal(spreaded.layers[0].keys, states(2, 3, seed=0)[[1, 0, 1]])


def test_rows_may_become_more_up_to_the_room_there_is():
    ours, theirs = DynamicCache(), DynamicCache()
    for cache in (ours, theirs):
        cache.update(states(2, 3, seed=0), states(2, 3, seed=1), 0)
    roomy = spread(ours, torch.arange(2), width=9, capacity=4)
    for seed, rows in ((2, [0, 1, 0, 1]), (4, [2, 1]), (6, [1, 1, 0])):
        index = torch.tensor(rows)
        keep(roomy, index)
        theirs.batch_select_indices(index)
        new = states(len(rows), 1, seed=seed), states(len(rows), 1, seed=seed + 1)
        for got, expected in zip(roomy.update(*new, 0), theirs.update(*new, 0), strict=True):
            assert torch.equal(got, expected)
