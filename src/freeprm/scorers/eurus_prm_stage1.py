"""EurusPRM: an implicit process reward model that was released without a reward.json, so its constants are here.

The conversation is the template's (user: question, assistant: response); the score at a step is the accumulated
log-ratio, 0.001 * log(pi_phi / pi_ref) summed to the step's end, as in the card's code. That code finds the ends of
steps by tokenising prefixes again, which makes some a token or two late (`.\\n\\n` is one token of Qwen's); here steps
end by the tokens of the whole text. The card joins its steps `Step i: ...` by blank lines; a response is not changed
here.

Source: the cards of PRIME-RL/EurusPRM-Stage1 and -Stage2; Cui et al. 2025, arXiv:2502.01456.
"""

from dataclasses import dataclass, replace
from pathlib import Path

from freeprm.models.loading import check_same_vocabulary, load_backbone, portable, resolve, template_hash, weights_hash
from freeprm.models.reward_config import Reference, RewardConfig
from freeprm.scorers._log_ratio import described
from freeprm.scorers.base import Description, ScorerSource
from freeprm.scorers.implicit import ImplicitPRM


@dataclass(frozen=True, slots=True, kw_only=True)
class ReleasedLogRatio:
    """A log-ratio that was released as two models; see `freeprm.scorers.base.Member`."""

    name: str
    released: tuple[str, ...]
    """Hub ids that it was written for."""
    reference: str
    """The model that training started from."""
    beta: float
    splitter: str
    aggregation: str
    """The authors' aggregator of step scores."""

    def describe(self, source: ScorerSource) -> Description:
        """See `Member`; the default reference is the card's."""
        return self._about(source, source.folder, resolve(source.reference or self.reference), source.options.dtype)

    def load(self, source: ScorerSource) -> ImplicitPRM:
        """See `Member`; both models are in the first one's precision."""
        policy = load_backbone(source.source, source.options)
        options = replace(source.options, dtype=policy.dtype, device=source.reference_device or source.options.device)
        ref = load_backbone(source.reference or self.reference, options)
        check_same_vocabulary(policy.tokenizer, ref.tokenizer)
        config = RewardConfig(
            beta=self.beta, base=self.reference, objective="ce", splitter=self.splitter,
            template_sha256=template_hash(policy.tokenizer),
            reference=Reference(source=portable(ref.source), weights_sha256=weights_hash(ref.folder)),
        )  # fmt: skip
        about = self._about(source, policy.folder, ref.folder, policy.dtype)
        return ImplicitPRM(
            config, policy=policy, reference=ref, stored_reference=source.stored_reference, cache=source.cache,
            about=about,
        )  # fmt: skip

    def _about(self, source: ScorerSource, policy: Path, reference: Path, dtype: str) -> Description:
        source.refuse_log_ratio(f"{self.name}'s beta is its card's", allowed=["reference", "reference_device"])
        about = described(
            source.source, beta=self.beta, dtype=dtype, splitter=self.splitter, policy=policy, reference=reference
        )
        settings = {"scorer": self.name, **about.settings}
        return replace(
            about, name=self.name, aggregation=self.aggregation, rewards=(), reasoning=None, settings=settings
        )


PLUGIN = ReleasedLogRatio(
    name="eurus_prm_stage1",
    released=("PRIME-RL/EurusPRM-Stage1",),
    reference="Qwen/Qwen2.5-Math-7B-Instruct",  # in two users' code that follows the card's demo
    beta=0.001,  # coef=0.001 (card)
    splitter="auto",  # `Step 1: ...` (card)
    aggregation="min",  # the minimum over steps (card)
)
