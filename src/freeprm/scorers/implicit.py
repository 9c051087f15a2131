"""The implicit process reward model with both of its models loaded here; see `_log_ratio` for what it makes of them."""

import warnings
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Self

import torch
from torch import Tensor, nn
from transformers import PreTrainedConfig, PreTrainedTokenizerBase

from freeprm.errors import ModelError
from freeprm.models.batching import Advance
from freeprm.models.casting import kept_of_update
from freeprm.models.encoding import Encoded
from freeprm.models.loading import (
    Backbone,
    Dtype,
    LoadOptions,
    check_same_vocabulary,
    load_backbone,
    portable,
    resolve,
    template_hash,
    weights_hash,
)
from freeprm.models.logprobs import score_tokens
from freeprm.models.publishing import model_files, push_files, save_files
from freeprm.models.reference_logprobs import LogProbCache, cache_key
from freeprm.models.reward_config import (
    Override,
    Reference,
    RewardConfig,
    check_reference,
    check_template,
    load_reward_config,
    recorded_date,
    reference_of,
    with_beta,
)
from freeprm.scorers._log_ratio import LogRatio, Score, described
from freeprm.scorers._servers import describe_served, load_served
from freeprm.scorers._usage import ModelUsage, Usage
from freeprm.scorers.base import Description, ScorerSource

_SAME_DIRECTION = 0.99
"""Cosine of two updates from which no warning is given; at 0.99, 14 % of the norm is orthogonal."""


@dataclass(frozen=True, slots=True)
class Loaded:
    """A model in this process, as a `Reader`."""

    backbone: Backbone
    cache: Path | None

    @property
    def source(self) -> str:
        """See `Reader`."""
        return self.backbone.source

    @property
    def tokenizer(self) -> PreTrainedTokenizerBase:
        """See `Reader`."""
        return self.backbone.tokenizer

    @property
    def config(self) -> PreTrainedConfig:
        """See `Reader`."""
        return self.backbone.model.config

    @property
    def max_length(self) -> int:
        """See `Reader`."""
        return self.backbone.max_length

    @property
    def dtype(self) -> str:
        """See `Reader`."""
        return self.backbone.dtype

    @property
    def place(self) -> str:
        """See `Reader`."""
        return str(next(self.backbone.model.parameters()).device)

    @property
    def model(self) -> nn.Module:
        """See `Reader`."""
        return self.backbone.model

    def reading(self, what: str, passed: Advance, *, usage: Usage, token_budget: int | None) -> Score:
        """See `Reader`; what the cache has is charged as it was when it was computed."""
        model, folder = self.backbone.model, self.backbone.folder
        advance = usage.timing(what, model, passed)
        if self.cache is None:
            return partial(score_tokens, model, token_budget=token_budget, advance=advance)
        key = cache_key(weights_hash(folder), model.config, f"{self.dtype}/{token_budget} tokens a batch")
        cache = LogProbCache(self.cache, model_key=key)

        def read(encoded: Sequence[Encoded]) -> list[Tensor]:
            if not encoded:
                return []
            if missing := cache.missing([encoded]):
                cache.compute(model, missing, token_budget=token_budget, advance=advance)
            else:
                n_tokens, seconds = cache.spent([encoded])
                usage.models[what] += ModelUsage(tokens=n_tokens, seconds=seconds)
            return cache.read([encoded])

        return read


