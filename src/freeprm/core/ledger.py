"""The ledger: the entries of costs, with switches for what is charged; sums equal their parts.

    book = ledger_of(runs)                  # of `Paid`, one a run folder
    book.total()                            # everything
    book.only(DEVELOPMENT, charged=("generation", "training")).total(attention=False).flops
    {group: part.total().flops for group, part in book.by("group").items()}
    under(AS_PUBLISHED, book).total()       # charged as the paper does

FLOPs and tokens are whole numbers, so every partition of a ledger adds up to it exactly. The seconds of a run outside
of all charges (loading, tokenising, files) are an entry of their own, which is negative if two models ran at the same
time.
"""

from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from math import fsum
from typing import Literal, NamedTuple

from freeprm.errors import ConfigError
from freeprm.types import Charge, Cost

ChargeGroup = Literal["generation", "annotation", "reference", "training", "scoring", "other"]
"""The unit of switching charges on and off."""
GROUPS: tuple[ChargeGroup, ...] = ("generation", "annotation", "reference", "training", "scoring", "other")
Purpose = Literal["development", "use"]
"""Making a reward model, or using one; the lineage of a trained model is development."""
DEVELOPMENT: Purpose = "development"
USE: Purpose = "use"

PREFILL, DECODE = "prefill", "decode"
POLICY, SCORER, REFERENCE = "policy forward", "scorer forward", "reference forward"
TRAINING, RECOMPUTED, KL, MEANS, EVALUATED = (
    "training", "recomputed activations", "KL estimate", "means over a step", "evaluation while training",
)  # fmt: skip
UNTIMED = "time not itemised"
"""The entry of a run's other seconds."""
_OF_CHARGE: Mapping[str, ChargeGroup] = {
    PREFILL: "generation", DECODE: "generation", POLICY: "scoring", SCORER: "scoring", REFERENCE: "reference",
    TRAINING: "training", RECOMPUTED: "training", KL: "training", MEANS: "training", EVALUATED: "training",
}  # fmt: skip
_OF_STAGE: Mapping[str, ChargeGroup] = {
    "sample": "generation", "label": "annotation", "train": "training", "score": "scoring",
}  # fmt: skip


@dataclass(frozen=True, slots=True, kw_only=True)
class Paid:
    """The cost of one run."""

    folder: str
    stage: str
    purpose: Purpose
    cost: Cost


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """One charge of one run."""

    folder: str
    stage: str
    purpose: Purpose
    group: ChargeGroup
    what: str
    tokens: int
    parameter_flops: int | None
    """None if the model's shape is unknown, as the next."""
    attention_flops: int | None
    seconds: float
    gpu_seconds: float
    sequence_tokens: int = 0
    """Of `training`: see `Cost.sequence_tokens`."""


class Total(NamedTuple):
    """A sum over entries."""

    tokens: int
    parameter_flops: int
    attention_flops: int
    n_known: int
    """Entries with tokens and known FLOPs."""
    n_unknown: int
    """Entries with unknown FLOPs, which are not in the FLOPs above."""
    seconds: float
    gpu_seconds: float

    @property
    def flops(self) -> int:
        """Parameters and attention together."""
        return self.parameter_flops + self.attention_flops


@dataclass(frozen=True, slots=True)
class Ledger:
    """Entries, each run's once."""

    entries: tuple[Entry, ...] = ()

    def only(self, purpose: Purpose | None = None, *, charged: Collection[ChargeGroup] = GROUPS) -> "Ledger":
        """The entries for a purpose, and of the groups that are charged."""
        kept = (entry for entry in self.entries if purpose is None or entry.purpose == purpose)
        return Ledger(tuple(entry for entry in kept if entry.group in charged))

    def by(self, field: Literal["folder", "stage", "purpose", "group", "what"]) -> dict[str, "Ledger"]:
        """The entries divided by one of their fields."""
        parts: dict[str, list[Entry]] = {}
        for entry in self.entries:
            parts.setdefault(getattr(entry, field), []).append(entry)
        return {name: Ledger(tuple(part)) for name, part in parts.items()}

    def total(self, *, attention: bool = True) -> Total:
        """The sum, with or without the attention term."""
        known = [entry for entry in self.entries if entry.parameter_flops is not None]
        return Total(
            tokens=sum(entry.tokens for entry in self.entries),
            parameter_flops=sum(entry.parameter_flops or 0 for entry in known),
            attention_flops=sum(entry.attention_flops or 0 for entry in known) if attention else 0,
            n_known=sum(entry.tokens > 0 for entry in known),
            n_unknown=len(self.entries) - len(known),
            seconds=fsum(entry.seconds for entry in self.entries),
            gpu_seconds=fsum(entry.gpu_seconds for entry in self.entries),
        )

    def __add__(self, other: "Ledger") -> "Ledger":
        """The union; a run that is development in either is development."""
        made = {entry.folder for entry in (*self.entries, *other.entries) if entry.purpose == DEVELOPMENT}
        merged = {(entry.folder, entry.what): entry for entry in (*self.entries, *other.entries)}
        return Ledger(
            tuple(replace(item, purpose=DEVELOPMENT) if item.folder in made else item for item in merged.values())
        )


