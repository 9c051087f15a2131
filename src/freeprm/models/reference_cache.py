"""The reference's token log-probabilities, computed once and kept on disk.

The key covers everything that decides them: the weights, the configuration, the precision, the very token ids
(hence the tokenizer, the template and the data) and, where it matters, what was read together. A stale or mis-shaped
entry cannot be met by accident.
"""

import hashlib
import os
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from freeprm.errors import ModelError
from freeprm.models.encoding import Encoded
from freeprm.models.logprobs import score_tokens

Groups = Sequence[Sequence[Encoded]]
"""Responses by the group that training reads them in."""
CHUNK = 2048
"""Responses in one cache file: what an interruption can cost at most."""


class ReferenceCache:
    """Token log-probabilities under one frozen model, from disk where they are known.

    Args:
        folder: where entries rest; made if need be.
        model_key: tells this model and its precision from every other.
        together: read each group in a batch of its own, as training reads a micro-batch of one group. In 16 bits a
            batch decides how its rows are rounded: read with others, an untrained model of 135 million weights was off
            by 0.05 nats a token; read so, by nothing. Otherwise batches are as large as they may be.
    """

    def __init__(self, folder: Path, *, model_key: str, together: bool = False):
        self.folder = folder
        self._model_key = model_key
        self._together = together

    def missing(self, groups: Groups) -> list[Groups]:
        """The chunks that are not on disk yet, for `compute`; processes may share them out."""
        return [part for part in _chunks(groups) if not self._path(part).exists()]

    def compute(
        self,
        model: nn.Module,
        chunks: Sequence[Groups],
        *,
        token_budget: int | None = None,
        advance: Callable[[int, int], None] = lambda n_tokens, n_responses: None,
    ) -> None:
        """Put chunks on disk, each whole or not at all.

        Args:
            model: the reference.
            chunks: as `missing` gives them.
            token_budget: see `score_tokens`; not heeded by groups that are read together.
            advance: see `score_tokens`.
        """
        self.folder.mkdir(parents=True, exist_ok=True)
        for part in chunks:
            logps: list[Tensor] = []
            for batch in part if self._together else [_flat(part)]:
                budget = sum(len(item.ids) for item in batch) if self._together else token_budget
                logps += score_tokens(model, batch, token_budget=budget, advance=advance)
            path = self._path(part)
            partial = path.with_suffix(f".{os.getpid()}.partial")
            save_file({"logprobs": torch.cat(logps)}, partial)
            partial.replace(path)

    def read(self, groups: Groups) -> list[Tensor]:
        """One (T,) tensor a response, in order.

        Raises:
            ModelError: an entry is missing or damaged; names the file.
        """
        results: list[Tensor] = []
        for part in _chunks(groups):
            path = self._path(part)
            try:
                flat = load_file(path)["logprobs"]
            except (OSError, SafetensorError, KeyError) as error:
                raise ModelError(f"{path}: not a readable cache entry ({error}); delete it and run again") from error
            results.extend(flat.split([item.n_response for item in _flat(part)]))
        return results

    def _path(self, groups: Groups) -> Path:
        digest = hashlib.sha256(self._model_key.encode())
        if self._together:
            digest.update(np.array([len(group) for group in groups], dtype=np.int64).tobytes())
        for item in _flat(groups):
            digest.update(np.array([len(item.ids), item.n_prompt], dtype=np.int64).tobytes())
            digest.update(item.ids.tobytes())
        return self.folder / f"{digest.hexdigest()[:32]}.safetensors"


def _chunks(groups: Groups) -> list[Groups]:
    """Whole groups, at most `CHUNK` responses unless one group has more."""
    chunks: list[list[Sequence[Encoded]]] = []
    room = 0
    for group in groups:
        if not chunks or len(group) > room:
            chunks.append([])
            room = CHUNK
        chunks[-1].append(group)
        room -= len(group)
    return list(chunks)


def _flat(groups: Groups) -> list[Encoded]:
    return [item for group in groups for item in group]
