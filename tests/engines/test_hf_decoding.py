"""Samples that begin alike share what is read; what they become is tested with the engine."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from freeprm.engines.base import SamplingParams
from freeprm.engines.hf.decoding import Wanted, _parted, decode
from freeprm.models.backbone import load_backbone


@pytest.mark.parametrize("config", ["LlamaConfig", "MistralConfig"])
def test_each_text_is_read_once_however_many_samples_begin_with_it(save_tiny: Callable[..., Path], config: str):
    window = {"sliding_window": 8} if config == "MistralConfig" else {}  # which keeps transformers' own cache
    backbone = load_backbone(str(save_tiny(config, **window)))
    batch = [
        Wanted(problem_id=str(index), prompt=str(index), ids=ids, sample_idxs=tuple(range(24)))
        for index, ids in enumerate([(4, 5), (7, 8, 9)])
    ]
    rows: list[int] = []
    hook = backbone.model.register_forward_pre_hook(
        lambda model, args, kwargs: rows.append(len(kwargs["input_ids"])), with_kwargs=True
    )
    found = list(decode(backbone, batch, params=SamplingParams(temperature=0.4, max_new_tokens=12)))
    hook.remove()
    assert len(found) == 48
    going_on = [
        {(item.problem_id, (item.token_ids or ())[:n]) for item in found if item.n_generated_tokens > n}
        for n in range(12)
    ]
    assert rows == [len(texts) for texts in going_on if texts]
    assert rows[0] == 2  # the prompts
    assert max(rows) > 2
    assert sum(rows) < 0.8 * sum(item.n_generated_tokens for item in found)


def test_texts_part_where_samples_go_on_with_other_tokens():
    # Sample:            0  1  2  3  4  5
    texts = torch.tensor([0, 0, 0, 2, 2, 3])  # nobody goes on with text 1
    tokens = torch.tensor([7, 8, 7, 7, 7, 0])
    parents, last, rows = _parted(texts, tokens)
    # Four texts: 0 + 7 keeps row 0, 2 + 7 row 2, 3 + 0 row 3; 0 + 8 takes the row of text 1.
    assert parents.tolist() == [0, 0, 2, 3]
    assert last.tolist() == [7, 8, 7, 0]
    assert rows.tolist() == [0, 1, 0, 2, 2, 3]


@pytest.mark.parametrize("seed", range(20))
def test_parted_texts_are_different_and_are_what_their_samples_say(seed: int):
    generator = torch.Generator().manual_seed(seed)
    n_texts = int(torch.randint(1, 9, (), generator=generator))
    texts = torch.randint(0, n_texts, (12,), generator=generator)
    tokens = torch.randint(0, 3, (12,), generator=generator)
    parents, last, rows = _parted(texts, tokens)
    said = list(zip(texts.tolist(), tokens.tolist(), strict=True))
    assert [(parents[row].item(), last[row].item()) for row in rows.tolist()] == said
    assert len(parents) == len(set(said))
    for row in range(len(parents)):
        assert row not in texts.tolist() or parents[row] == row  # nothing is moved without need
