"""Any language model as its own scorer: a policy that is its reference, whose log-ratio is exactly 0 everywhere.

Its reward is `reference-only`, beta times the log-likelihood: the untrained model of the paper's Table 4, a baseline.
"""

from dataclasses import dataclass

from freeprm.models.loading import load_backbone
from freeprm.models.prompts import warn_of_plain_prompts
from freeprm.scorers._log_ratio import LogRatio, described
from freeprm.scorers._servers import describe_served, load_served
from freeprm.scorers.base import Description, ScorerSource
from freeprm.scorers.implicit import ImplicitPRM


@dataclass(frozen=True, slots=True)
class Untrained:
    """See `freeprm.scorers.base.Member`; beta is 1 by default."""

    def describe(self, source: ScorerSource) -> Description:
        """See `Member`."""
        source.refuse_log_ratio("an untrained model is its own reference", allowed=["beta", "servers"])
        if source.servers:
            return describe_served(source, source.servers, is_own_reference=True)
        return described(
            source.source, beta=1.0 if source.beta is None else source.beta, dtype=source.options.dtype,
            splitter="auto", policy=source.folder, reference=source.folder, is_own_reference=True,
        )  # fmt: skip

    def load(self, source: ScorerSource) -> LogRatio:
        """See `Member`."""
        source.refuse_log_ratio("an untrained model is its own reference", allowed=["beta", "servers"])
        if source.servers:
            return load_served(source, source.servers, is_own_reference=True)
        beta = 1.0 if source.beta is None else source.beta
        model = load_backbone(source.source, source.options)
        warn_of_plain_prompts(model.tokenizer, model=source.source)
        return ImplicitPRM.untrained(model, beta=beta, cache=source.cache)


PLUGIN = Untrained()
