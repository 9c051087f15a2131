"""A share of the instructions, or some of the responses to each: the scales of the paper's Figures 4 and 5."""

from collections import Counter
from collections.abc import Sequence

from freeprm.core.draws import group_key, rollout_key, sample
from freeprm.core.graded import Kept, keep, n_responses
from freeprm.errors import ConfigError
from freeprm.types import Group


def subsample_instructions(groups: Sequence[Group], share: float, *, seed: int = 0) -> Kept:
    """Keep round(share * P) of the P groups, at least one; smaller shares are subsets of larger ones.

    Raises:
        ConfigError: `share` is not above 0 and at most 1.

    Source: Yuan et al. 2024, arXiv:2412.01981, section 5.1: 25, 50 and 75 % of the instructions at random.
    """
    if not 0 < share <= 1:
        raise ConfigError(f"instructions: is {share}; expected a share above 0, at most 1")
    count = max(1, round(share * len(groups)))
    kept = sample(groups, count, key=group_key, seed=seed, purpose="instructions")
    dropped = Counter({
        "groups left out by subsampling": len(groups) - len(kept),
        "responses of groups left out by subsampling": n_responses(groups) - n_responses(kept),
    })  # fmt: skip
    return Kept(kept, +dropped, Counter())


def subsample_responses(groups: Sequence[Group], k: int, *, seed: int = 0) -> Kept:
    """Keep k responses of each group, or all where there are fewer; a smaller k keeps a subset of a larger one's.

    Right and wrong ones are drawn alike, so of N responses n+ n- pairs become n+ n- k(k-1) / (N(N-1)) on average.

    Raises:
        ConfigError: `k` is below 1.

    Source: Yuan et al. 2024, arXiv:2412.01981, section 5.1: 1, 2, 4 and 8 responses an instruction.
    """
    if k < 1:
        raise ConfigError(f"responses: is {k}; expected a whole number from 1")
    kept = keep(groups, lambda group: sample(group.rollouts, k, key=rollout_key, seed=seed, purpose="responses"))
    return Kept(
        kept, +Counter({"responses left out by subsampling": n_responses(groups) - n_responses(kept)}), Counter()
    )
