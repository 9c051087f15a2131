"""The comparison of cost as data: tables, figures and notes, and the same for programs."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from freeprm.core.cost_conventions import Convention
from freeprm.core.ledger import Ledger
from freeprm.errors import ConfigError
from freeprm.experiments.cost.best_of_n import BestOfN, best_of_n, best_of_n_table
from freeprm.experiments.cost.figures import accuracy_plot, development_bars, standalone
from freeprm.experiments.cost.methods import Method, base_of, ratio
from freeprm.experiments.cost.page import page
from freeprm.experiments.cost.published import published_tables
from freeprm.experiments.cost.tables import TextTable, development_table, use_table

TITLE = "What methods cost"


@dataclass(frozen=True, slots=True, kw_only=True)
class CostReport:
    """Everything that `freeprm cost` shows."""

    methods: tuple[Method, ...]
    conventions: tuple[Convention, ...]
    against: str | None
    """Label of the method that others are divided by; None without methods."""
    measured: tuple[BestOfN, ...]
    """Best-of-N, where asked for."""
    published: bool

    @property
    def tables(self) -> list[TextTable]:
        """In the order of reading."""
        made: list[TextTable] = []
        if self.against is not None:
            made += [development_table(self.methods, way, against=self.against) for way in self.conventions]
            used = use_table(self.methods)
            made += [used] if used else []
        made += [best_of_n_table(self.measured)] if self.measured else []
        return [*made, *(published_tables() if self.published else [])]

    @property
    def figures(self) -> dict[str, str]:
        """By name of a file: bars and accuracy under each convention, where there is something to draw."""
        if self.against is None:
            return {}
        drawn = {}
        for way in self.conventions:
            name = way.name.split(":")[0].replace(" ", "-")
            drawn[f"development-{name}"] = development_bars(self.methods, way, against=self.against)
            drawn[f"accuracy-{name}"] = accuracy_plot(self.methods, way)
        return {name: figure for name, figure in drawn.items() if figure}

    @property
    def notes(self) -> list[str]:
        """What is to be known of the bills, each once."""
        return list(dict.fromkeys(note for method in self.methods for note in method.bill.notes))

    def data(self) -> dict[str, Any]:
        """For programs: the totals of each method, by convention and group, and every entry."""
        return {
            "methods": [self._method(method) for method in self.methods],
            "best_of_n": [
                {"label": item.label, "n": item.n, "seconds": item.seconds, "devices": item.devices}
                for item in self.measured
            ],
            "published": [asdict(table) for table in published_tables()] if self.published else [],
            "notes": self.notes,
        }

    def write(self, out: Path, *, command: str) -> None:
        """`cost.html`, and each figure as an SVG file."""
        out.mkdir(parents=True, exist_ok=True)
        for name, figure in self.figures.items():
            (out / f"{name}.svg").write_text(standalone(figure), encoding="utf-8")
        text = page(TITLE, command=command, tables=self.tables, figures=list(self.figures.values()), notes=self.notes)
        (out / "cost.html").write_text(text, encoding="utf-8")

    def _method(self, method: Method) -> dict[str, Any]:
        assert self.against is not None
        base = base_of(method, self.methods, label=self.against)
        return {
            "label": method.label,
            "responses": method.bill.responses,
            "accuracy": asdict(method.accuracy) if method.accuracy else None,
            "development": {
                way.name: {
                    **_total(method.development(way)),
                    "ratio": ratio(method.development(way).total(), base.development(way).total()),
                    "groups": {name: _total(part) for name, part in method.development(way).by("group").items()},
                }
                for way in self.conventions
            },
            "use": {name: _total(part) for name, part in method.use.by("group").items()},
            "entries": [asdict(entry) for entry in method.bill.ledger.entries],
        }


def cost_report(
    methods: Sequence[Method], conventions: Sequence[Convention], *, against: str | None = None,
    measures_use: bool = False, published: bool = False,
) -> CostReport:  # fmt: skip
    """Compare methods.

    Args:
        methods: with their bills.
        conventions: what is charged; one table each.
        against: label of the method that others are divided by; the first by default.
        measures_use: also times best-of-N of each method, which must have scores then.
        published: also the paper's figures.

    Raises:
        ConfigError: no such method, or one without scores.
    """
    labels = [method.label for method in methods]
    if against is not None and against not in labels:
        raise ConfigError(f"against: no method {against!r}; there are {', '.join(labels) or 'none'}")
    return CostReport(
        methods=tuple(methods),
        conventions=tuple(conventions),
        against=against if against is not None or not labels else labels[0],
        measured=tuple(best_of_n(method) for method in methods) if measures_use else (),
        published=published,
    )


def _total(part: Ledger) -> dict[str, Any]:
    total = part.total()
    known = total.n_known or not total.n_unknown
    return {**total._asdict(), "flops": total.flops if known else None}
