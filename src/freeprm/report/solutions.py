"""Solutions with their steps coloured by reward, in reports and on the server's page; `solutions.html` draws them."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import groupby
from typing import NamedTuple

LEVELS = 4
"""Shades of a step's reward on each side of zero, each a class of the style sheet."""
NOTE = (
    "Each step carries its reward, the log-ratio of its tokens: blue where the reward model finds it better than the "
    "reference does, orange where worse. The first truly wrong step is labelled. The line below is P(correct) after "
    "each step."
)
_LINE_WIDTH, _LINE_HEIGHT = 100, 24
"""Of the line of P(correct), in units of its picture."""


class TokenView(NamedTuple):
    """One token of a step."""

    text: str
    reward: float


@dataclass(frozen=True, slots=True, kw_only=True)
class StepView:
    """One step of a shown solution."""

    text: str
    reward: float
    """r_k, in beta * nats; or the step's score by another kind of scorer."""
    right: bool | None = None
    """The truth of the step; None if unknown."""
    p_correct: float | None = None
    """P(correct) after it; None if the scorer states none."""
    tokens: tuple[TokenView, ...] = ()
    """Its tokens with their rewards, if known; they make up the text."""


@dataclass(frozen=True, kw_only=True)
class SolutionView:
    """One shown solution. Consecutive views of the same problem share a frame."""

    problem: str
    gold: str | None
    answer: str | None
    """The solution's own final answer; None if none could be extracted."""
    correct: bool | None
    label: str
    """Why it is shown, e.g. `selected by best-of-64`."""
    scorer: str
    steps: tuple[StepView, ...]
    """None of a scorer of whole responses."""
    first_error: int | None = None
    """Index of the first wrong step; None if all are right or the truth is unknown."""
    score: float | None = None
    """Of the whole solution."""
    weight: float | None = None
    """Of its vote."""
    chosen_by: tuple[str, ...] = ()
    """Selectors that choose it."""
    neutral: float = 0.0
    """The step score without colour: 0.5 of probabilities."""
    threshold: float | None = None
    """A step whose score is below it breaks the solution; None: no step is said to."""

    @cached_property
    def breaks(self) -> int | None:
        """Index of the first step below the threshold."""
        if self.threshold is None:
            return None
        return next((k for k, step in enumerate(self.steps) if step.reward < self.threshold), None)

    @property
    def text(self) -> str:
        """The whole solution."""
        return "".join(step.text for step in self.steps)

    @property
    def p_correct(self) -> float | None:
        """P(correct) after the last step."""
        return self.steps[-1].p_correct if self.steps else None

    @property
    def p_line(self) -> str:
        """Points of the line of P(correct), from the left edge at the first step's end; empty if it is not known."""
        values = [step.p_correct for step in self.steps]
        if len(values) < 2 or None in values:
            return ""
        known = [value for value in values if value is not None]
        width = _LINE_WIDTH / (len(known) - 1)
        return " ".join(f"{k * width:.1f},{_LINE_HEIGHT * (1 - p):.1f}" for k, p in enumerate(known))

    def tags(self, index: int) -> Iterator[tuple[str, str]]:
        """Labels behind a step's text, as class and words."""
        step = self.steps[index]
        if index == self.first_error:
            yield "error", "✗ first error"
        elif step.right is False:
            yield "later", "✗ wrong"
        if index == self.breaks:
            yield "error", f"✗ breaks: first below {self.threshold:g}"
        if step.reward < self.neutral and index == min(range(len(self.steps)), key=lambda k: self.steps[k].reward):
            yield "low", "lowest reward"


@dataclass(frozen=True, slots=True)
class Solutions:
    """Solutions that share a scale of colours."""

    views: tuple[SolutionView, ...]

    @property
    def scale(self) -> float:
        """See `reward_scale`."""
        return reward_scale([step.reward - view.neutral for view in self.views for step in view.steps])

    @property
    def token_scale(self) -> float:
        """The same of tokens."""
        return reward_scale([one.reward for view in self.views for step in view.steps for one in step.tokens])

    @property
    def problems(self) -> list[list[SolutionView]]:
        """The solutions of each problem."""
        return [list(views) for _, views in groupby(self.views, key=lambda view: (view.problem, view.gold))]


def reward_scale(rewards: Sequence[float]) -> float:
    """The reward with full colour: the 90th percentile of |reward|, so that outliers do not fade the others."""
    sizes = sorted(abs(reward) for reward in rewards)
    return (sizes[int(0.9 * (len(sizes) - 1))] if sizes else 0.0) or 1.0


def shade(reward: float, scale: float) -> str:
    """The class of a reward's colour: its size relative to the scale, clipped, and its sign."""
    depth = min(LEVELS, round(abs(reward) / scale * LEVELS))
    return f"{'pos' if reward >= 0 else 'neg'}{depth}" if depth else "even"
