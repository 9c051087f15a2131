"""The frozen reference in training: its log-probabilities as stored with the rollouts, from the cache, or computed."""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from itertools import count
from pathlib import Path
from uuid import uuid4

import torch
from accelerate import PartialState
from accelerate.utils import DistributedType
from torch import Tensor, nn
from transformers import PreTrainedTokenizerBase
from transformers.integrations import deepspeed

from freeprm.errors import ConfigError
from freeprm.io.progress import bar
from freeprm.models.encoding import Encoded
from freeprm.models.loading import (
    Dtype,
    LoadOptions,
    check_dtype,
    check_same_vocabulary,
    load_backbone,
    load_config,
    load_tokenizer,
    resolve,
    template_hash,
    weights_hash,
)
from freeprm.models.logprobs import distinct, score_tokens
from freeprm.models.reference_logprobs import (
    COLUMNS,
    Groups,
    LogProbCache,
    cache_key,
    check_stored,
    model_key,
    stored_logprobs,
)
from freeprm.training.settings import TrainSettings
from freeprm.types import Rollout

_MIXED = {"no": None, "bf16": torch.bfloat16, "fp16": torch.float16}


class FrozenReference:
    """The reference of a run; it is loaded only where its log-probabilities are not known yet.

    Args:
        settings: of the training run.
        start: folder of the model that training starts from: the reference, unless another is named.
        tokenizer: of that model.
        cache: where log-probabilities are kept; shared by all processes.
        process: this one among those that train together; each computes its share.
        mixed_precision: what the policy computes in, as `TrainingArguments.mixed_precision` has it of its own fields
            or of `accelerate launch`: the reference computes in the same, or rewards would not start from zero.
        run: the same in all sessions and processes of a run, and in no other; by default this object alone is a run.

    Raises:
        ConfigError: a mixed precision that the reference cannot compute in.
        ModelError: its vocabulary is another one.
    """

    def __init__(
        self, settings: TrainSettings, start: Path, tokenizer: PreTrainedTokenizerBase, cache: Path,
        process: PartialState, *, mixed_precision: str = "no", run: str | None = None,
    ):  # fmt: skip
        self.folder = reference_folder(settings, start)
        self.sha256 = weights_hash(self.folder)
        self.scored_tokens = 0
        """Tokens that went through it for this run, over all processes and sessions."""
        self._settings, self._tokenizer, self._process = settings, tokenizer, process
        self._dtype, self._autocast = _precision(settings, mixed_precision, process)
        if settings.reference is not None:
            theirs = load_tokenizer(self.folder, trust_remote_code=settings.trust_remote_code)
            check_same_vocabulary(tokenizer, theirs)
        rounds = self._autocast is not None or self._dtype != "float32"
        self._cache = LogProbCache(cache, model_key=self._model_key(), together=rounds, run=run or uuid4().hex)

    def stored(
        self, rollouts: Sequence[Rollout], encoded: Sequence[Encoded], counts: Counter[str]
    ) -> dict[int, Tensor]:
        """By index, the log-probabilities that rollouts bring from sampling, checked on some of them.

        They are of weights in the reference's dtype without autocast, which rounds elsewhere: under it none are taken.
        Sampling, token by token, rounds otherwise than reward: so much, within the tolerance of `check_stored`, an
        untrained policy earns with them instead of 0.
        """
        s = self._settings
        if not (s.with_reference and s.stored_reference):
            return {}
        if self._autocast is not None:
            brought = sum(COLUMNS[1] in rollout.extra for rollout in rollouts)
            counts.update(+Counter({"reference computed: noted log-probabilities are not of mixed precision": brought}))
            return {}
        key = model_key(weights_sha256=self.sha256, template_sha256=template_hash(self._tokenizer), dtype=self._dtype)
        config = load_config(self.folder, trust_remote_code=s.trust_remote_code)
        stored = stored_logprobs(rollouts, encoded, key=key, config=config, counts=counts)
        if stored:
            check_stored(stored, encoded, dtype=self._dtype, compute=partial(score_tokens, self._load()))
        return stored

    def logprobs(self, groups: Groups, stored: Mapping[int, Tensor]) -> list[Tensor]:
        """One (T,) tensor a response: as stored, else from the cache, else computed; zeros where it is left out.

        Args:
            groups: the responses as training reads them.
            stored: by place of the response among all of them.
        """
        if not self._settings.with_reference:
            return [torch.zeros(item.n_response) for group in groups for item in group]
        places = count()
        numbered = [[(next(places), item) for item in group] for group in groups]
        rest = [left for group in numbered if (left := [one for one in group if one[0] not in stored])]
        computed = self._cached([[item for _, item in group] for group in rest]) if rest else []
        known = {**stored, **dict(zip((place for group in rest for place, _ in group), computed, strict=True))}
        return [known[place] for group in numbered for place, _ in group]

    def _cached(self, groups: Groups) -> list[Tensor]:
        process = self._process
        missing = self._cache.missing(groups)
        process.wait_for_everyone()  # all have seen what is missing before anyone adds to it
        own = missing[process.process_index :: process.num_processes]
        if own:
            self._compute(own)
        process.wait_for_everyone()
        self.scored_tokens += self._cache.spent(groups, by_this_run=True)[0]
        return self._cache.read(groups)

    def _compute(self, chunks: Sequence[Groups]) -> None:
        """Put chunks into the cache."""
        s = self._settings
        scored_tokens = 0
        reference = self._load()
        total = sum(len(distinct(group)[0]) for part in chunks for group in part)
        precision = torch.autocast(self._process.device.type, dtype=self._autocast, enabled=self._autocast is not None)
        with precision, bar("reference", total, unit="responses") as advance:

            def read(n_tokens: int, n_responses: int) -> None:
                nonlocal scored_tokens
                scored_tokens += n_tokens
                advance(n_responses, f"{scored_tokens:,} tokens")

            self._cache.compute(reference, chunks, token_budget=s.token_budget, advance=read)

    def _load(self) -> nn.Module:
        s = self._settings
        options = LoadOptions(
            device=str(self._process.device),
            dtype=self._dtype,
            attention=s.attention,
            trust_remote_code=s.trust_remote_code,
        )
        with _whole():
            return load_backbone(str(self.folder), options).model

    def _model_key(self) -> str:
        s = self._settings
        config = load_config(self.folder, trust_remote_code=s.trust_remote_code)
        return cache_key(self.sha256, config, f"{self._dtype}/{self._autocast}")


