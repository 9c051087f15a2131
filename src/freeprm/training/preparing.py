"""From groups of graded rollouts to examples: encode, fit the context, attach the reference's log-probabilities."""

import hashlib
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import nullcontext
from functools import partial
from pathlib import Path

import torch
from accelerate import PartialState
from accelerate.utils import reduce
from torch import Tensor, nn

from freeprm.errors import DataError
from freeprm.io.progress import bar
from freeprm.models.backbone import (
    LoadOptions,
    check_same_vocabulary,
    context_length,
    load_backbone,
    load_config,
    load_tokenizer,
)
from freeprm.models.encoding import Encoded, encode, fit
from freeprm.models.fingerprint import template_hash, weights_hash
from freeprm.models.folders import resolve
from freeprm.models.logprobs import distinct, score_tokens
from freeprm.models.reference_cache import ReferenceCache
from freeprm.models.stored_logprobs import check_stored, model_key, stored_logprobs
from freeprm.training.examples import Example, mismatches
from freeprm.training.settings import TrainSettings
from freeprm.types import Group, Rollout


class Preparer:
    """Makes examples; the reference is loaded only where its log-probabilities are not on disk yet.

    Args:
        settings: of the training run.
        start: folder of the model that training starts from; gives the tokenizer.
        cache: where reference log-probabilities are kept; shared by all processes.
        process: this one among those that train together; each computes its share of the reference.
    """

    def __init__(self, settings: TrainSettings, start: Path, cache: Path, process: PartialState):
        trust = settings.trust_remote_code
        self.tokenizer = load_tokenizer(start, trust_remote_code=trust)
        self.reference_folder = start if settings.reference is None else resolve(settings.reference)
        self.reference_sha256 = weights_hash(self.reference_folder)
        self.scored_tokens = 0
        """Tokens that went through the reference, over all processes."""
        if settings.reference is not None:
            check_same_vocabulary(self.tokenizer, load_tokenizer(self.reference_folder, trust_remote_code=trust))
        self._settings = settings
        self._process = process
        self._cache = ReferenceCache(cache, model_key=self._model_key())
        config = load_config(start, trust_remote_code=trust)
        self._max_length = min(settings.max_length or context_length(config), context_length(config))

    def examples(
        self, groups: Sequence[Group], *, needs_kl: bool, needs_pairs: bool, counts: Counter[str]
    ) -> list[Example]:
        """Examples of the responses that fit the context; counts what does not, and what is used.

        Args:
            groups: graded, none empty.
            needs_kl: add to each group its prompt with a response to another prompt.
            needs_pairs: leave out groups that the context leaves with one class.
            counts: added to.

        Raises:
            DataError: nothing to train on fits the context, or a KL is needed and there is only one prompt.
        """
        rollouts = [rollout for group in groups for rollout in group.rollouts]
        fitted = fit(encode(self.tokenizer, rollouts), max_length=self._max_length, too_long=self._settings.too_long)
        counts.update(fitted.counts)
        others = self._mismatched(groups) if needs_kl else {}
        stored = self._stored([rollouts[row] for row in fitted.kept], fitted.encoded, counts)
        logps = self._reference_logps([*fitted.encoded, *others.values()], stored)
        other_logps = dict(zip(others, logps[len(fitted.encoded) :], strict=True))
        by_row = dict(zip(fitted.kept, zip(fitted.encoded, logps[: len(fitted.encoded)], strict=True), strict=True))
        examples = []
        for position, rows in enumerate(_rows_of(groups)):
            kept = [row for row in rows if row in by_row]
            example = Example(
                encoded=tuple(by_row[row][0] for row in kept),
                labels=tuple(rollouts[row].correct is True for row in kept),
                ref_logps=tuple(by_row[row][1] for row in kept),
                mismatched=others.get(position),
                mismatched_ref_logps=other_logps.get(position),
            )
            if needs_pairs and not example.n_pairs:
                counts["groups that the context leaves with one class"] += 1
            elif kept:
                examples.append(example)
        _count_used(examples, counts, max_length=self._max_length)
        return examples

    def _mismatched(self, groups: Sequence[Group]) -> dict[int, Encoded]:
        """By position of the group: its prompt with a response to another one, cut to the context."""
        drawn = mismatches(groups, seed=self._settings.seed)
        if not drawn:
            raise DataError(
                "this objective estimates a KL from responses to other prompts; expected at least two prompts"
            )
        fitted = fit(encode(self.tokenizer, drawn), max_length=self._max_length, too_long="truncate")
        return dict(zip(fitted.kept, fitted.encoded, strict=True))

    def _stored(
        self, rollouts: Sequence[Rollout], encoded: Sequence[Encoded], counts: Counter[str]
    ) -> dict[int, Tensor]:
        """By index, the reference's log-probabilities that rollouts bring from sampling, checked on some of them."""
        s = self._settings
        if not (s.with_reference and s.stored_reference) or s.trainer.get("bf16"):
            return {}
        key = model_key(
            weights_sha256=self.reference_sha256, template_sha256=template_hash(self.tokenizer), dtype=s.dtype
        )
        stored = stored_logprobs(rollouts, encoded, key=key, counts=counts)
        if stored:
            check_stored(stored, encoded, dtype=s.dtype, compute=partial(score_tokens, self._load_reference()))
        return stored

    def _reference_logps(self, encoded: Sequence[Encoded], stored: Mapping[int, Tensor]) -> list[Tensor]:
        """One (T,) tensor a response: as stored, else from the cache, else computed."""
        if not self._settings.with_reference:
            return [torch.zeros(item.n_response) for item in encoded]
        rest = [index for index in range(len(encoded)) if index not in stored]
        computed = self._cached([encoded[index] for index in rest]) if rest else []
        known = {**stored, **dict(zip(rest, computed, strict=True))}
        return [known[index] for index in range(len(encoded))]

    def _cached(self, encoded: Sequence[Encoded]) -> list[Tensor]:
        process = self._process
        missing = self._cache.missing(encoded)
        process.wait_for_everyone()  # all have seen what is missing before anyone adds to it
        own = missing[process.process_index :: process.num_processes]
        n_tokens = self._compute(own) if own else 0
        process.wait_for_everyone()
        self.scored_tokens += int(reduce(torch.tensor(float(n_tokens), device=process.device), reduction="sum"))
        return self._cache.read(encoded)

    def _compute(self, chunks: Sequence[Sequence[Encoded]]) -> int:
        """Put chunks into the cache; the tokens that went through the reference for it."""
        s = self._settings
        scored_tokens = 0
        reference = self._load_reference()
        total = sum(len(distinct(part)[0]) for part in chunks)
        # As the policy will compute, or it would not start from rewards of zero.
        precision = (
            torch.autocast(self._process.device.type, torch.bfloat16) if s.trainer.get("bf16") else nullcontext()
        )
        with precision, bar("reference", total, unit="responses") as advance:

            def count(n_tokens: int, n_responses: int) -> None:
                nonlocal scored_tokens
                scored_tokens += n_tokens
                advance(n_responses, f"{scored_tokens:,} tokens")

            self._cache.compute(reference, chunks, token_budget=s.token_budget, advance=count)
        return scored_tokens

    def _load_reference(self) -> nn.Module:
        s = self._settings
        options = LoadOptions(
            device=str(self._process.device),
            dtype=s.dtype,
            attention=s.attention,
            trust_remote_code=s.trust_remote_code,
        )
        return load_backbone(str(self.reference_folder), options).model

    def _model_key(self) -> str:
        s = self._settings
        config = load_config(self.reference_folder, trust_remote_code=s.trust_remote_code)
        config_sha256 = hashlib.sha256(config.to_json_string().encode()).hexdigest()
        return f"{self.reference_sha256}/{config_sha256}/{s.dtype}/{bool(s.trainer.get('bf16'))}"


def reachable_reward(examples: Sequence[Example], beta: float) -> float | None:
    """The most that an average right response could earn: -beta * log pi_ref(y), for a policy certain of it."""
    right = [
        float(logps.sum())
        for example in examples
        for logps, label in zip(example.ref_logps, example.labels, strict=True)
        if label
    ]
    return -beta * sum(right) / len(right) if right else None


def _count_used(examples: Sequence[Example], counts: Counter[str], *, max_length: int) -> None:
    """Raises: DataError, if the responses that fit the context lack a class."""
    n_responses = sum(len(example.labels) for example in examples)
    n_right = sum(sum(example.labels) for example in examples)
    if not 0 < n_right < n_responses:
        raise DataError(
            f"{n_right} right and {n_responses - n_right} wrong responses fit {max_length} tokens with their prompts; "
            "expected both. Raise max_length, or truncate with too_long=truncate"
        )
    counts["right responses"] += n_right
    counts["wrong responses"] += n_responses - n_right
    counts["groups"] += len(examples)


def _rows_of(groups: Sequence[Group]) -> Iterator[range]:
    """The range of each group's rollouts, when all are counted through."""
    start = 0
    for group in groups:
        yield range(start, start + len(group.rollouts))
        start += len(group.rollouts)
