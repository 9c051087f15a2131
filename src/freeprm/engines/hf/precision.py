"""The precision that a model draws in where none is asked for: its checkpoint's, or float32 where that is faster.

A checkpoint of 16 bits is the same model in float32, so that both are faithful, and which is faster depends on the
processor: with tiles for bfloat16 (AMX) 16 bits take a fraction of the time, without them several times as long. So
a trial decides. A checkpoint in float32 stays what it is: in 16 bits it would be another model.
"""

import time
from collections import Counter
from typing import Any

import torch
from torch import nn
from transformers import AutoModelForCausalLM, PreTrainedConfig

from freeprm.engines.base import SamplingParams

_ROWS = 16  # samples that are drawn at a time in the trial
_ROUNDS = 4  # of which the fastest counts
_PART = 1 << 25  # weights of a matrix that are multiplied; the rest takes as long for each
_AT_LEAST = 1 << 23  # weights of one shape, in several matrices: fewer would stay in the processor's cache
_GAIN = 1.1  # what is not multiplied is no faster in 16 bits


def choose_dtype(
    config: PreTrainedConfig, device: torch.device, params: SamplingParams, *, trust_remote_code: bool
) -> dict[str, Any]:
    """The `dtype` to draw in, and `why`; where it was tried, the `seconds` of each and what is `said` of it.

    Args:
        config: of the model, whose weights are not needed.
        device: that draws.
        params: with log-probabilities that are noted the checkpoint's own precision is kept, in which others read it.
        trust_remote_code: see `LoadOptions`.
    """
    own = config.dtype
    if not isinstance(own, torch.dtype):
        return {"dtype": "auto", "why": "the checkpoint does not say its own"}
    name = str(own).removeprefix("torch.")
    if own not in (torch.bfloat16, torch.float16):
        return {"dtype": name, "why": "the checkpoint's own"}
    if params.logprobs:
        return {"dtype": name, "why": "the checkpoint's own, as noted log-probabilities are to be"}
    if device.type == "cuda" and own == torch.bfloat16 and not torch.cuda.is_bf16_supported(including_emulation=False):
        return {"dtype": "float32", "why": "the device has no bfloat16"}
    if device.type != "cpu":
        return {"dtype": name, "why": "the checkpoint's own"}
    seconds = {"float32": 0.0, name: 0.0}
    for (n_out, n_in), count in _shapes(config, trust_remote_code=trust_remote_code).items():
        for dtype, taken in _trial(n_out, n_in, (torch.float32, own)).items():
            seconds[str(dtype).removeprefix("torch.")] += count * taken
    ratio = seconds["float32"] / seconds[name]
    chosen = name if ratio > _GAIN else "float32"
    return {
        "dtype": chosen,
        "why": f"{name} was tried and takes {1 / ratio:.2f} of the time of float32",
        "seconds": {dtype: round(taken, 4) for dtype, taken in seconds.items()},
        "said": f"draws in {chosen}: for {_ROWS} tokens the model's products take {seconds[name]:.3f} s in {name}, "
        f"{seconds['float32']:.3f} s in float32",
    }


def _shapes(config: PreTrainedConfig, *, trust_remote_code: bool) -> Counter[tuple[int, int]]:
    """(out, in) of the model's linear layers, and how many there are of each."""
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(config, trust_remote_code=trust_remote_code)
    return Counter(
        (module.out_features, module.in_features) for module in model.modules() if isinstance(module, nn.Linear)
    )


def _trial(n_out: int, n_in: int, dtypes: tuple[torch.dtype, ...]) -> dict[torch.dtype, float]:
    """Seconds of a product with a matrix of this shape, in each precision by turns."""
    part = min(n_out, max(1, _PART // n_in))
    copies = max(1, min(8, _AT_LEAST // (part * n_in)))
    tried = {
        dtype: (torch.full((_ROWS, n_in), 0.5, dtype=dtype), torch.full((copies, part, n_in), 0.5, dtype=dtype))
        for dtype in dtypes
    }
    best = dict.fromkeys(dtypes, float("inf"))
    for _ in range(_ROUNDS):
        for dtype, (rows, matrices) in tried.items():
            started = time.perf_counter()
            for matrix in matrices:
                nn.functional.linear(rows, matrix)
            best[dtype] = min(best[dtype], (time.perf_counter() - started) / copies * n_out / part)
    return best
