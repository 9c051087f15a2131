"""A log-ratio of the embedded solvers, to measure with: a better one over the one that draws, nothing trained."""

from freeprm.models.backbone import LoadOptions, load_backbone
from freeprm.models.fingerprint import template_hash, weights_hash
from freeprm.models.reward_config import Reference, RewardConfig
from freeprm.scorers.implicit import ImplicitPRM

POLICY, REFERENCE = "solver:large", "solver:base"


def log_ratio(*, with_reference: bool = True, stored_reference: bool = True) -> ImplicitPRM:
    """beta * log(solver:large / solver:base), both in float32 on the CPU.

    Args:
        with_reference: load the reference too.
        stored_reference: see `ImplicitPRM`.
    """
    options = LoadOptions(device="cpu")
    policy, reference = load_backbone(POLICY, options), load_backbone(REFERENCE, options)
    config = RewardConfig(
        beta=0.5, base=REFERENCE, objective="none", splitter="step_markers",
        reference=Reference(source=REFERENCE, weights_sha256=weights_hash(reference.folder)),
        template_sha256=template_hash(policy.tokenizer),
    )  # fmt: skip
    return ImplicitPRM(
        config, policy=policy, reference=reference if with_reference else None, stored_reference=stored_reference
    )
