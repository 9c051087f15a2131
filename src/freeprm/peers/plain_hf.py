"""The usual way to token log-probabilities with transformers: pad a batch, log-softmax all of its logits, gather."""

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence
from transformers import PreTrainedModel

from freeprm.models.encoding import Encoded

BATCH_SIZE = 8


@torch.no_grad()
def token_logprobs(model: PreTrainedModel, batch: Sequence[Encoded], *, batch_size: int = BATCH_SIZE) -> list[Tensor]:
    """One (T,) tensor a response, in the model's dtype; batches are in the order given."""
    results = []
    for start in range(0, len(batch), batch_size):
        part = batch[start : start + batch_size]
        ids = pad_sequence([torch.from_numpy(item.ids).long() for item in part], batch_first=True).to(model.device)
        lengths = torch.tensor([len(item.ids) for item in part], device=ids.device)
        attention_mask = (torch.arange(ids.shape[1], device=ids.device) < lengths[:, None]).long()  # (B, L)
        logprobs = model(input_ids=ids, attention_mask=attention_mask).logits[:, :-1].log_softmax(-1)  # (B, L - 1, V)
        chosen = logprobs.gather(-1, ids[:, 1:, None])[..., 0].cpu()
        results += [
            row[item.n_prompt - 1 : len(item.ids) - 1] for row, item in zip(chosen, part, strict=True)
        ]  # fmt: skip
    return results
