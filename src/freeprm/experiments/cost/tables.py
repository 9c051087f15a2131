"""The tables of cost, as texts: development by method under a convention, use, and notes."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from freeprm.core.cost_conventions import Convention
from freeprm.core.ledger import GROUPS, Group, Ledger, Total
from freeprm.experiments.cost.methods import Method, base_of, ratio
from freeprm.report.tables import quantity

_USED: tuple[Group, ...] = ("generation", "scoring", "reference")


@dataclass(frozen=True, slots=True, kw_only=True)
class TextTable:
    """A table of texts; the first cell of a row is its name."""

    title: str
    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    note: str = ""


def flops_text(total: Total) -> str:
    """`1.24 T`; `unknown` where the models' shapes are not known, `≥ 1.24 T` where some of them are not."""
    if total.n_unknown and not total.n_known:
        return "unknown"
    if total.n_unknown:
        return f"≥ {quantity(total.flops)}"
    return quantity(total.flops) if total.flops else "–"


def development_table(methods: Sequence[Method], convention: Convention, *, against: str) -> TextTable:
    """FLOPs of each method's development by group, their sum, and how many times another's that is; see `base_of`."""
    parts = [method.development(convention).by("group") for method in methods]
    groups = [name for name in GROUPS if any(name in part and _paid(part[name]) for part in parts)]
    rows = []
    for method, part in zip(methods, parts, strict=True):
        whole = method.development(convention).total()
        times = ratio(whole, base_of(method, methods, label=against).development(convention).total())
        cells = [flops_text(part.get(name, Ledger()).total()) for name in groups]
        rows.append((
            method.label,
            "–" if method.bill.responses is None else f"{method.bill.responses:g}",
            *cells,
            flops_text(whole),
            quantity(whole.attention_flops) if whole.attention_flops else "–",
            "–" if times is None else f"{times:.3g}",
            *_times(whole),
        ))  # fmt: skip
    return TextTable(
        title=f"Development FLOPs, {convention.name}",
        columns=(
            "method", "responses an instruction", *groups, "total", "of which attention", f"x {against}",
            "seconds", "GPU-seconds",
        ),
        rows=tuple(rows),
        note=_note(convention),
    )  # fmt: skip


def use_table(methods: Sequence[Method]) -> TextTable | None:
    """What using each method took, by model; None where none of the folders is of its use."""
    rows = []
    for method in methods:
        cells = [method.use.only(charged=[group]).total() for group in _USED]
        drawn, scored = cells[0], method.use.only(charged=_USED[1:]).total()
        if drawn.tokens or scored.tokens:
            times = f"{drawn.seconds:,.1f}", *_times(scored)
            rows.append((method.label, *map(flops_text, [*cells, scored]), *times))
    if not rows:
        return None
    return TextTable(
        title="Use: rollouts to choose from, and their scores",
        columns=(
            "method", "generation", "reward model", "reference", "scoring in all", "seconds of generation",
            "seconds of scoring", "GPU-seconds of scoring",
        ),
        rows=tuple(rows),
    )  # fmt: skip


def _paid(part: Ledger) -> bool:
    total = part.total()
    return bool(total.n_known or total.n_unknown)


def _times(total: Total) -> tuple[str, str]:
    return f"{total.seconds:,.1f}", f"{total.gpu_seconds:,.1f}" if total.gpu_seconds else "–"


def _note(convention: Convention) -> str:
    return " ".join(_sentences(convention))


def _sentences(convention: Convention) -> Iterator[str]:
    if convention.by_sequence:
        yield "Training is 6 P a token of every sequence in full, a pair being two; annotation is 2 P a token."
        yield "Rollouts and the reference are not charged."
    else:
        yield "2 P a token forward and 4 P backward, of tokens that went through a model."
    if not convention.attention:
        yield "The attention term is left out."
