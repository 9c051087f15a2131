"""What is charged when methods are compared: as the paper did, all of it, or what a reader switches on."""

from collections.abc import Collection, Iterable
from dataclasses import dataclass, replace

from freeprm.core.ledger import DEVELOPMENT, EVALUATED, GROUPS, KL, MEANS, RECOMPUTED, TRAINING, Entry, Group, Ledger
from freeprm.errors import ConfigError


@dataclass(frozen=True, slots=True, kw_only=True)
class Convention:
    """Which charges of a method's development count, and how."""

    name: str
    charged: tuple[Group, ...]
    attention: bool = True
    """Count what grows with the context."""
    by_sequence: bool = False
    """Charge training `6 P` a token of every sequence in full, a pair being two, as though nothing were shared; and
    nothing else of it: no recomputation, no KL estimate, no means, no evaluation."""


AS_PUBLISHED = Convention(
    name="as published", charged=("annotation", "training"), attention=False, by_sequence=True
)  # fmt: skip
"""The paper's Figures 1 and 3, as far as its ratios tell: DPO's fit a charge by training sequence with all pairs, and
leave no room for the rollouts that both share. Any constant in place of 6 gives DPO the same ratio to CE; a labeler's
tokens are charged `2 P` each, which the paper does not state."""
ALL_IN = Convention(name="all-in", charged=GROUPS)
"""All that was done from the first rollout to the end of training, as it was measured."""
CONVENTIONS = {"published": AS_PUBLISHED, "all-in": ALL_IN}
_BESIDES = (RECOMPUTED, KL, MEANS, EVALUATED)


def charging(charged: Collection[str], *, attention: bool) -> Convention:
    """A convention of one's own.

    Raises:
        ConfigError: no such group.
    """
    if unknown := [name for name in charged if name not in GROUPS]:
        raise ConfigError(f"charge: no group {unknown[0]!r}; there are {', '.join(GROUPS)}")
    kept = tuple(group for group in GROUPS if group in charged)
    return Convention(name=f"charged: {', '.join(kept)}", charged=kept, attention=attention)


def under(convention: Convention, ledger: Ledger) -> Ledger:
    """The entries of development that a convention charges, each with what it charges for it."""
    entries: Iterable[Entry] = ledger.only(DEVELOPMENT, charged=convention.charged).entries
    if convention.by_sequence:
        entries = (_by_sequence(entry) for entry in entries if entry.what not in _BESIDES)
    if not convention.attention:
        entries = (replace(entry, attention_flops=0) if entry.attention_flops else entry for entry in entries)
    return Ledger(tuple(entries))


def _by_sequence(entry: Entry) -> Entry:
    """Training in proportion to the tokens of whole sequences, where those are known."""
    if entry.what != TRAINING or not entry.tokens or not entry.sequence_tokens or entry.parameter_flops is None:
        return entry
    return replace(
        entry,
        tokens=entry.sequence_tokens,
        parameter_flops=entry.parameter_flops * entry.sequence_tokens // entry.tokens,
    )