def _precision(
    settings: TrainSettings, mixed_precision: str, process: PartialState
) -> tuple[Dtype, torch.dtype | None]:
    """Of the weights and of autocast, None without it, as the policy has them by the time that it is trained."""
    if not settings.with_reference:
        return settings.dtype, None
    if mixed_precision not in _MIXED:
        raise ConfigError(
            f"mixed precision {mixed_precision!r}: the reference cannot compute in it, so rewards would not start from "
            f"0; expected one of {', '.join(_MIXED)}, from trainer.bf16, trainer.fp16 or accelerate's settings"
        )
    if mixed_precision == "fp16" and process.device.type == "cpu":
        return settings.dtype, None  # accelerate takes no notice of it
    autocast = _MIXED[mixed_precision]
    if autocast is not None and process.distributed_type == DistributedType.DEEPSPEED:
        return check_dtype(str(autocast).removeprefix("torch.")), None  # its engine casts the weights
    return settings.dtype, autocast


@contextmanager
def _whole() -> Iterator[None]:
    """What is loaded meanwhile is whole in each process, also under DeepSpeed's ZeRO-3.

    While the configuration of ZeRO-3 is alive, and the trainer's arguments hold it, transformers leaves each process a
    part of every weight; only the engine that trains puts parts together, and the reference has none.
    """
    alive = deepspeed._hf_deepspeed_config_weak_ref
    deepspeed.unset_hf_deepspeed_config()
    try:
        yield
    finally:
        config = None if alive is None else alive()
        if config is not None:
            deepspeed.set_hf_deepspeed_config(config)


def reference_folder(settings: TrainSettings, start: Path) -> Path:
    """Where the reference is: the start, unless another is named."""
    return start if settings.reference is None else resolve(settings.reference, revision=settings.reference_revision)
