"""What samples go on from a beginning draw, against a plain loop; and that what beginnings share is read once."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from freeprm.engines.base import Request, Sampled, SamplingParams
from freeprm.engines.hf import HFEngine
from freeprm.engines.hf.drawing import uniforms
from freeprm.engines.hf.prefill import prefill
from freeprm.models.encoding import encode
from freeprm.models.loading import Backbone, load_backbone
from freeprm.types import Rollout
from rounding import assert_near

SaveTiny = Callable[..., Path]
PARAMS = SamplingParams(temperature=1.0, max_new_tokens=12, seed=3)
STEPS = ("first.\n", "first.\nsecond.\n", "first.\nsecond.\nthird.\n", "first.\nother.\n", "")
ARCHITECTURES: list[tuple[str, dict[str, Any], bool]] = [
    ("LlamaConfig", {}, True),
    ("Qwen2Config", {}, True),
    ("MistralConfig", {"sliding_window": 8}, False),
    ("GPT2Config", {}, True),
]


@dataclass(frozen=True)
class Text:
    ids: tuple[int, ...]
    prefix: str = "begun"


def requests(n: int, **changed: Any) -> list[Request]:
    return [
        Request(problem_id=f"{prompt}{prefix}", prompt=prompt, prefix=prefix, sample_idxs=tuple(range(n)), **changed)
        for prompt in ("how many?", "ab")
        for prefix in STEPS
    ]


def draw_all(engine: HFEngine, asked: list[Request], params: SamplingParams = PARAMS) -> dict[tuple[str, int], Sampled]:
    return {(item.problem_id, item.sample_idx): item for item in engine.sample(asked, params=params)}


def ids_of(backbone: Backbone, request: Request) -> tuple[int, ...]:
    rollout = Rollout(problem_id="", sample_idx=0, prompt=request.prompt, response=request.prefix, truncated=True)
    return tuple(encode(backbone.tokenizer, [rollout])[0].ids.tolist())


ROUNDING = 1e-6  # of a sum of float32 softmaxes


@torch.no_grad()
def plain_loop(backbone: Backbone, request: Request, sample_idx: int) -> tuple[int, ...]:
    """One full forward pass a token, one row, no cache, until a number lies where rounding decides what is drawn.

    End of sequence is id 0.
    """
    ids = list(ids_of(backbone, request))
    start = len(ids)
    for number in uniforms(request.prompt, sample_idx=sample_idx, seed=3, count=12, prefix=request.prefix):
        logits = backbone.model(input_ids=torch.tensor([ids]), use_cache=False).logits[0, -1].double().numpy()
        weights = np.exp(logits - logits.max())
        shares = weights.cumsum() / weights.sum()
        if np.abs(shares - number).min() < ROUNDING:
            break
        ids.append(int((shares <= number).sum()))
        if ids[-1] == 0:
            break
    return tuple(ids[start:])


@pytest.mark.parametrize(("config", "options", "in_a_tree"), ARCHITECTURES)
def test_samples_go_on_from_a_beginning_as_a_plain_loop_does(
    save_tiny: SaveTiny, config: str, options: dict[str, Any], in_a_tree: bool
):
    engine = HFEngine(model=str(save_tiny(config, **options)), workers=1)
    backbone = load_backbone(engine.model)
    found = draw_all(engine, requests(2))
    assert len(found) == 20
    for request in requests(2):
        for index in request.sample_idxs:
            sampled = found[request.problem_id, index]
            looped = plain_loop(backbone, request, index)
            assert len(looped) > 5 or looped[-1] == 0
            assert sampled.token_ids[: len(looped)] == looped
            assert sampled.text.startswith(request.prefix)
            assert sampled.n_prompt_tokens == len(ids_of(backbone, request))
    read = sum(item.n_read_tokens or 0 for item in found.values())
    texts = [ids_of(backbone, request) for request in requests(2)]
    parts = (texts[: len(STEPS)], texts[len(STEPS) :])  # a batch each: the beginnings of one prompt
    once = [item for part in parts for item in {text[: size + 1] for text in part for size in range(len(text))}]
    assert read == (len(once) if in_a_tree else sum(map(len, texts)))
    assert len(once) < sum(map(len, texts)) / 2


def test_what_texts_share_is_read_once_whatever_their_order(save_tiny: SaveTiny):
    backbone = load_backbone(str(save_tiny()))
    texts = [Text((3, 4, 5)), Text((3, 4, 5, 6, 7)), Text((3, 4, 8)), Text((3, 4, 5)), Text((9,)), Text((3, 4, 5, 6))]
    with torch.inference_mode():
        read = prefill(backbone, texts)
        # 3 4 5 6 7, then 8 behind 3 4, then 9: seven tokens, each counted with a longest text
        assert read.n_read == [0, 5, 1, 0, 1, 0]
        alone = prefill(backbone, [replace(text, prefix="") for text in texts])
    assert alone.n_read == [3, 5, 3, 3, 1, 4]
    assert_near(read.logits, alone.logits)
    assert torch.equal(read.mask, alone.mask)
    for tree, padded in zip(read.cache.layers, alone.cache.layers, strict=True):
        real = read.mask[:, None, :, None]
        assert_near(tree.keys * real, padded.keys * real)
        assert_near(tree.values * real, padded.values * real)


def test_a_sample_depends_on_its_beginning_and_not_on_its_batch(save_tiny: SaveTiny):
    model = str(save_tiny())
    together = draw_all(HFEngine(model=model, workers=1), requests(3))
    apart = draw_all(HFEngine(model=model, workers=1, max_rows=4), requests(3)[::-1])
    assert {key: item.token_ids for key, item in together.items()} == {k: item.token_ids for k, item in apart.items()}
    assert len({together[f"ab{prefix}", 0].token_ids for prefix in STEPS}) > 2


def test_done_samples_are_not_given_again(save_tiny: SaveTiny):
    engine = HFEngine(model=str(save_tiny()), workers=1, max_rows=4)
    everything = draw_all(engine, requests(3))
    rest = draw_all(engine, requests(3, done=frozenset({0, 2})))
    assert rest == {key: item for key, item in everything.items() if key[1] == 1}


def test_a_stop_text_in_the_beginning_ends_nothing(save_tiny: SaveTiny):
    engine = HFEngine(model=str(save_tiny()), workers=1)
    params = replace(PARAMS, stop=(".\n",))
    found = draw_all(engine, requests(2)[:1], params)
    assert all(item.text.startswith("first.\n") for item in found.values())
    assert any(item.n_generated_tokens for item in found.values())