def ledger_of(runs: Iterable[Paid]) -> Ledger:
    """The ledger of runs; duplicates count once."""
    return Ledger(tuple(entry for run in {run.folder: run for run in runs}.values() for entry in _entries(run)))


def group_of(stage: str, what: str) -> ChargeGroup:
    """The group of a charge: a labeler's is annotation, except the reference; others by their kind."""
    by_stage = _OF_STAGE.get(stage, "other")
    by_charge = _OF_CHARGE.get(what, by_stage)
    return by_stage if stage == "label" and by_charge != "reference" else by_charge


def _entries(run: Paid) -> Iterator[Entry]:
    left = run.cost.seconds
    for charge in run.cost.itemised():
        left -= charge.seconds or 0.0
        yield _entry(run, charge, charge.seconds or 0.0)
    if left:
        yield _entry(run, Charge(what=UNTIMED, tokens=0, parameter_flops=0, attention_flops=0), left)


def _entry(run: Paid, charge: Charge, seconds: float) -> Entry:
    cost = run.cost
    return Entry(
        folder=run.folder,
        stage=run.stage,
        purpose=run.purpose,
        group=group_of(run.stage, charge.what),
        what=charge.what,
        tokens=charge.tokens,
        parameter_flops=charge.parameter_flops,
        attention_flops=charge.attention_flops,
        seconds=seconds,
        gpu_seconds=seconds / cost.seconds * cost.gpu_seconds if cost.seconds else 0.0,
        sequence_tokens=cost.sequence_tokens if charge.what == TRAINING else 0,
    )


# What is charged when methods are compared: as the paper did, all of it, or what a reader switches on.


@dataclass(frozen=True, slots=True, kw_only=True)
class Convention:
    """The charges of a method's development, and how they count."""

    name: str
    charged: tuple[ChargeGroup, ...]
    attention: bool = True
    """Count the attention term."""
    by_sequence: bool = False
    """Charge training `6 P` a token of every whole sequence, two for a pair, as if nothing were shared, and nothing
    else: no recomputation, no KL estimate, no means, no evaluation."""


AS_PUBLISHED = Convention(
    name="as published", charged=("annotation", "training"), attention=False, by_sequence=True
)  # fmt: skip
"""The paper's Figures 1 and 3, as inferred from its ratios: DPO's fit a charge by training sequence with all pairs,
without the rollouts that both share. Any constant in place of 6 gives DPO the same ratio to CE; a labeler's tokens are
charged `2 P` each, which the paper does not state."""
ALL_IN = Convention(name="all-in", charged=GROUPS)
"""All work from the first rollout to the end of training, as measured."""
CONVENTIONS = {"published": AS_PUBLISHED, "all-in": ALL_IN}
_BESIDES = (RECOMPUTED, KL, MEANS, EVALUATED)


def charging(charged: Collection[str], *, attention: bool) -> Convention:
    """A custom convention; a ConfigError for an unknown group."""
    if unknown := [name for name in charged if name not in GROUPS]:
        raise ConfigError(f"charge: no group {unknown[0]!r}; there are {', '.join(GROUPS)}")
    kept = tuple(group for group in GROUPS if group in charged)
    return Convention(name=f"charged: {', '.join(kept)}", charged=kept, attention=attention)


def under(convention: Convention, ledger: Ledger) -> Ledger:
    """The entries of development under a convention, with the charges that count."""
    entries: Iterable[Entry] = ledger.only(DEVELOPMENT, charged=convention.charged).entries
    if convention.by_sequence:
        entries = (_by_sequence(entry) for entry in entries if entry.what not in _BESIDES)
    if not convention.attention:
        entries = (replace(entry, attention_flops=0) if entry.attention_flops else entry for entry in entries)
    return Ledger(tuple(entries))


def _by_sequence(entry: Entry) -> Entry:
    """Training charged by the tokens of whole sequences, if known."""
    if entry.what != TRAINING or not entry.tokens or not entry.sequence_tokens or entry.parameter_flops is None:
        return entry
    return replace(
        entry,
        tokens=entry.sequence_tokens,
        parameter_flops=entry.parameter_flops * entry.sequence_tokens // entry.tokens,
    )