class ImplicitPRM(LogRatio):
    """Scores responses with r = beta * log(pi_phi / pi_ref), at any granularity.

    Args:
        config: beta, the reference and the splitter; see reward.json.
        policy: the trained model.
        reference: the frozen model it started from; None to score without it.
        stored_reference: use the reference's log-probabilities that rollouts have from sampling.
        cache: see `ScorerSource`.
        about: by default from the config. A description without rewards means q at each step's end, as for released
            log-ratios.
    """

    def __init__(
        self,
        config: RewardConfig,
        *,
        policy: Backbone,
        reference: Backbone | None,
        stored_reference: bool = True,
        cache: Path | None = None,
        about: Description | None = None,
    ):
        about = about or described(
            policy.source, beta=config.beta, dtype=policy.dtype, splitter=config.splitter,
            reasoning=config.reasoning, policy=policy.folder, reference=None if reference is None else reference.folder,
            is_own_reference=reference is policy,
        )  # fmt: skip
        self.policy, self.reference = policy, reference
        ours = Loaded(policy, cache)
        theirs = ours if reference is policy else None if reference is None else Loaded(reference, cache)
        super().__init__(config, about, policy=ours, reference=theirs, stored_reference=stored_reference)

    @classmethod
    def from_pretrained(
        cls,
        source: str | Path,
        *,
        reference: str | Path | None = None,
        load_reference: bool = True,
        beta: float | None = None,
        override: Sequence[Override] = (),
        stored_reference: bool = True,
        device: str | None = None,
        reference_device: str | None = None,
        dtype: Dtype = "auto",
        attention: str | None = None,
        trust_remote_code: bool = False,
    ) -> Self:
        """Load a folder that `freeprm train` wrote.

        Args:
            source: the folder, or a hub id.
            reference, load_reference, beta, override, reference_device: see `ScorerSource`.
            stored_reference: see `ImplicitPRM`.
            device: of both models, such as "cuda:1"; by default CUDA if available.
            dtype: of both models; "auto" is the policy's own.
            attention, trust_remote_code: see `LoadOptions`.

        Raises:
            ModelError: no reward.json, one of a model of values, or a model that cannot be loaded.
            RewardMismatchError: another beta, reference or chat template than reward.json records.
        """
        options = LoadOptions(device=device, dtype=dtype, attention=attention, trust_remote_code=trust_remote_code)
        return cls.load(
            ScorerSource(
                source=str(source),
                reference=None if reference is None else str(reference),
                load_reference=load_reference,
                beta=beta,
                override=tuple(override),
                stored_reference=stored_reference,
                reference_device=reference_device,
                options=options,
            )
        )

    @classmethod
    def describe(cls, source: ScorerSource) -> Description:
        """See `freeprm.scorers.base.Member`."""
        config = load_reward_config(source.folder)
        recorded = reference_of(config, source=source.source)
        where, revision = (source.reference, None) if source.reference else (recorded.source, recorded.revision)
        return described(
            source.source, beta=config.beta if source.beta is None else source.beta, dtype=source.options.dtype,
            splitter=config.splitter, reasoning=config.reasoning, policy=source.folder,
            reference=resolve(where, revision=revision) if source.load_reference else None,
        )  # fmt: skip

    @classmethod
    def load(cls, source: ScorerSource) -> Self:
        """See `freeprm.scorers.base.Member`, and `from_pretrained`."""
        config = load_reward_config(source.folder)
        recorded = reference_of(config, source=source.source)
        policy = load_backbone(source.source, recorded_date(config, source.options, override=source.override))
        check_template(config, policy.tokenizer, source=policy.source, override=source.override)
        config = with_beta(config, source=policy.source, beta=source.beta, override=source.override)
        if not source.load_reference:
            return cls(config, policy=policy, reference=None, cache=source.cache)
        # Both in the policy's precision: otherwise the log-ratio would contain two roundings.
        options = replace(source.options, dtype=policy.dtype, device=source.reference_device or source.options.device)
        if source.reference is None:
            ref = _recorded(recorded, source.source, options)
        else:
            ref = load_backbone(source.reference, options)
        check_reference(config, ref, policy=policy, override=source.override)
        check_same_vocabulary(policy.tokenizer, ref.tokenizer)
        _warn_of_a_cast(policy, ref)
        return cls(
            config, policy=policy, reference=ref, stored_reference=source.stored_reference, cache=source.cache
        )  # fmt: skip

    def save_pretrained(self, folder: str | Path, *, reference: str | None = None) -> None:
        """Write the policy's files with reward.json and model card into another folder, for `from_pretrained`.

        Args:
            folder: is made if need be.
            reference: where the reference is to be found from there; by default where it was.

        Raises:
            ConfigError: the folder is the model's own.
            ModelError: the policy is a GGUF file.
        """
        save_files(model_files(self.policy.folder, self.config, reference=reference), Path(folder).expanduser())

    def push_to_hub(
        self,
        repo_id: str,
        *,
        reference: str | None = None,
        private: bool | None = None,
        token: str | None = None,
        revision: str | None = None,
        commit_message: str = "Upload process reward model",
    ) -> str:
        """Put the policy's files with reward.json and model card on the hub, for `from_pretrained(repo_id)`.

        What training wrote beside the weights goes along, but for manifest.json, which names the files that it read.

        Args:
            repo_id: OWNER/NAME; the repository is made if need be.
            reference: the reference's own hub id, if reward.json names a folder.
            private, token, revision, commit_message: see `huggingface_hub.HfApi`.

        Returns:
            The URL of the commit.

        Raises:
            ConfigError: the reference is a folder of this machine.
            ModelError: the hub refuses, or the policy is a GGUF file.
        """
        files = model_files(self.policy.folder, self.config, reference=reference)
        return push_files(
            files, repo_id, private=private, token=token, revision=revision, commit_message=commit_message
        )

    @classmethod
    def untrained(cls, model: Backbone, *, beta: float = 1.0, cache: Path | None = None) -> Self:
        """A model as its own reference: every log-ratio is exactly 0, and `reference-only` is its log-likelihood."""
        ref = Reference(source=portable(model.source), weights_sha256=weights_hash(model.folder))
        config = RewardConfig(
            beta=beta, base=model.source, reference=ref, objective="none", splitter="auto",
            template_sha256=template_hash(model.tokenizer),
        )  # fmt: skip
        return cls(config, policy=model, reference=model, cache=cache)


def _warn_of_a_cast(policy: Backbone, reference: Backbone) -> None:
    """Warn if reading a float32 policy in 16 bits loses much of what training changed."""
    if policy.model.dtype not in (torch.bfloat16, torch.float16):
        return
    kept = kept_of_update(policy.folder, reference.folder, policy.model.dtype)
    if kept is not None and kept.cosine < _SAME_DIRECTION:
        warnings.warn(
            f"{policy.source}: kept in float32 and read in {policy.dtype}, which leaves {kept.norm:.0%} of the norm of "
            f"what training changed, at a cosine of {kept.cosine:.2f} to it; the rewards are another model's. Read it "
            "as it is kept: --dtype float32, or auto",
            stacklevel=4,
        )


def _recorded(recorded: Reference, source: str | Path, options: LoadOptions) -> Backbone:
    """Load the reference from the location in reward.json."""
    try:
        return load_backbone(recorded.source, options, revision=recorded.revision)
    except ModelError as error:
        raise ModelError(
            f"the reference that {source} names cannot be loaded: {error}. Say where it is now with --reference, or "
            "score without it: --reward without-reference"
        ) from error


class Implicit:
    """See `freeprm.scorers.base.Member`: a folder that `freeprm train` wrote, its models loaded here or on servers."""

    def describe(self, source: ScorerSource) -> Description:
        """See `Member`."""
        return describe_served(source, source.servers) if source.servers else ImplicitPRM.describe(source)

    def load(self, source: ScorerSource) -> LogRatio:
        """See `Member`."""
        return load_served(source, source.servers) if source.servers else ImplicitPRM.load(source)


PLUGIN = Implicit()
