"""Drawing of a token and the end of a response: random numbers, temperature, top-p, end tokens, stop strings.

A sample's random numbers are fixed by the seed, the prompt and the sample's index, so that a response does not depend
on the rest of the batch or on the process that draws it.
"""

import json
from collections.abc import Sequence
from hashlib import blake2b
from math import ceil

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional
from transformers import PreTrainedTokenizerBase

from freeprm.errors import NonFiniteError
from freeprm.models.loading import Backbone
from freeprm.models.prompts import turn_end
from freeprm.types import Prompt


def uniforms(prompt: Prompt, *, sample_idx: int, seed: int, count: int, prefix: str = "") -> NDArray[np.float32]:
    """(count,) numbers in [0, 1) from Philox, keyed by a hash of the other arguments; a prefix of those of more."""
    identity = sample_identity(prompt, sample_idx=sample_idx, seed=seed, prefix=prefix)
    key = int.from_bytes(blake2b(identity, digest_size=16).digest())
    return np.random.Generator(np.random.Philox(key=key)).random(count, dtype=np.float32)


def sample_identity(prompt: Prompt, *, sample_idx: int, seed: int, prefix: str = "") -> bytes:
    """The key of a sample's random numbers."""
    parts = [seed, sample_idx, prompt, *([prefix] if prefix else [])]
    return json.dumps(parts, ensure_ascii=False, sort_keys=True).encode()


def draw(
    logits: Tensor, numbers: Tensor | None, *, temperature: float, top_p: float, of: Tensor | None = None
) -> Tensor:  # fmt: skip
    """The token whose share of the distribution a random number falls into: inverse-CDF sampling in float32.

    A large vocabulary is searched in two steps, first for a block of tokens, so that no sum runs over all of it.

    Args:
        logits: (U, V), of any dtype.
        numbers: (B,) float32 in [0, 1); None for the most likely token.
        temperature: above 0 where numbers are given.
        top_p: in (0, 1].
        of: (B,) the row of the logits that each token is drawn from; None for one from each, in order.

    Returns:
        (B,) int64.

    Raises:
        NonFiniteError: the logits hold NaN or +inf.
    """
    most = logits.amax(-1, keepdim=True)
    _check(most)
    if numbers is None:
        tokens = logits.argmax(-1)
        return tokens if of is None else tokens[of]
    n_texts, n_words = logits.shape
    shares = logits.new_zeros(n_texts, ceil(n_words / _BLOCK), _BLOCK, dtype=torch.float32)
    words = shares.view(n_texts, -1)[:, :n_words]
    torch.sub(logits.float(), most, out=words)
    words.div_(temperature).exp_()
    if top_p < 1:
        _keep_nucleus(words, top_p)
    if of is None:
        of = torch.arange(n_texts, device=logits.device)
    blocks = shares.sum(-1).cumsum(-1)[of]  # (B, blocks)
    target = numbers * blocks[:, -1]
    block = _first_above(blocks, target)
    before = functional.pad(blocks, (1, 0)).gather(1, block[:, None])[:, 0]
    return block * _BLOCK + _first_above(shares[of, block].cumsum(-1), target - before)


_BLOCK = 128  # tokens


def _first_above(cdf: Tensor, target: Tensor) -> Tensor:
    """(B,) the first place where (B, n) cumulated shares exceed a target; it has some share itself."""
    total = cdf[:, -1]
    # Below the total even where rounding took the target up to it or past it.
    target = torch.minimum(target, torch.nextafter(total, torch.zeros_like(total)))
    return torch.searchsorted(cdf, target[:, None], right=True)[:, 0]


def _keep_nucleus(shares: Tensor, top_p: float) -> None:
    """Set (U, V) shares to zero outside the smallest set of most likely tokens that has `top_p` of the total."""
    shares /= shares.sum(-1, keepdim=True)
    ranked, order = shares.sort(dim=-1, descending=True, stable=True)
    before = ranked.cumsum(-1) - ranked
    shares.scatter_(-1, order, ranked.masked_fill_(before >= top_p, 0.0))


def _check(values: Tensor) -> None:
    if not bool(values.isfinite().all()):
        raise NonFiniteError(
            "the model's logits are NaN or infinite; its weights or its dtype are at fault "
            "(float16 overflows where bfloat16 does not)"
        )


_EXTRA_TOKENS = 8  # beyond a stop string's own length, for tokens of less than a character


def end_tokens(backbone: Backbone) -> Tensor:
    """Ids that end a response: the chat template's end of turn, the tokenizer's and the model's ends of sequence."""
    named = getattr(backbone.model.generation_config, "eos_token_id", None)
    return torch.tensor(end_ids(backbone.tokenizer, named), dtype=torch.long)


def end_ids(tokenizer: PreTrainedTokenizerBase, named: int | list[int] | None) -> list[int]:
    """See `end_tokens`; `named` are those of the model's generation config."""
    ids = set(named if isinstance(named, list) else [named]) | {tokenizer.eos_token_id}
    turn = tokenizer(turn_end(tokenizer), add_special_tokens=False)["input_ids"]
    if len(turn) == 1:
        ids.add(turn[0])
    return sorted(int(token) for token in ids if token is not None)


def response_text(tokenizer: PreTrainedTokenizerBase, prompt_ids: Sequence[int], ids: Sequence[int]) -> str:
    """The text of response tokens, decoded behind the prompt's last token: some tokenizers drop a leading space."""
    before = _decoded(tokenizer, prompt_ids[-1:])
    both = _decoded(tokenizer, [*prompt_ids[-1:], *ids])
    return both[len(before) :] if both.startswith(before) else _decoded(tokenizer, ids)


def stop_position(text: str, stop: Sequence[str]) -> int | None:
    """Where the first stop string begins, or None."""
    return min((found for one in stop if (found := text.find(one)) >= 0), default=None)


def is_stopped(
    tokenizer: PreTrainedTokenizerBase, prompt_ids: Sequence[int], ids: Sequence[int], stop: Sequence[str]
) -> bool:
    """Whether a stop string is in the response; the last tokens are checked first, to avoid decoding all of them."""
    width = max(map(len, stop), default=0) + _EXTRA_TOKENS
    if stop_position(_decoded(tokenizer, ids[-width:]), stop) is None:
        return False
    return stop_position(response_text(tokenizer, prompt_ids, ids), stop) is not None


def _decoded(tokenizer: PreTrainedTokenizerBase, ids: Sequence[int]) -> str:
    return str(tokenizer.decode(list(ids), clean_up_tokenization_spaces=False))
