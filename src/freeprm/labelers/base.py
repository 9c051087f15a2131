"""The Protocol of a labeler of steps, its input and its output.

A member of this family is a frozen dataclass whose fields are its options; it loads nothing before it labels.
"""

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from freeprm.types import Cost, Rollout, Span

Note = Mapping[str, Any]
"""JSON values."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Divided:
    """A response with its steps."""

    rollout: Rollout
    """Has the texts of its steps as `extra["steps"]`."""
    steps: tuple[Span, ...]
    """K character spans that tile the response, K at least 1."""


@dataclass(frozen=True, slots=True, kw_only=True)
class StepLabels:
    """The labels of one response's K steps."""

    labels: tuple[bool | None, ...]
    """(K,) hard: true for right; None if undecided."""
    values: tuple[float | None, ...]
    """(K,) soft: the probability of a right answer after each step, from 0 to 1; None as above."""
    columns: Mapping[str, Any] = field(default_factory=dict)
    """Further columns of the row."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Labelled:
    """The output of a labeler."""

    labels: Mapping[int, StepLabels]
    """By index into the responses, without those left out."""
    counts: Counter[str]
    """Of the work, and of responses left out by reason."""
    cost: Cost


@dataclass(frozen=True, slots=True, kw_only=True)
class Notebook:
    """Notes of a labeler's progress, so that an interruption costs little."""

    known: Sequence[Note]
    """Of earlier sessions, in order."""
    note: Callable[[Note], None]
    """Adds a note."""


class Labeler(Protocol):
    """Labels steps."""

    def label(self, responses: Sequence[Divided], *, seed: int, notebook: Notebook) -> Labelled:
        """Label each response's steps; the notes of an interrupted call are used, with the same result.

        Args:
            responses: all of the run.
            seed: of all random choices.
            notebook: notes of earlier sessions, and the place for new ones.
        """
        ...

    def identity(self) -> Mapping[str, Any]:
        """Everything that decides the labels, for the settings of a run; loads no weights."""
        ...

    def models(self) -> Mapping[str, str]:
        """Paths or ids of its models by role, for the lineage of costs."""
        ...
