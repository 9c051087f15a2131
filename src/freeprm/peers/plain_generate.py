"""The usual way to samples with transformers: pad the prompts on the left, and call `generate`."""

from collections.abc import Sequence
from typing import Any

import torch
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from freeprm.models.prompts import render_prompt
from freeprm.types import Prompt


@torch.no_grad()
def generated_tokens(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, prompts: Sequence[Prompt], *, n: int,
    temperature: float, max_new_tokens: int,
) -> int:  # fmt: skip
    """Draw n responses to each prompt in one batch; how many tokens they have, end tokens included."""
    rows = [tokenizer(render_prompt(tokenizer, prompt), add_special_tokens=False)["input_ids"] for prompt in prompts]
    length, pad = max(map(len, rows)), model.config.pad_token_id
    ids = torch.tensor([[pad] * (length - len(row)) + row for row in rows])
    mask = torch.tensor([[0] * (length - len(row)) + [1] * len(row) for row in rows])
    generate: Any = model.generate
    drawn = generate(
        input_ids=ids.to(model.device), attention_mask=mask.to(model.device), do_sample=True, top_k=0,
        temperature=temperature, max_new_tokens=max_new_tokens, num_return_sequences=n,
    )[:, length:]  # fmt: skip
    ends = (drawn == tokenizer.eos_token_id).long()  # (B, T)
    before_end = ends.cumsum(1) - ends == 0  # with the end token itself
    return int(before_end.sum())
