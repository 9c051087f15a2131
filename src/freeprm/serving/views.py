"""Scored responses as the page shows them: side by side, the best first, with what each selector chooses."""

from bisect import bisect_right
from collections.abc import Sequence

import numpy as np

from freeprm.core.score_kinds import COLUMN, probability
from freeprm.report.page import TEMPLATES
from freeprm.report.solutions import Solutions, SolutionView, StepView, TokenView
from freeprm.serving.selecting import Selected
from freeprm.types import Rollout

_CHOSEN_BY = {"best_of_n": "best of {n}", "weighted_vote": "weighted vote", "majority": "majority"}


def fragment(selected: Selected, *, threshold: float | None) -> str:
    """The HTML of one problem's solutions, texts escaped.

    Args:
        selected: N responses to one problem.
        threshold: a step with a score below it breaks its solution.
    """
    shared = Solutions(tuple(_view(selected, index, threshold) for index in selected.ranked))
    votes: dict[str, float] = {}
    for row, weight in zip(selected.rows, selected.weights, strict=True):
        if row.pred is not None:
            votes[row.pred] = votes.get(row.pred, 0.0) + weight
    return TEMPLATES.get_template("solved.html").render(
        shared=shared, votes=sorted(votes.items(), key=lambda vote: -vote[1]), weighting=selected.weighting
    )


def _view(selected: Selected, index: int, threshold: float | None) -> SolutionView:
    row = selected.rows[index]
    kind = row.extra.get(COLUMN)
    return SolutionView(
        problem=row.prompt if isinstance(row.prompt, str) else "\n\n".join(turn["content"] for turn in row.prompt),
        gold=row.answer,
        answer=row.pred,
        correct=row.correct,
        label=f"Solution {row.sample_idx + 1}",
        scorer=row.scorer or "",
        steps=tuple(_steps(row)),
        score=selected.scores[index],
        weight=selected.weights[index],
        chosen_by=tuple(
            _CHOSEN_BY[name].format(n=len(selected.rows))
            for name, choice in selected.choices.items()
            if choice.sample == index
        ),
        first_error=row.extra.get("first_error"),
        neutral=0.5 if kind == "probability" else 0.0,
        threshold=threshold,
    )


def _steps(row: Rollout) -> list[StepView]:
    """The steps of a row; of a scorer of whole responses, the response as one step."""
    if row.step_scores is None:
        return [StepView(text=row.response, reward=float(row.score or 0.0), p_correct=_p(row, [row.score or 0.0])[0])]
    spans = row.extra.get("step_spans") or []
    truth = row.extra.get("step_labels") or [None] * len(spans)
    tokens = _tokens_by_step(row, [start for start, _ in spans])
    parts = zip(spans, row.step_scores, truth, _p(row, row.step_scores), tokens, strict=True)
    return [
        StepView(text=row.response[start:stop], reward=reward, right=right, p_correct=p, tokens=inside)
        for (start, stop), reward, right, p, inside in parts
    ]


def _p(row: Rollout, scores: Sequence[float]) -> list[float | None]:
    """P(correct) after each step; a log-ratio's step rewards add up, and state it under their reference only."""
    is_ratio = "reward" in row.extra
    if is_ratio and (row.scorer or "").endswith(("without-reference", "reference-only")):
        return [None] * len(scores)
    values = np.cumsum(scores).tolist() if is_ratio else scores
    return [probability(value, row.extra.get(COLUMN)) for value in values]


def _tokens_by_step(row: Rollout, starts: Sequence[int]) -> list[tuple[TokenView, ...]]:
    """The tokens that begin in each step; those of one character share it, and the first of them shows it."""
    found: list[list[TokenView]] = [[] for _ in starts]
    for (start, stop), reward in zip(
        row.extra.get("token_spans") or (), row.extra.get("token_rewards") or (), strict=True
    ):
        text = row.response[start:stop] or "⏎"  # the end of the turn
        found[max(0, bisect_right(starts, start) - 1)].append(TokenView(text, reward))
    return [tuple(inside) for inside in found]
