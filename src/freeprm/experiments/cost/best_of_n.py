"""What best-of-N takes at the time of use: generation, policy and reference, as Table 3 has them, but measured here."""

from collections.abc import Sequence
from dataclasses import dataclass

from freeprm.core.ledger import POLICY, REFERENCE, SCORER, USE, Ledger
from freeprm.errors import ConfigError
from freeprm.experiments.cost.methods import Method
from freeprm.experiments.cost.tables import TextTable, flops_text
from freeprm.io.lineage import Run


@dataclass(frozen=True, slots=True, kw_only=True)
class BestOfN:
    """Where the time of choosing among N responses went."""

    label: str
    n: float
    """Responses a problem."""
    seconds: dict[str, float]
    """Of generation, of each model that scored, and of the rest of scoring."""
    ledgers: dict[str, Ledger]
    """The same but for the rest, which has no FLOPs."""
    devices: tuple[str, ...]

    def share(self, part: str) -> float:
        """In % of generation."""
        return 100 * self.seconds[part] / self.seconds["generation"]

    @property
    def total(self) -> float:
        """Of all parts, in % of generation."""
        return sum(map(self.share, self.seconds))


def best_of_n(method: Method) -> BestOfN:
    """The times of a method's use, from a folder of scores and the rollouts that were scored.

    Raises:
        ConfigError: it has no scores, or none with the rollouts' times.
    """
    drawn, scored = _runs(method, "sample"), _runs(method, "score")
    if not scored or not drawn:
        raise ConfigError(
            f"{method.label}: {'no scores' if not scored else 'no rollouts that freeprm drew'} among its folders; "
            "expected a folder that `freeprm score` wrote for rollouts of `freeprm sample`"
        )
    by_what = method.use.by("what")
    models = {what: by_what[what] for what in (POLICY, SCORER, REFERENCE) if what in by_what}
    seconds = {what: part.total().seconds for what, part in models.items()}
    whole = sum(run.cost.seconds for run in scored)
    return BestOfN(
        label=method.label,
        n=sum(run.counts["samples"] for run in drawn) / sum(run.counts["problems"] for run in drawn),
        seconds={
            "generation": sum(run.cost.seconds for run in drawn),
            **seconds,
            "rest of scoring": whole - sum(seconds.values()),
        },
        ledgers={"generation": method.use.by("group")["generation"], **models},
        devices=tuple(dict.fromkeys(device for run in (*drawn, *scored) for device in run.cost.devices)),
    )


def best_of_n_table(measured: Sequence[BestOfN]) -> TextTable:
    """Table 3's shape, a column for each method."""
    parts = list(dict.fromkeys(part for item in measured for part in item.seconds))
    rows = [(part, *(_cell(item, part) for item in measured)) for part in parts]
    totals = ("total", *(f"{item.total:.1f} %" for item in measured))
    without = ("total without the reference, in % of it", *map(_without_reference, measured))
    devices = sorted({device for item in measured for device in item.devices})
    return TextTable(
        title="Best-of-N, measured: time in % of generation, with seconds and FLOPs",
        columns=("", *(f"{item.label}, N = {item.n:g}" for item in measured)),
        rows=(*rows, totals, without),
        note=f"On {', '.join(devices) or 'devices that were not recorded'}.",
    )


def _cell(item: BestOfN, part: str) -> str:
    if part not in item.seconds:
        return "–"
    flops = f", {flops_text(item.ledgers[part].total())}" if part in item.ledgers else ""
    return f"{item.share(part):.1f} % ({item.seconds[part]:,.1f} s{flops})"


def _without_reference(item: BestOfN) -> str:
    if REFERENCE not in item.seconds:
        return "–"
    return f"{100 * (item.total - item.share(REFERENCE)) / item.total:.1f} %"


def _runs(method: Method, stage: str) -> list[Run]:
    folders = {entry.folder for entry in method.bill.ledger.only(USE).entries}
    return [run for run in method.bill.runs if run.stage == stage and str(run.folder) in folders]
