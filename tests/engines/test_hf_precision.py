"""Which precision is chosen for whom; how fast each is, is the processor's affair."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from freeprm.engines.base import SamplingParams
from freeprm.engines.hf import HFEngine, precision

SaveTiny = Callable[..., Path]


def saved(save_tiny: SaveTiny, dtype: torch.dtype) -> str:
    from transformers import AutoModelForCausalLM

    folder = save_tiny()
    AutoModelForCausalLM.from_pretrained(folder).to(dtype).save_pretrained(folder)
    return str(folder)


def test_a_checkpoint_in_float32_stays_what_it_is(save_tiny: SaveTiny):
    engine = HFEngine(model=str(save_tiny()), device="cpu")
    choice = engine.choose(SamplingParams())
    assert choice == {"dtype": "float32", "why": "the checkpoint's own"}
    assert engine.chosen(choice).dtype == "float32"


def test_what_is_asked_for_is_not_tried(save_tiny: SaveTiny):
    model = saved(save_tiny, torch.bfloat16)
    assert HFEngine(model=model, dtype="float16").choose(SamplingParams())["dtype"] == "float16"


@pytest.mark.parametrize(("faster", "chosen"), [(3.0, "bfloat16"), (1.05, "float32"), (0.2, "float32")])
def test_a_checkpoint_of_16_bits_is_tried_in_both_precisions(
    save_tiny: SaveTiny, monkeypatch: pytest.MonkeyPatch, faster: float, chosen: str
):
    shapes = []

    def trial(n_out: int, n_in: int, dtypes: tuple[torch.dtype, ...]) -> dict[torch.dtype, float]:
        shapes.append((n_out, n_in))
        return {torch.float32: 1.0, torch.bfloat16: 1 / faster}

    monkeypatch.setattr(precision, "_trial", trial)
    engine = HFEngine(model=saved(save_tiny, torch.bfloat16), device="cpu")
    choice = engine.choose(SamplingParams())
    assert choice["dtype"] == chosen
    # Two layers of q, o (32 x 32), k, v (16 x 32), gate, up (48 x 32), down (32 x 48), and a head of 33 words.
    assert sorted(shapes) == [(16, 32), (32, 32), (32, 48), (33, 32), (48, 32)]
    assert choice["seconds"]["float32"] == 15.0
    assert f"draws in {chosen}" in choice["said"]


def test_noted_log_probabilities_are_in_the_checkpoints_own_precision(save_tiny: SaveTiny):
    engine = HFEngine(model=saved(save_tiny, torch.bfloat16), device="cpu")
    assert engine.choose(SamplingParams(logprobs=True))["dtype"] == "bfloat16"


def test_a_trial_takes_the_time_of_the_whole_matrix(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(precision, "_PART", 64)
    found = precision._trial(16, 8, (torch.float32, torch.bfloat16))  # 8 of 16 rows
    assert set(found) == {torch.float32, torch.bfloat16}
    assert all(0 < seconds < 60 for seconds in found.values())
