"""The reference's token log-probabilities, computed once and kept on disk.

The key covers everything that decides them: the weights, the configuration, the precision and the very token ids
(hence the tokenizer, the template and the data). A stale or mis-shaped entry cannot be met by accident.
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

CHUNK = 2048
"""Responses in one cache file: what an interruption can cost at most."""


class ReferenceCache:
    """Token log-probabilities under one frozen model, from disk where they are known.

    Args:
        folder: where entries rest; made if need be.
        model_key: tells this model and its precision from every other.
    """

    def __init__(self, folder: Path, *, model_key: str):
        self.folder = folder
        self._model_key = model_key

    def missing(self, encoded: Sequence[Encoded]) -> list[Sequence[Encoded]]:
        """The chunks that are not on disk yet, for `compute`; processes may share them out."""
        return [part for part in _chunks(encoded) if not self._path(part).exists()]

    def compute(
        self,
        model: nn.Module,
        chunks: Sequence[Sequence[Encoded]],
        *,
        token_budget: int | None = None,
        advance: Callable[[int, int], None] = lambda n_tokens, n_responses: None,
    ) -> None:
        """Put chunks on disk, each whole or not at all.

        Args:
            model: the reference.
            chunks: as `missing` gives them.
            token_budget: see `score_tokens`.
            advance: see `score_tokens`.
        """
        self.folder.mkdir(parents=True, exist_ok=True)
        for part in chunks:
            logps = score_tokens(model, part, token_budget=token_budget, advance=advance)
            path = self._path(part)
            partial = path.with_suffix(f".{os.getpid()}.partial")
            save_file({"logprobs": torch.cat(logps)}, partial)
            partial.replace(path)

    def read(self, encoded: Sequence[Encoded]) -> list[Tensor]:
        """One (T,) tensor a response, in order.

        Raises:
            ModelError: an entry is missing or damaged; names the file.
        """
        results: list[Tensor] = []
        for part in _chunks(encoded):
            path = self._path(part)
            try:
                flat = load_file(path)["logprobs"]
            except (OSError, SafetensorError, KeyError) as error:
                raise ModelError(f"{path}: not a readable cache entry ({error}); delete it and run again") from error
            results.extend(flat.split([item.n_response for item in part]))
        return results

    def _path(self, encoded: Sequence[Encoded]) -> Path:
        digest = hashlib.sha256(self._model_key.encode())
        for item in encoded:
            digest.update(np.array([len(item.ids), item.n_prompt], dtype=np.int64).tobytes())
            digest.update(item.ids.tobytes())
        return self.folder / f"{digest.hexdigest()[:32]}.safetensors"


def _chunks(encoded: Sequence[Encoded]) -> list[Sequence[Encoded]]:
    return [encoded[start : start + CHUNK] for start in range(0, len(encoded), CHUNK)]
