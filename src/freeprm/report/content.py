"""What a report holds: plain values, gathered by whoever ran the stages, and rendered by `page.render`."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from freeprm.types import Cost, Metric


@dataclass(frozen=True, slots=True, kw_only=True)
class StepView:
    """One step of a shown solution."""

    text: str
    reward: float
    """r_k, in beta * nats."""
    right: bool | None = None
    """The truth of the step; None where it is not known."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SolutionView:
    """One solution as the page shows it. Views of the same problem that follow each other share a frame."""

    problem: str
    gold: str | None
    answer: str | None
    """The solution's own final answer; None where none could be extracted."""
    correct: bool | None
    label: str
    """Why it is shown, e.g. `selected by best-of-64`."""
    scorer: str
    steps: tuple[StepView, ...]
    first_error: int | None = None
    """Index of the first wrong step by the truth; None if all are right or the truth is not known."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Curve:
    """One line of a training plot."""

    panel: str
    """The plot that it belongs to, e.g. `mean reward`; curves of one panel share axes."""
    name: str
    """The line's own name, e.g. `right responses`."""
    points: tuple[tuple[float, float], ...]
    """(optimiser step, value)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Claim:
    """What the run is to show, settled before its test split was looked at: which PRM, and which way to choose."""

    scorer: str
    selector: str
    n: int
    differences: Mapping[str, Metric]
    """What must be beaten, named for the reader (`majority vote`) -> the paired `accuracy_difference` over it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """Everything on the page. An empty section is left out."""

    title: str
    command: str
    """The command that makes this run again."""
    disclosure: str = ""
    """What a reader must know to weigh the figures, e.g. that the world is a made one."""
    settings: Mapping[str, str] = field(default_factory=dict)
    metrics: tuple[Metric, ...] = ()
    claim: Claim | None = None
    curves: tuple[Curve, ...] = ()
    costs: Mapping[str, Cost] = field(default_factory=dict)
    """Stage -> what it used, in the order of the stages."""
    solutions: tuple[SolutionView, ...] = ()
