"""Token log-probabilities to rewards at every granularity: the one idea of the method.

    r(y)  = beta * log( pi_phi(y|x) / pi_ref(y|x) )
    q_t   = sum over i <= t of beta * log( pi_phi(y_i) / pi_ref(y_i) )
    r_k   = q at the end of step k - q at the end of step k-1

Source: Yuan et al. 2024, arXiv:2412.01981, Proposition 3.1 and section 3.
"""

from collections.abc import Callable, Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from freeprm.errors import ConfigError, NonFiniteError, SpanError
from freeprm.types import Span

Floats = NDArray[np.float64]


def with_reference(policy: Floats, ref: Floats, beta: float) -> Floats:
    """(T,) beta * (log pi_phi - log pi_ref): the implicit process reward of each token."""
    return beta * (policy - ref)


def without_reference(policy: Floats, ref: Floats, beta: float) -> Floats:
    """(T,) beta * log pi_phi: the reference taken as uniform and dropped (Table 4)."""
    return beta * policy


def reference_only(policy: Floats, ref: Floats, beta: float) -> Floats:
    """(T,) beta * log pi_ref: the untrained model as scorer, the baseline of Table 4."""
    return beta * ref


REWARDS: Mapping[str, Callable[[Floats, Floats, float], Floats]] = {
    "with-reference": with_reference,
    "without-reference": without_reference,
    "reference-only": reference_only,
}
"""Ways to turn the two models' token log-probabilities into token rewards."""


def check_reward(name: str) -> str:
    """The name of a way in `REWARDS`.

    Raises:
        ConfigError: no such way.
    """
    if name not in REWARDS:
        raise ConfigError(f"reward {name!r}: expected one of {', '.join(REWARDS)}")
    return name


def step_rewards(token_rewards: Floats, spans: Sequence[Span]) -> Floats:
    """Reward of each step: the sum of its tokens' rewards.

    Args:
        token_rewards: (T,) response tokens only, in beta * nats.
        spans: K ranges [start, stop) of tokens, in order, tiling 0..T.

    Returns:
        (K,); sums to the response's reward, up to rounding.

    Raises:
        SpanError: the spans do not tile 0..T; names the first bad span.
        NonFiniteError: a token reward is NaN or infinite.
    """
    end = 0
    for index, span in enumerate(spans):
        if span.start != end or span.stop < span.start:
            raise SpanError(
                f"step {index} covers tokens {span.start} to {span.stop}, but the step before ends at {end}"
            )
        end = span.stop
    if end != len(token_rewards):
        raise SpanError(f"the last step ends at token {end}, but the response has {len(token_rewards)}")
    if not np.isfinite(token_rewards).all():
        raise NonFiniteError(f"the reward of token {int(np.flatnonzero(~np.isfinite(token_rewards))[0])} is not finite")
    return np.array([token_rewards[span.start : span.stop].sum() for span in spans])


def q_values(rewards: Floats) -> Floats:
    """q at the end of each step (or token): the running sum of its rewards."""
    return np.cumsum(rewards)
