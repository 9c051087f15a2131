"""Token log-probabilities that need be computed once, above all the reference's: kept on disk, or noted at sampling.

`LogProbCache` keeps them on disk. The key covers everything that decides them: the weights, the configuration, the
precision, the very token ids (hence the tokenizer, the template and the data) and, where it matters, what was read
together. A stale or mis-shaped entry cannot be met by accident.

`stored_logprobs` has them for nothing where the generator is the reference, as in the paper: log pi_ref of each token
is known at sampling time. Rollouts carry it in three columns, and it serves where all that decides it is the same:

    token_ids         (T,) the response as it was drawn, end-of-turn token included
    token_logprobs    (T,) nats, under the model itself: temperature 1, nothing truncated
    logprobs_of       which model, its weights, template and precision, and behind which prompt: see `noted_of`
"""

import hashlib
import os
import time
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save
from torch import Tensor, nn
from transformers import PreTrainedConfig, PreTrainedTokenizerBase

from freeprm.errors import DataError, ModelError
from freeprm.io.rows import sync_path
from freeprm.models.batching import Advance
from freeprm.models.encoding import Encoded
from freeprm.models.lengths import kind_of
from freeprm.models.loading import template_hash, weights_hash
from freeprm.models.logprobs import score_tokens
from freeprm.types import Rollout

Groups = Sequence[Sequence[Encoded]]
"""Responses by the group that training reads them in."""
CHUNK = 2048
"""Responses in one cache file: what an interruption can cost at most."""
_NAME = 32
"""Characters of the name of a file."""
_ABANDONED = 3600.0
"""Seconds after which a half-written file is taken to be a killed process's: writing one takes a moment."""


class LogProbCache:
    """Token log-probabilities under one frozen model, from disk where they are known.

    Args:
        folder: of the entries; made if need be.
        model_key: tells this model and its precision from every other.
        together: read each group in a batch of its own, as training reads a micro-batch of one group. In 16 bits a
            batch decides how its rows are rounded: read with others, an untrained model of 135 million weights was off
            by 0.05 nats a token; read so, by nothing. Otherwise batches are as large as they may be.
        run: noted in what is computed, so that a run which is gone on from knows its own among what others computed.
    """

    def __init__(self, folder: Path, *, model_key: str, together: bool = False, run: str = ""):
        self.folder = folder
        self._run = run
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
        advance: Advance = lambda n_tokens, n_responses: None,
    ) -> None:
        """Put chunks, as `missing` gives them, on disk, each whole or not at all.

        `token_budget` and `advance` are those of `score_tokens`; groups that are read together ignore the budget.
        """
        self.folder.mkdir(parents=True, exist_ok=True)
        for left in self.folder.glob(f"{'?' * _NAME}.*.partial"):
            with suppress(FileNotFoundError):  # another process may have finished it, or deleted it, meanwhile
                if time.time() - left.stat().st_mtime > _ABANDONED:
                    left.unlink()
        for part in chunks:
            logps: list[Tensor] = []
            n_read, started = 0, time.perf_counter()

            def count(n_tokens: int, n_responses: int) -> None:
                nonlocal n_read
                n_read += n_tokens
                advance(n_tokens, n_responses)

            for batch in part if self._together else [_flat(part)]:
                budget = sum(len(item.ids) for item in batch) if self._together else token_budget
                logps += score_tokens(model, batch, token_budget=budget, advance=count)
            path = self._path(part)
            partial = path.with_suffix(f".{os.getpid()}.partial")
            seconds = time.perf_counter() - started
            spent = {"tokens": str(n_read), "seconds": repr(seconds), "run": self._run}
            partial.write_bytes(save({"logprobs": torch.cat(logps)}, metadata=spent))
            sync_path(partial)
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

    def spent(self, groups: Groups, *, by_this_run: bool = False) -> tuple[int, float]:
        """Tokens and seconds that computing these entries took, or those of this run; zeros for an older version's."""
        n_tokens, seconds = 0, 0.0
        for part in _chunks(groups):
            with safe_open(self._path(part), framework="pt") as entry:
                said = entry.metadata() or {}
            if not by_this_run or said.get("run") == self._run:
                n_tokens += int(said.get("tokens", 0))
                seconds += float(said.get("seconds", 0.0))
        return n_tokens, seconds

    def _path(self, groups: Groups) -> Path:
        digest = hashlib.sha256(self._model_key.encode())
        if self._together:
            digest.update(np.array([len(group) for group in groups], dtype=np.int64).tobytes())
        for item in _flat(groups):
            digest.update(np.array([len(item.ids), item.n_prompt], dtype=np.int64).tobytes())
            digest.update(item.ids.tobytes())
        return self.folder / f"{digest.hexdigest()[:_NAME]}.safetensors"


