"""Rows of different lengths against texts read whole and alone; and that company changes no bit."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from freeprm.engines.hf.cache import CachedRows, CachedTexts, cached_texts, stands_alone
from freeprm.engines.hf.decoding import Wanted
from freeprm.engines.hf.prefill import prefill
from freeprm.models.loading import Backbone, load_backbone

SaveTiny = Callable[..., Path]
ARCHITECTURES: list[tuple[str, dict[str, Any]]] = [
    ("LlamaConfig", {}),
    ("GPT2Config", {}),
    ("BloomConfig", {"n_layer": 2, "n_head": 4}),  # ALiBi
    ("MistralConfig", {"sliding_window": 8}),
    ("Qwen2Config", {"use_sliding_window": True, "sliding_window": 8, "max_window_layers": 1}),  # one layer of each
    ("Gemma2Config", {"sliding_window": 8, "head_dim": 8}),
]


def text(*ids: int) -> Wanted:
    return Wanted(problem_id="p", prompt="?", ids=ids, sample_idxs=(0,))


def entered(backbone: Backbone, texts: list[tuple[int, ...]], *, capacity: int, width: int = 60) -> CachedTexts:
    rows = cached_texts(backbone, capacity=capacity, width=width)
    read = prefill(backbone, [text(*ids) for ids in texts])
    rows.enter(read.cache, range(len(texts)), [len(ids) for ids in texts])
    return rows


@pytest.mark.parametrize("attention", ["its own", "eager"])
@pytest.mark.parametrize(("config", "options"), ARCHITECTURES)
@torch.inference_mode()
def test_rows_that_come_part_and_go_say_what_whole_texts_say(
    save_tiny: SaveTiny, config: str, options: dict[str, Any], attention: str
):
    backbone = load_backbone(str(save_tiny(config, **options)))
    if attention == "eager":
        backbone.model.set_attn_implementation("eager")
    assert not stands_alone(backbone)
    texts = [tuple(range(3, 3 + n)) for n in (4, 21)]
    rows = entered(backbone, texts, capacity=6)
    for step in range(12):
        if step == 4:  # the second becomes two, the first goes
            rows.part(torch.tensor([1, 1]))
            texts = [texts[1], texts[1]]
        if step == 7:  # one comes
            new = tuple(range(9, 16))
            read = prefill(backbone, [text(5), text(*new)])
            rows.enter(read.cache, [1], [1, len(new)])
            texts.append(new)
        tokens = torch.arange(len(texts)) + 3 + step
        logits = rows.read(tokens)
        texts = [(*ids, int(token)) for ids, token in zip(texts, tokens, strict=True)]
        whole = torch.stack([backbone.model(torch.tensor([ids]), use_cache=False).logits[0, -1] for ids in texts])
        torch.testing.assert_close(logits, whole, rtol=0, atol=1e-4)


@torch.inference_mode()
def test_a_rows_numbers_are_the_same_bits_whoever_stands_beside_it(save_tiny: SaveTiny):
    backbone = load_backbone(str(save_tiny(max_position_embeddings=512)))
    mine = (3, 4, 5)
    alone = entered(backbone, [mine], capacity=40, width=400)
    beside = cached_texts(backbone, capacity=40, width=400)
    group = [text(*range(3, 3 + 9 * n)) for n in range(1, 4)]
    read = prefill(backbone, group)
    for _ in range(5):
        beside.enter(read.cache, range(3), [len(item.ids) for item in group])
    mine_read = prefill(backbone, [text(*mine)])
    beside.enter(mine_read.cache, [0], [3])
    place = 15
    for step in range(40):
        token = torch.tensor([4 + step % 20])
        company = torch.full((place + 1,), 7)
        company[place] = token
        assert torch.equal(alone.read(token)[0], beside.read(company)[place])
        if step == 20:  # most go, and mine moves
            beside.part(torch.tensor([2, place]))
            place = 1


@torch.inference_mode()
def test_a_pass_of_another_size_is_taken_only_if_it_gives_the_same_bits(
    save_tiny: SaveTiny, monkeypatch: pytest.MonkeyPatch
):
    backbone = load_backbone(str(save_tiny()))
    sizes: list[int] = []
    honest = CachedRows._pass

    def depends_on_size(self: CachedRows, tokens: torch.Tensor, start: int, size: int, width: int) -> torch.Tensor:
        sizes.append(size)
        return honest(self, tokens, start, size, width) + (1e-6 if size == 16 else 0.0)

    monkeypatch.setattr(CachedRows, "_pass", depends_on_size)
    rows = entered(backbone, [(3, 4), (5, 6, 7), (8,)], capacity=60, width=20)
    rows.read(torch.tensor([4, 5, 6]))
    rows.read(torch.tensor([4, 5, 6]))
    # There is one width. 16 rows are compared with 60, and refused; 32 are the same, and taken from then on.
    assert sizes == [16, 60, 32, 60, 32, 32]
