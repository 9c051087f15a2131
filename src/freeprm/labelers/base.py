"""What gives steps their labels (`Labeler`), what it is given and what it gives.

A member of this family is a frozen dataclass whose fields are its options; it loads nothing before it labels.
"""

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from freeprm.types import Cost, Rollout, Span

Note = Mapping[str, Any]
"""Something that JSON can hold."""


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
    """(K,) hard: true for right; None where it could not be decided."""
    values: tuple[float | None, ...]
    """(K,) soft: the probability of a right answer after each step, from 0 to 1; None as above."""
    columns: Mapping[str, Any] = field(default_factory=dict)
    """Further columns of the row."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Labelled:
    """What a labeler made."""

    labels: Mapping[int, StepLabels]
    """By index into the responses, without those left out."""
    counts: Counter[str]
    """What was done, and what was left out by reason."""
    cost: Cost


@dataclass(frozen=True, slots=True, kw_only=True)
class Notebook:
    """What a labeler notes as it works, so that an interruption costs little."""

    known: Sequence[Note]
    """Noted in earlier sessions, in order."""
    note: Callable[[Note], None]
    """Keeps a note from now on."""


class Labeler(Protocol):
    """Labels steps."""

    def label(self, responses: Sequence[Divided], *, seed: int, notebook: Notebook) -> Labelled:
        """Label each response's steps; with the notes of an interrupted call it goes on from there, to the same end.

        Args:
            responses: all of the run.
            seed: of every random choice.
            notebook: what is known from before, and where to note more.

        Raises:
            FreePRMError: see the errors of models, engines and graders.
        """
        ...

    def identity(self) -> Mapping[str, Any]:
        """What decides the labels, for the settings of a run; loads no weights."""
        ...

    def models(self) -> Mapping[str, str]:
        """Where its models are, by role, so that their own cost can be found."""
        ...
