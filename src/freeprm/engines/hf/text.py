"""Where a response ends, and what its text is."""

from collections.abc import Sequence

import torch
from torch import Tensor
from transformers import PreTrainedTokenizerBase

from freeprm.models.backbone import Backbone
from freeprm.models.prompts import turn_end

_EXTRA_TOKENS = 8  # looked at beyond a stop string's own length, for tokens that hold less than a character


def end_tokens(backbone: Backbone) -> Tensor:
    """Ids that end a response: the chat template's end of turn, the tokenizer's and the model's ends of sequence."""
    named = getattr(backbone.model.generation_config, "eos_token_id", None)
    return torch.tensor(end_ids(backbone.tokenizer, named), dtype=torch.long)


def end_ids(tokenizer: PreTrainedTokenizerBase, named: int | list[int] | None) -> list[int]:
    """As `end_tokens`; `named` are the model's own, as its generation config has them."""
    ids = set(named if isinstance(named, list) else [named]) | {tokenizer.eos_token_id}
    turn = tokenizer(turn_end(tokenizer), add_special_tokens=False)["input_ids"]
    if len(turn) == 1:
        ids.add(turn[0])
    return sorted(int(token) for token in ids if token is not None)


def response_text(tokenizer: PreTrainedTokenizerBase, prompt_ids: Sequence[int], ids: Sequence[int]) -> str:
    """The text of response tokens as it stands behind the prompt.

    Decoded together with the prompt's last token, because some tokenizers drop a leading space otherwise.
    """
    before = _decoded(tokenizer, prompt_ids[-1:])
    both = _decoded(tokenizer, [*prompt_ids[-1:], *ids])
    return both[len(before) :] if both.startswith(before) else _decoded(tokenizer, ids)


def stop_position(text: str, stop: Sequence[str]) -> int | None:
    """Where the first stop string begins, None where there is none."""
    return min((found for one in stop if (found := text.find(one)) >= 0), default=None)


def is_stopped(
    tokenizer: PreTrainedTokenizerBase, prompt_ids: Sequence[int], ids: Sequence[int], stop: Sequence[str]
) -> bool:
    """A stop string is in the response; its last tokens are looked at first, which mostly saves decoding them all."""
    width = max(map(len, stop), default=0) + _EXTRA_TOKENS
    if stop_position(_decoded(tokenizer, ids[-width:]), stop) is None:
        return False
    return stop_position(response_text(tokenizer, prompt_ids, ids), stop) is not None


def _decoded(tokenizer: PreTrainedTokenizerBase, ids: Sequence[int]) -> str:
    return str(tokenizer.decode(list(ids), clean_up_tokenization_spaces=False))