def cache_key(weights_sha256: str, config: PreTrainedConfig, precision: str) -> str:
    """The `model_key` of a `LogProbCache`: a model by its weights and configuration, and all that decides rounding."""
    config_sha256 = hashlib.sha256(config.to_json_string().encode()).hexdigest()
    return f"{weights_sha256}/{config_sha256}/{precision}"


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
    """Tells a model from every other that could have drawn a response: by the hashes of its weights and chat template.

    Args:
        weights_sha256: of its folder.
        template_sha256: None where it has none.
        dtype: of the weights.
        logits: dtype of a 16-bit model's logits; rounded ones are as far off as two near models (see `output_head`).
    """
    precision = dtype if dtype in _TOLERANCE else f"{dtype}, logits in {logits}"
    return f"{weights_sha256[:16]}/{(template_sha256 or 'no template')[:16]}/{precision}"


def noted_of(key: str, prompt_ids: Sequence[int]) -> str:
    """The column `logprobs_of`: a model by its key, and the tokens of the prompt that it read."""
    return f"{key}/{hashlib.sha256(np.array(prompt_ids, dtype=np.int64).tobytes()).hexdigest()[:16]}"


def stored_logprobs(
    rollouts: Sequence[Rollout],
    encoded: Sequence[Encoded],
    *,
    key: str,
    config: PreTrainedConfig,
    counts: Counter[str],
) -> dict[int, Tensor]:
    """By index, the (T,) log-probabilities that rollouts have for exactly the prompt and tokens that would be computed.

    Args:
        rollouts: B of them.
        encoded: the same, as the model reads them.
        key: of the model whose log-probabilities are wanted.
        config: of that model. Where it reads a whole response otherwise than the beginnings that tokens were drawn
            from (see `models.lengths`), what was noted is not what would be computed.
        counts: is added how many were taken, and why others were not.
    """
    found: dict[int, Tensor] = {}
    for index, (rollout, item) in enumerate(zip(rollouts, encoded, strict=True)):
        ids, logps, of = (rollout.extra.get(name) for name in COLUMNS)
        if logps is None:
            continue
        start = item.n_prompt - item.n_reasoning  # of what was drawn
        if not str(of).startswith(key):
            counts["reference computed: noted log-probabilities are of another model"] += 1
        elif not isinstance(ids, list) or ids != item.ids[start:].tolist() or len(ids) != len(logps):
            counts["reference computed: drawn as other tokens than the text is read as"] += 1
        elif of != noted_of(key, item.ids[:start].tolist()):
            counts["reference computed: noted log-probabilities do not say that they are of this prompt"] += 1
        elif kind_of(config, start) != kind_of(config, len(item.ids)):
            counts["reference computed: the whole response is read with other positions than its beginning was"] += 1
        else:
            found[index] = torch.tensor(logps[item.n_reasoning :], dtype=torch.float32)
            counts["reference taken from sampling"] += 1
    return found


def check_stored(
    stored: dict[int, Tensor],
    encoded: Sequence[Encoded],
    *,
    dtype: str,
    compute: Callable[[Sequence[Encoded]], Sequence[Tensor]],
) -> None:
    """Compute some responses again, in the reference's `dtype`, and compare.

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
