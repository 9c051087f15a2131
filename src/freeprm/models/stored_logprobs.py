"""The reference's log-probabilities for nothing: those that were noted when the reference itself drew the responses.

Where the generator is the reference, as in the paper, log pi_ref of each token is known at sampling time. Rollouts
carry it in three columns, and it serves instead of a pass of the reference where all that decides it is the same:

    token_ids         (T,) the response as it was drawn, end-of-turn token included
    token_logprobs    (T,) nats, under the model itself: temperature 1, nothing truncated
    logprobs_of       which model, its weights, template and precision, and behind which prompt: see `noted_of`
"""

import hashlib
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from transformers import PreTrainedConfig, PreTrainedTokenizerBase

from freeprm.errors import DataError
from freeprm.models.encoding import Encoded
from freeprm.models.fingerprint import template_hash, weights_hash
from freeprm.models.lengths import kind_of
from freeprm.types import Rollout

COLUMNS = ("token_ids", "token_logprobs", "logprobs_of")
CHECKED = 16
"""Responses computed again, to see that what is noted is true."""
_TOLERANCE = {"float32": 1e-3, "float64": 1e-3}
_COARSE_TOLERANCE = 0.1  # of 16 bits: another batch rounds otherwise


def key_of(folder: Path, tokenizer: PreTrainedTokenizerBase, *, dtype: str, logits: str = "float32") -> str:
    """The `model_key` of a model that is here."""
    return model_key(
        weights_sha256=weights_hash(folder), template_sha256=template_hash(tokenizer), dtype=dtype, logits=logits
    )


def model_key(*, weights_sha256: str, template_sha256: str | None, dtype: str, logits: str = "float32") -> str:
    """Tells a model from every other that could have drawn a response.

    Args:
        weights_sha256: of its folder.
        template_sha256: of the chat template; None where it has none.
        dtype: of the weights.
        logits: what a 16-bit model's logits are kept in; rounded ones are as far off as two near models (see
            `output_head`).
    """
    precision = dtype if dtype in _TOLERANCE else f"{dtype}, logits in {logits}"
    return f"{weights_sha256[:16]}/{(template_sha256 or 'no template')[:16]}/{precision}"


def noted_of(key: str, prompt_ids: Sequence[int]) -> str:
    """What log-probabilities are of: a model by its key, and the tokens of the prompt that it read before them."""
    return f"{key}/{hashlib.sha256(np.array(prompt_ids, dtype=np.int64).tobytes()).hexdigest()[:16]}"


def stored_logprobs(
    rollouts: Sequence[Rollout],
    encoded: Sequence[Encoded],
    *,
    key: str,
    config: PreTrainedConfig,
    counts: Counter[str],
) -> dict[int, Tensor]:
    """By index, the (T,) log-probabilities that rollouts bring for exactly the tokens, behind exactly the prompt, that
    would be computed.

    Args:
        rollouts: B of them.
        encoded: the same, as the model reads them.
        key: of the model whose log-probabilities are wanted.
        config: of that model. Where it reads a whole response otherwise than the beginnings that tokens were drawn
            from (see `models.lengths`), what was noted is not what would be computed.
        counts: how many were taken, and why others were not, is added; nothing where none brings any.
    """
    found: dict[int, Tensor] = {}
    for index, (rollout, item) in enumerate(zip(rollouts, encoded, strict=True)):
        ids, logps, of = (rollout.extra.get(name) for name in COLUMNS)
        if logps is None:
            continue
        if not str(of).startswith(key):
            counts["reference computed: noted log-probabilities are of another model"] += 1
        elif not isinstance(ids, list) or ids != item.ids[item.n_prompt :].tolist() or len(ids) != len(logps):
            counts["reference computed: drawn as other tokens than the text is read as"] += 1
        elif of != noted_of(key, item.ids[: item.n_prompt].tolist()):
            counts["reference computed: noted log-probabilities do not say that they are of this prompt"] += 1
        elif kind_of(config, item.n_prompt) != kind_of(config, len(item.ids)):
            counts["reference computed: the whole response is read with other positions than its beginning was"] += 1
        else:
            found[index] = torch.tensor(logps, dtype=torch.float32)
            counts["reference taken from sampling"] += 1
    return found


def check_stored(
    stored: dict[int, Tensor],
    encoded: Sequence[Encoded],
    *,
    dtype: str,
    compute: Callable[[Sequence[Encoded]], Sequence[Tensor]],
) -> None:
    """Compute some responses again and compare.

    Args:
        stored: see `stored_logprobs`.
        encoded: what its indices mean.
        dtype: of the reference.
        compute: the reference's own (T,) log-probabilities of responses.

    Raises:
        DataError: they differ on average by more than rounding explains; names the response.
    """
    some = list(stored)[:: max(1, len(stored) // CHECKED)][:CHECKED]
    tolerance = _TOLERANCE.get(dtype, _COARSE_TOLERANCE)
    for index, logps in zip(some, compute([encoded[index] for index in some]), strict=True):
        error = float((stored[index] - logps).abs().mean())
        if not error <= tolerance:
            raise DataError(
                f"{encoded[index].name}: the log-probabilities noted at sampling differ from the reference's own by "
                f"{error:.3g} nats a token on average, but {tolerance} are allowed: they are of another model, or of "
                "a server that gives them after temperature or truncation. Compute the reference instead: "
                "--no-stored-reference in scoring, --set stored_reference=false in training"
            )
